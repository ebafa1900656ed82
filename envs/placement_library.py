"""The placements that a scenario may choose from, each made for every layout's groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, Cluster, StepPool
from topomoe.envs.group_layout import Layout
from topomoe.envs.step_price import price_steps
from topomoe.placement import place

SlotArray = NDArray[np.int16]
FloatArray = NDArray[np.float64]

ROUNDS = 40  # of annealing a layer, each of TRIES swaps
TRIES = 16
COOLING = 0.87
HEAT = 0.01  # first temperature over the layer's seconds
SAMPLE = 8  # training steps that annealing prices


def slots_per_device(num_experts: int, devices: int, redundancy: float) -> int:
    """Return the slots of each device of a group: enough for ``redundancy`` * experts."""
    return max(1, int(np.ceil(num_experts * redundancy / devices - 1e-9)))


def slot_devices(layouts: Sequence[Layout], num_experts: int, redundancy: float) -> SlotArray:
    """Return the device of each slot, int16 [V, S], group after group; -1: no slot."""
    rows = []
    for layout in layouts:
        parts = [
            np.repeat(layout.members(g), slots_per_device(num_experts, int(size), redundancy))
            for g, size in enumerate(layout.sizes)
        ]
        rows.append(np.concatenate(parts))
    most = max(len(row) for row in rows)
    return np.stack([np.pad(row, (0, most - len(row)), constant_values=-1) for row in rows]).astype(
        np.int16
    )


def balanced(
    load: FloatArray, layout: Layout, slots: int, redundancy: float, seed: int
) -> SlotArray:
    """Return EPLB's placement for loads [G, M, E] of a layout's groups, [M, ``slots``].

    A load of zero throughout is taken as even. Slots follow ``slot_devices``.
    """
    layers, experts = load.shape[1:]
    out = np.full((layers, slots), -1, dtype=np.int16)
    first = 0
    for g, size in enumerate(layout.sizes.tolist()):
        count = size * slots_per_device(experts, size, redundancy)
        tiny = max(float(load[g].max()), 1.0) * 1e-9  # an expert never seen still needs a slot
        made = place(load[g] + tiny, devices=size, slots=count, method="eplb", seed=seed)
        out[:, first : first + count] = made.slot_expert
        first += count
    return out


def annealed(
    cluster: Cluster,
    pool: StepPool,
    start: SlotArray,
    layout: int,
    topology: int,
    steps: NDArray[np.int64],
    rng: np.random.Generator,
) -> SlotArray:
    """Return a static placement [M, S] of least mean priced seconds over some of ``steps``.

    Simulated annealing (Kirkpatrick et al. 1983) from ``start``, layer by layer: ROUNDS
    temperatures with TRIES swaps of two slots of a group at each, priced as environments price.
    """
    sample = np.sort(rng.permutation(steps)[:SAMPLE])
    device = cluster.slot_device[layout]
    group = np.where(device < 0, -1, cluster.group_of[layout][device])
    members = [np.flatnonzero(group == g) for g in range(int(group.max()) + 1)]
    best = start.copy()
    for layer in range(len(start)):
        counts = np.ascontiguousarray(pool.counts[:, :, layer : layer + 1])
        part = replace(pool, counts=counts)
        price = partial(_seconds, _one_layer(cluster), part, sample, topology)
        best[layer] = _anneal_layer(price, start[layer], device, members, rng)
    return best


@lru_cache(maxsize=2)
def _one_layer(cluster: Cluster) -> Cluster:
    """Return the cluster of a single layer: one, whose networks are then prepared once."""
    return replace(cluster, slot_expert=cluster.slot_expert[:, :, :1])


def _seconds(
    cluster: Cluster, pool: StepPool, steps: NDArray[np.int64], topology: int, slots: SlotArray
) -> float:
    which = np.zeros(len(steps), dtype=np.int64)
    topologies = np.full(len(steps), topology)
    priced = price_steps(cluster, pool, steps, topologies, slots[None, None], which)
    return float(priced[: len(PARTS) - 1].sum())


def _anneal_layer(
    price: Callable[[SlotArray], float],
    start: SlotArray,
    device: SlotArray,
    members: Sequence[NDArray[np.int64]],
    rng: np.random.Generator,
) -> SlotArray:
    now, best = start.copy(), start.copy()
    value = lowest = price(start)
    temperature = HEAT * value
    for _ in range(ROUNDS):
        for _ in range(TRIES):
            inside = members[int(rng.integers(len(members)))]
            pair = rng.choice(inside, 2, replace=False)
            if not _may_swap(now, device, *pair.tolist()):
                continue
            tried = now.copy()
            tried[pair] = tried[pair[::-1]]
            after = price(tried)
            if after <= value or rng.random() < np.exp((value - after) / temperature):
                now, value = tried, after
                if value < lowest:
                    best, lowest = now, value
        temperature *= COOLING
    return best


def _may_swap(slots: SlotArray, device: SlotArray, first: int, second: int) -> bool:
    """Whether a swap leaves no device with an expert twice and changes anything."""
    a, b = device[first], device[second]
    if a == b or slots[first] == slots[second]:
        return False
    return slots[second] not in slots[device == a] and slots[first] not in slots[device == b]
