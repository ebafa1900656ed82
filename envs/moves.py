"""From one placement of the experts to another: what must travel, and where a rebalance leads.

A device that is to serve an expert it did not hold receives its weights; what it held already, in
whatever slot, stays. The device that receives most sets how long it takes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import Cluster
from topomoe.topologies.errors import InputError
from topomoe.topologies.kernel import kernel

IntArray = NDArray[np.int64]
SlotArray = NDArray[np.int16]
AlignScratch: TypeAlias = tuple[
    IntArray, IntArray, IntArray, IntArray, IntArray, IntArray, NDArray[np.bool_], SlotArray
]


def moved_seconds(
    cluster: Cluster,
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    layout: NDArray[Any],
) -> NDArray[np.float64]:
    """Return seconds [n] that weights take from ``before`` to ``after`` at the migration share.

    The largest number over devices of (layer, expert) pairs newly held, times ``expert_bytes`` and
    ``layer_scale``, over ``nic * migration_share``.

    Args:
        cluster: the devices.
        before: int16 [n, M, S].
        after: int16 [n, M, S].
        layout: int [n], the layout that both are of.
    """
    most = np.empty(len(before), dtype=np.int64)
    _most_received(
        np.require(before, np.int16, ["C", "W"]),
        np.require(after, np.int16, ["C", "W"]),
        np.ascontiguousarray(layout, dtype=np.int64),
        device_slots(cluster),
        most,
    )
    pair = cluster.expert_bytes * cluster.layer_scale / (cluster.nic * cluster.migration_share)
    return np.asarray(most * pair, dtype=np.float64)


def rebalance(
    cluster: Cluster,
    forecast: NDArray[np.floating[Any]],
    layout: NDArray[Any],
    current: NDArray[np.int16] | None = None,
) -> NDArray[np.int16]:
    """Return int16 [n, M, S]: DeepSeek's EPLB for the forecast loads, every group by itself.

    Args:
        cluster: the devices.
        forecast: [n, M, E] load of each expert, up to a factor a layer.
        layout: int [n].
        current: int16 [n, M, S], the placement served so far: ``aligned`` with it. None: as made.

    Raises:
        InputError: the devices of a group have different numbers of slots, or a group too few.
    """
    from topomoe.placement import eplb
    from topomoe.placement.problem import PlacementProblem

    rows, layers, experts = forecast.shape
    target = np.full((rows, layers, cluster.slot_device.shape[1]), -1, dtype=np.int16)
    for v in np.unique(layout):
        mine = np.flatnonzero(np.asarray(layout) == v)
        load = np.asarray(forecast[mine], dtype=np.float64).reshape(-1, experts)
        for g in range(cluster.weight.shape[1]):
            slots = group_slots(cluster, int(v), g)
            if not slots.size:
                continue
            if slots.size < experts or slots.shape[1] > experts:
                raise InputError(
                    f"group {g} of layout {cluster.layouts[v]} must have between {experts} and "
                    f"{experts} * {len(slots)} slots, got {slots.size}"
                )
            problem = PlacementProblem(load, load[None], len(slots), slots.size, None, 0)
            made = eplb.assign(problem)[0].reshape(len(mine), layers, -1)
            target[mine[:, None, None], np.arange(layers)[:, None], slots.ravel()] = made
    return target if current is None else aligned(cluster, target, current, layout)


def group_slots(cluster: Cluster, layout: int, group: int) -> NDArray[np.int64]:
    """Return the slots of a group's devices, [devices, slots a device]; empty: no such group."""
    of = cluster.slot_device[layout].astype(np.int64)
    devices = np.flatnonzero(cluster.group_of[layout] == group)
    slots = [np.flatnonzero(of == d) for d in devices]
    if len({len(own) for own in slots}) > 1:
        raise InputError(
            f"devices of group {group} of layout {cluster.layouts[layout]} must have equally many "
            "slots"
        )
    return np.array(slots, dtype=np.int64).reshape(len(devices), len(slots[0]) if slots else 0)


def aligned(
    cluster: Cluster,
    target: NDArray[np.int16],
    current: NDArray[np.int16],
    layout: NDArray[Any],
) -> NDArray[np.int16]:
    """Return ``target`` [n, M, S] with devices renamed within groups so that experts stay put.

    In each layer what one device is to hold goes to the device that holds most of it now, the
    largest overlaps first; an expert that stays on its device stays in its slot.
    """
    out = np.empty_like(target)
    _align(
        np.require(target, np.int16, ["C", "W"]),
        np.require(current, np.int16, ["C", "W"]),
        np.ascontiguousarray(layout, dtype=np.int64),
        device_slots(cluster),
        np.require(cluster.group_of, np.int16, ["C", "W"]),
        int(max(target.max(initial=0), current.max(initial=0))) + 1,
        out,
    )
    return out


@lru_cache(maxsize=16)
def device_slots(cluster: Cluster) -> NDArray[np.int16]:
    """Return the slots of each device, int16 [V, N, most]; -1: no more."""
    of = cluster.slot_device
    layouts, devices = cluster.group_of.shape
    most = max(1, *(int(np.bincount(row[row >= 0], minlength=1).max()) for row in of))
    slots = np.full((layouts, devices, most), -1, dtype=np.int16)
    for v in range(layouts):
        order = np.argsort(of[v], kind="stable")
        order = order[of[v, order] >= 0]
        device = of[v, order]
        first = np.searchsorted(device, device)
        slots[v, device, np.arange(len(order)) - first] = order
    return slots


@kernel
def count_received(
    before: SlotArray, after: SlotArray, table: SlotArray, received: IntArray
) -> None:
    """Add to ``received`` [N] the experts of a layer that are new to each device.

    ``before`` and ``after`` are [S]; ``table`` [N, ...] is of ``device_slots``.
    """
    for d in range(table.shape[0]):
        for i in range(table.shape[1]):
            s = table[d, i]
            if s < 0:
                break
            e = after[s]
            if e < 0 or e == before[s]:
                continue
            new = True
            for j in range(table.shape[1]):
                other = table[d, j]
                if other < 0:
                    break
                if before[other] == e or (j < i and after[other] == e):
                    new = False
                    break
            if new:
                received[d] += 1


@kernel
def _most_received(
    before: SlotArray, after: SlotArray, layout: IntArray, slots: SlotArray, most: IntArray
) -> None:
    """Fill ``most`` [n]; slots [V, N, ...] as ``device_slots`` has them."""
    received = np.zeros(slots.shape[1], dtype=np.int64)
    for n in range(len(before)):
        received[:] = 0
        for m in range(before.shape[1]):
            count_received(before[n, m], after[n, m], slots[layout[n]], received)
        most[n] = received.max()


@kernel
def _align(
    target: SlotArray,
    current: SlotArray,
    layout: IntArray,
    slots: SlotArray,
    group_of: SlotArray,
    experts: int,
    out: SlotArray,
) -> None:
    """Fill ``out`` [n, M, S]."""
    scratch = align_scratch(slots.shape[1], slots.shape[2], experts)
    for n in range(len(target)):
        v = layout[n]
        for m in range(target.shape[1]):
            align_layer(target[n, m], current[n, m], slots[v], group_of[v], scratch, out[n, m])


@kernel
def align_scratch(devices: int, most: int, experts: int) -> AlignScratch:
    """Return what ``align_layer`` works on."""
    return (
        np.empty((experts, devices), dtype=np.int64),  # who holds an expert
        np.empty(experts, dtype=np.int64),  # how many do
        np.zeros((devices, devices), dtype=np.int64),  # overlaps; zero between calls
        np.empty((devices, devices), dtype=np.int64),  # devices that hold some of the same
        np.empty(devices, dtype=np.int64),  # how many do
        np.empty(devices, dtype=np.int64),  # the device that takes over what this one is to hold
        np.empty(devices, dtype=np.bool_),  # whether a device has taken some over
        np.empty(most, dtype=np.int16),  # experts new to a device
    )


@kernel
def align_layer(
    wanted: SlotArray,
    old: SlotArray,
    table: SlotArray,
    group: SlotArray,
    scratch: AlignScratch,
    new: SlotArray,
) -> None:
    """Fill ``new`` [S]: greedy matching of target devices to devices, by overlap."""
    holders, count, overlap, near, nears, name, taken, left = scratch
    devices, most = table.shape
    new[:] = -1
    count[:] = 0
    for d in range(devices):
        if group[d] < 0:
            continue
        for i in range(most):
            s = table[d, i]
            if s < 0:
                break
            e = old[s]
            if e >= 0 and (count[e] == 0 or holders[e, count[e] - 1] != d):
                holders[e, count[e]] = d
                count[e] += 1
    highest = 0
    for d in range(devices):
        nears[d] = 0
        name[d] = -1
        taken[d] = False
        for i in range(most):
            s = table[d, i]
            if s < 0 or group[d] < 0:
                break
            if wanted[s] < 0:
                continue
            for h in range(count[wanted[s]]):
                there = holders[wanted[s], h]
                if group[there] != group[d]:
                    continue
                if overlap[d, there] == 0:
                    near[d, nears[d]] = there
                    nears[d] += 1
                overlap[d, there] += 1
                highest = max(highest, overlap[d, there])
    for same in range(highest, 0, -1):
        for d in range(devices):
            if name[d] >= 0:
                continue
            for k in range(nears[d]):
                there = near[d, k]
                if overlap[d, there] == same and not taken[there]:
                    name[d] = there
                    taken[there] = True
                    break
    for d in range(devices):
        for k in range(nears[d]):
            overlap[d, near[d, k]] = 0
        if name[d] >= 0 or group[d] < 0:
            continue
        for there in range(devices):
            if not taken[there] and group[there] == group[d]:
                name[d] = there
                taken[there] = True
                break
    for d in range(devices):
        there = name[d]
        if there < 0:
            continue
        rest = 0
        for i in range(most):
            s = table[d, i]
            if s < 0:
                break
            if wanted[s] < 0:
                continue
            stays = False
            for j in range(most):
                slot = table[there, j]
                if slot < 0:
                    break
                if old[slot] == wanted[s] and new[slot] < 0:
                    new[slot] = wanted[s]
                    stays = True
                    break
            if not stays:
                left[rest] = wanted[s]
                rest += 1
        for j in range(most):
            slot = table[there, j]
            if slot < 0 or rest == 0:
                break
            if new[slot] < 0:
                rest -= 1
                new[slot] = left[rest]
