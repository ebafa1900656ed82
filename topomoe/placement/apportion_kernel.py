"""Compiled rounding of shares to whole hash entries.

The replicas of expert e are slot[start[e]:start[e + 1]].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

_ROUNDING = 1e-9  # of a device's load: less is no improvement


@kernel
def largest_remainders(
    start: NDArray[np.int64],  # [E+1]
    slot: NDArray[np.int64],  # [S]
    share: NDArray[np.float64],  # [S]
    entries: int,
    weight: NDArray[np.int64],  # [S], written
) -> None:
    """Give each replica floor(entries * share), and the rest by largest remainder."""
    for e in range(len(start) - 1):
        left = entries
        for x in range(start[e], start[e + 1]):
            weight[slot[x]] = int(np.floor(entries * share[slot[x]]))
            left -= weight[slot[x]]
        for _ in range(left):
            best, most = -1, -np.inf
            for x in range(start[e], start[e + 1]):
                remainder = entries * share[slot[x]] - weight[slot[x]]
                if remainder > most + 1e-12:
                    best, most = slot[x], remainder
            weight[best] += 1


@kernel
def lower_worst(
    start: NDArray[np.int64],  # [E+1]
    slot: NDArray[np.int64],  # [S]
    expert: NDArray[np.int32],  # [S]
    unit: NDArray[np.float64],  # [E], load of one entry
    devices: int,
    weight: NDArray[np.int64],  # [S], changed
) -> None:
    """Move entries away from the worst device, along chains of devices, until none lowers it."""
    per_device = len(expert) // devices
    load = np.zeros(devices)
    for s in range(len(expert)):
        load[s // per_device] += weight[s] * unit[expert[s]]
    queue = np.empty(devices, dtype=np.int64)
    reached = np.empty(devices, dtype=np.bool_)
    arriving = np.empty(devices)  # load of the entry that a chain brings
    source = np.empty(devices, dtype=np.int64)  # slots between which it moves
    target = np.empty(devices, dtype=np.int64)
    for _ in range(64 * devices):
        worst = np.argmax(load)
        top = load[worst] * (1.0 - _ROUNDING)
        reached[:] = False
        reached[worst] = True
        arriving[worst] = 0.0
        queue[0] = worst
        head, tail, end = 0, 1, -1
        while head < tail and end < 0:
            d = queue[head]
            head += 1
            for s in range(d * per_device, (d + 1) * per_device):
                e = expert[s]
                if weight[s] == 0 or unit[e] <= 0.0 or load[d] + arriving[d] - unit[e] >= top:
                    continue
                for x in range(start[e], start[e + 1]):
                    d2 = slot[x] // per_device
                    if reached[d2]:
                        continue
                    reached[d2] = True
                    arriving[d2], source[d2], target[d2] = unit[e], s, slot[x]
                    queue[tail] = d2
                    tail += 1
                    if load[d2] + unit[e] < top:
                        end = d2
                        break
                if end >= 0:
                    break
        if end < 0:
            return
        while end != worst:
            before = source[end] // per_device
            weight[source[end]] -= 1
            weight[target[end]] += 1
            load[end] += unit[expert[target[end]]]
            load[before] -= unit[expert[target[end]]]
            end = before


@kernel
def interleave(
    start: NDArray[np.int64],  # [E+1]
    slot: NDArray[np.int64],  # [S]
    weight: NDArray[np.int64],  # [S]
    table: NDArray[np.int32],  # [E, entries], written
) -> None:
    """Deal each expert's entries to its replicas: always to the one furthest behind its part."""
    entries = table.shape[1]
    credit = np.zeros(len(slot), dtype=np.int64)
    for e in range(len(start) - 1):
        first, last = start[e], start[e + 1]
        credit[first:last] = 0
        for entry in range(entries):
            best = first
            for x in range(first, last):
                credit[x] += weight[slot[x]]
                if credit[x] > credit[best]:
                    best = x
            credit[best] -= entries
            table[e, entry] = slot[best]
