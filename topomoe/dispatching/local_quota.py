"""Replicas near the tokens: same device, then same row, then anywhere, up to a load per device.

Tokens of one expert differ only in where they start, so that they are counted, not handled one by
one. Each device's own tokens of an expert it holds stay there; those of a row stay in the row where
it has a replica; the rest goes anywhere. Where there is a choice it levels the loads. What exceeds
the cap then spills along the shortest chains of moves: first tokens whose row holds no replica,
then any.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.dispatching.replica_flow import repair
from topomoe.topologies.kernel import kernel

IntArray = NDArray[np.int64]


@kernel
def pour(amount: int, among: IntArray, device: IntArray, quota: IntArray, load: IntArray) -> None:
    """Add the tokens to the replicas ``among``, always to the one on the least loaded device."""
    while amount > 0:  # once, unless a device has two of the replicas
        low = load[device[among[0]]]
        high = low
        for x in among:
            low, high = min(low, load[device[x]]), max(high, load[device[x]])
        high += amount
        while low < high:  # the highest level that the tokens fill everywhere
            level = (low + high + 1) // 2
            room = 0
            for x in among:
                room += max(0, level - load[device[x]])
            if room <= amount:
                low = level
            else:
                high = level - 1
        for x in among:
            put = max(0, low - load[device[x]])
            quota[x] += put
            load[device[x]] += put
            amount -= put
        for x in among:
            if amount > 0 and load[device[x]] == low:
                quota[x] += 1
                load[device[x]] += 1
                amount -= 1


@kernel
def local_quota(
    row_count: IntArray,
    own: IntArray,
    start: IntArray,
    device: IntArray,
    row_of: IntArray,
    cap: int,
    quota: IntArray,
) -> None:
    """Fill quota [X]: the tokens of each replica, as local as a cap on device loads allows.

    row_count [E, R]: tokens of each expert by the row they start in; own [X]: those that start on
    the replica's device (0 at a second replica there); start [E+1], device [X] as in
    ``replica_flow``; row_of [N]. ``cap`` < 0: none. A cap below the optimum leaves the loads that
    the moves found reach.
    """
    num_experts, rows = row_count.shape
    load = np.zeros(len(row_of), dtype=np.int64)
    replicas = np.zeros((num_experts, rows), dtype=np.int64)
    rest = row_count.copy()
    quota[:] = own
    for e in range(num_experts):
        for x in range(start[e], start[e + 1]):
            row = row_of[device[x]]
            replicas[e, row] += 1
            rest[e, row] -= own[x]
            load[device[x]] += own[x]
    # What leaves no choice first, so that the choices see what is loaded.
    for e in range(num_experts):
        for x in range(start[e], start[e + 1]):
            row = row_of[device[x]]
            if replicas[e, row] == 1:
                quota[x] += rest[e, row]
                load[device[x]] += rest[e, row]
                rest[e, row] = 0
    for e in range(num_experts):
        for x in range(start[e], start[e + 1]):
            row = row_of[device[x]]
            if rest[e, row] > 0:  # several replicas there
                every = np.arange(start[e], start[e + 1])
                pour(rest[e, row], every[row_of[device[every]] == row], device, quota, load)
                rest[e, row] = 0
    bound = quota.copy()
    for choice in (False, True):
        for e in range(num_experts):
            every = np.arange(start[e], start[e + 1])
            if (len(every) > 1) == choice:
                pour(rest[e].sum(), every, device, quota, load)
    if cap >= 0:
        proof = np.zeros(len(load), dtype=np.bool_)
        repair(cap, False, quota, bound, load, start, device, proof)
        repair(cap, False, quota, np.zeros_like(quota), load, start, device, proof)
