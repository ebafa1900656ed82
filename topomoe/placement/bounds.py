"""Proven lower bounds on the largest device load, and how far a placement is from them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.placement.placement import Placement
from topomoe.topologies.errors import InputError


@dataclass(frozen=True, eq=False)
class Certificate:
    """How far the largest device load of each layer is from a proven bound."""

    bound: NDArray[np.float64]  # [M], no placement with these slots has a lower maximum
    achieved: NDArray[np.float64]  # [M], the largest device load
    gap: NDArray[np.float64]  # [M], achieved / bound - 1


def certificate(placement: Placement, load: ArrayLike) -> Certificate:
    """Return the bound, the largest device load and their gap for ``load[M, E]``."""
    device_load = placement.device_load(load)
    rows = np.asarray(load, dtype=np.float64).reshape(placement.num_layers, -1)
    devices, slots = placement.num_devices, placement.num_slots
    bound = np.array([lower_bound(row, devices, slots) for row in rows])
    achieved = device_load.max(axis=1)
    gap = np.divide(achieved, bound, out=np.ones_like(bound), where=bound > 0) - 1.0
    gap[np.abs(gap) < 1e-12] = 0.0  # rounding of the sums
    return Certificate(bound, achieved, gap)


def gap(placement: Placement, load: ArrayLike) -> NDArray[np.float64]:
    """Return largest device load / lower bound - 1 of each layer, [M]."""
    return certificate(placement, load).gap


def lower_bound(load: ArrayLike, devices: int, slots: int) -> float:
    """Return a load that some device must reach, whatever the placement and the shares.

    ``load[E]``, in the unit of the result. The largest of

    - the device mean; reached if S >= E + N - 1 (theorem 1 of ``exact``);
    - the largest load per replica when the S - E surplus slots go one by one to the expert with
      the largest: an expert of load x with r slots leaves x/r on one of them, and this greedy
      lowers the maximum most;
    - two packing bounds on whole experts. At most S - E experts have more than one slot. Take away
      the S - E heaviest and let their slots, 2(S - E) at most, count as items of load 0: the S
      items left, S/N a device, cannot be heavier than the slots of any placement. (1) Of the
      kN + 1 heaviest items, k + 1 share a device with at least the S/N - k - 1 lightest. (2) The i
      heaviest either share a device, or i devices hold i(S/N - 1) others, one of which ranks at
      least that high from below. With S = E and S/N = 2 the latter is the optimum.

    Raises InputError for slots fewer than experts or not a multiple of devices.
    """
    loads = np.sort(np.asarray(load, dtype=np.float64))[::-1]
    if loads.ndim != 1 or loads.size == 0:
        raise InputError(f"load must be [E] with E >= 1, got shape {loads.shape}")
    if devices < 1 or slots < loads.size or slots % devices:
        raise InputError(
            f"slots must be >= experts and a multiple of devices, got slots={slots}, "
            f"experts={loads.size} and devices={devices}"
        )
    mean = float(loads.sum() / devices)
    surplus, per_device = slots - loads.size, slots // devices
    if surplus >= devices - 1:
        return mean
    return max(mean, _replicated(loads, surplus), _packed(loads, surplus, devices, per_device))


def _replicated(loads: NDArray[np.float64], surplus: int) -> float:
    """Return the largest load per replica, ``loads`` descending."""
    replicas = np.ones(loads.size)
    for _ in range(surplus):
        replicas[np.argmax(loads / replicas)] += 1
    return float((loads / replicas).max())


def _packed(loads: NDArray[np.float64], surplus: int, devices: int, per_device: int) -> float:
    """Return the packing bound, ``loads`` descending."""
    if surplus >= loads.size:
        return 0.0
    items = np.concatenate([loads[surplus:], np.zeros(2 * surplus)])  # S of them, descending
    if per_device == 1:
        return float(items[0])
    heavy = np.concatenate([[0.0], np.cumsum(items)])  # heavy[i]: the i heaviest together
    light = np.concatenate([[0.0], np.cumsum(items[::-1])])
    k = np.arange(1, per_device)
    shared = heavy[k * devices + 1] - heavy[k * devices - k] + light[per_device - k - 1]
    i = np.arange(1, devices + 1)
    beside = items[::-1][i * (per_device - 1) - 1]
    above = np.concatenate([[inf], items[: devices - 1]])
    paired = items[i - 1] + np.minimum(above, beside) + light[per_device - 2]
    return float(max(shared.max(), paired.max()))
