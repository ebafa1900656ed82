"""Circuits for groups that talk among themselves: short cycles of their own for each group."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.group_layout import Layout

TRIES = 400  # sets of strides looked at in a large group


def group_circuits(layout: Layout, ports: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return circuits (transmitter, receiver) [X, 2] that stay inside each group of a layout.

    A group of n is wired as a circulant graph: device i sends to i + s for each of
    min(ports, n - 1) strides s, those of the least mean distance between devices (of at most TRIES
    sets). Under even all-to-all traffic the mean load of a link is the mean distance times what a
    device sends over its ports, so that the least mean distance loads links least in the mean.
    Ports left over, where a group is smaller than that, double
    circuits in turn.
    """
    circuits: list[NDArray[np.int64]] = []
    for group in range(len(layout.kinds)):
        devices = layout.members(group)
        count = len(devices)
        strides = best_strides(count, min(ports, count - 1), rng)
        spare = ports - len(strides)
        strides += [strides[i % len(strides)] for i in range(spare)]
        for stride in strides:
            circuits.append(np.stack([devices, np.roll(devices, -stride)], axis=1))
    return np.concatenate(circuits)


def best_strides(count: int, degree: int, rng: np.random.Generator) -> list[int]:
    """Return ``degree`` strides of a circulant of ``count`` devices with the least mean distance.

    Stride 1 is always among them, so that every device reaches every other.
    """
    others = list(range(2, count))
    every = _number_of_sets(len(others), degree - 1)
    if every <= TRIES:
        sets = [list(chosen) for chosen in combinations(others, degree - 1)]
    else:
        sets = [
            sorted(rng.choice(others, degree - 1, replace=False).tolist()) for _ in range(TRIES)
        ]
    return min(([1, *chosen] for chosen in sets), key=lambda s: (_mean_distance(count, s), s))


def _number_of_sets(items: int, chosen: int) -> int:
    total = 1
    for i in range(chosen):
        total = total * (items - i) // (i + 1)
    return total


def _mean_distance(count: int, strides: list[int]) -> float:
    """Return the mean distance from device 0 of a circulant graph."""
    distance = np.full(count, count, dtype=np.int64)
    distance[0] = 0
    frontier = np.array([0])
    steps = 0
    while len(frontier):
        steps += 1
        reached = np.unique((frontier[:, None] + np.array(strides)) % count)
        frontier = reached[distance[reached] > steps]
        distance[frontier] = steps
    return float(distance.mean())
