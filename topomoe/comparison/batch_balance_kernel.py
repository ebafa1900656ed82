"""Compiled loads of many batches of one layer, from counts alone: no tokens, no traffic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.dispatching.dispatch_kernel import least_largest, spill_cap
from topomoe.dispatching.local_quota import local_quota
from topomoe.dispatching.replica_dealing import apportion, mixed
from topomoe.dispatching.replica_flow import device_sums
from topomoe.topologies.kernel import kernel

IntArray = NDArray[np.int64]

BY_SHARE = 0  # even or weighted
LEAST_LOADED = 1
LOCAL_FIRST = 2
LEAST_LARGEST = 3  # lp


@kernel
def shuffled_greedy(
    count: IntArray, start: IntArray, device: IntArray, num_devices: int, seed: np.uint64
) -> int:
    """Return the largest load after pairs in random order each take the least loaded replica."""
    pairs = np.empty(count.sum(), dtype=np.uint16)
    at = 0
    for e in range(len(count)):
        pairs[at : at + count[e]] = e
        at += count[e]
    load = np.zeros(num_devices, dtype=np.int64)
    for i in range(len(pairs) - 1, -1, -1):  # Fisher-Yates, the last first
        j = np.int64(((mixed(seed, i) >> np.uint64(32)) * np.uint64(i + 1)) >> np.uint64(32))
        pairs[i], pairs[j] = pairs[j], pairs[i]
        e = pairs[i]
        best = device[start[e]]
        for x in range(start[e] + 1, start[e + 1]):
            if load[device[x]] < load[best]:
                best = device[x]
        load[best] += 1
    return int(load.max())


@kernel
def largest_loads(
    count: IntArray,
    row_count: IntArray,
    own: IntArray,
    start: IntArray,
    device: IntArray,
    share: NDArray[np.float64],
    row_of: IntArray,
    choice: int,
    spill: float,
    seed: NDArray[np.uint64],
    largest: IntArray,
) -> None:
    """Fill largest [B]: the largest device load of each batch of count [B, E].

    row_count [B, E, R] and own [B, X] are read by local-first only; seed [B].
    """
    num_devices = len(row_of)
    quota = np.empty(len(device), dtype=np.int64)
    for b in range(len(count)):
        if choice == LEAST_LOADED:
            largest[b] = shuffled_greedy(count[b], start, device, num_devices, seed[b])
            continue
        if choice == LEAST_LARGEST or (choice == LOCAL_FIRST and not np.isinf(spill)):
            largest[b] = least_largest(count[b], start, device, share, seed[b], num_devices, quota)
            if choice == LEAST_LARGEST:
                continue
        if choice == LOCAL_FIRST:
            cap = spill_cap(largest[b], spill)
            local_quota(row_count[b], own[b], start, device, row_of, cap, quota)
        else:
            apportion(count[b], start, share, seed[b], quota)
        largest[b] = device_sums(quota, device, num_devices).max()
