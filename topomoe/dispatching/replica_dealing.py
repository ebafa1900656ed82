"""Compiled dealing: the device that serves each token-expert pair of a batch.

By share, each expert's tokens are apportioned to its replicas in whole numbers and dealt by a
stride through the counts, so that neighbouring tokens of a request do not all go to one replica. By
load, pairs go one by one to the least loaded device. By quota, replicas have a number of tokens
each, and tokens take the nearest that is left.

Everywhere, picks [T, P] are expert ids, ``DROPPED`` ones staying where the token is: they send
nothing and count in no load.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

IntArray = NDArray[np.int64]


@kernel
def mixed(seed: np.uint64, index: int) -> np.uint64:
    """Return 64 well mixed bits of (seed, index): splitmix64 (Steele et al., OOPSLA 2014)."""
    z = seed + np.uint64(index + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def coprime_stride(count: int) -> int:
    """Return a stride near count / golden ratio that visits all of 0..count-1."""
    stride = max(1, int(count * 0.6180339887498949))
    while True:
        a, b = count, stride
        while b:
            a, b = b, a % b
        if a == 1:
            return stride
        stride += 1


@kernel
def apportion(
    count: IntArray, start: IntArray, share: NDArray[np.float64], seed: np.uint64, quota: IntArray
) -> None:
    """Fill quota [X]: the whole tokens of each expert's replicas, by share.

    Systematic rounding with one seeded offset u an expert: the running sum is floor(n * c + u) for
    cumulative share c, so that each replica gets its share of n to within one token.
    """
    for expert in range(len(count)):
        first, last = start[expert], start[expert + 1]
        u = float(mixed(seed, expert) >> np.uint64(11)) * 2.0**-53
        total, before = 0.0, 0
        for x in range(first, last):
            total += share[x]
            bound = min(count[expert], int(np.floor(count[expert] * total + u)))
            if x == last - 1:
                bound = count[expert]
            quota[x] = bound - before
            before = bound


@kernel
def deal_by_share(
    picks: NDArray[np.uint16],
    count: IntArray,
    origin: NDArray[np.int32],
    start: IntArray,
    device: IntArray,
    quota: IntArray,
    seed: np.uint64,
    chosen: NDArray[np.int32],
) -> None:
    """Fill chosen [T, P] with devices: quota [X] tokens of count [E] a replica, by strides."""
    num_experts = len(count)
    # dealt[following[e]] is the device of expert e's next token: one table, no branch a token
    dealt = np.empty(count.sum(), dtype=np.int32)
    following = np.zeros(num_experts, dtype=np.int64)
    begin = 0
    for expert in range(num_experts):
        n = count[expert]
        following[expert] = begin
        if n == 0:
            continue
        stride = coprime_stride(n)
        at = np.int64(mixed(seed, num_experts + expert) % np.uint64(n))
        for x in range(start[expert], start[expert + 1]):
            here = device[x]
            for _ in range(quota[x]):
                dealt[begin + at] = here
                at += stride
                if at >= n:
                    at -= n
        begin += n
    for t in range(len(picks)):
        for k in range(picks.shape[1]):
            expert = picks[t, k]
            if expert < num_experts:
                chosen[t, k] = dealt[following[expert]]
                following[expert] += 1
            else:
                chosen[t, k] = origin[t]


@kernel
def deal_by_load(
    picks: NDArray[np.uint16],
    origin: NDArray[np.int32],
    start: IntArray,
    device: IntArray,
    num_devices: int,
    quota: IntArray,
    chosen: NDArray[np.int32],
) -> None:
    """Fill chosen [T, P] and the tokens of each replica, quota [X], pair by pair.

    Each pair goes to the replica on the device with the least load so far.
    """
    num_experts = len(start) - 1
    load = np.zeros(num_devices, dtype=np.int64)
    quota[:] = 0
    for t in range(len(picks)):
        for k in range(picks.shape[1]):
            expert = np.int64(picks[t, k])
            if expert >= num_experts:
                chosen[t, k] = origin[t]
                continue
            best = start[expert]
            for x in range(best + 1, start[expert + 1]):
                if load[device[x]] < load[device[best]]:
                    best = x
            quota[best] += 1
            load[device[best]] += 1
            chosen[t, k] = device[best]


@kernel
def deal_by_quota(
    picks: NDArray[np.uint16],
    origin: NDArray[np.int32],
    start: IntArray,
    device: IntArray,
    row_of: IntArray,
    quota: IntArray,
    chosen: NDArray[np.int32],
) -> None:
    """Fill chosen [T, P] with devices, each replica of quota [X] tokens getting exactly those.

    Pairs take replicas on their own device first, then all those that can stay in their row do, in
    batch order; for the quotas, no dealing keeps more on its device, or more in its row. Within
    either, a device that the token is sent to anyway comes first, then the largest rest of a quota.
    """
    num_experts = len(start) - 1
    left = quota.copy()
    replica_row = row_of[device]
    in_row = np.zeros((num_experts, row_of.max() + 1), dtype=np.bool_)
    for e in range(num_experts):
        for x in range(start[e], start[e + 1]):
            in_row[e, replica_row[x]] = True
    sent = np.full(len(row_of), -1, dtype=np.int64)
    waiting = np.empty(len(picks), dtype=np.int64)  # tokens with a pair that has no device yet
    num_waiting = 0
    for t in range(len(picks)):
        here = origin[t]
        row = row_of[here]
        open_pair = False
        for k in range(picks.shape[1]):
            expert = picks[t, k]
            if expert >= num_experts:
                chosen[t, k] = here
                continue
            first, last = start[expert], start[expert + 1]
            if last - first == 1:
                chosen[t, k] = device[first]
                continue
            chosen[t, k] = -1
            if in_row[expert, row]:
                for x in range(first, last):
                    if device[x] == here and left[x] > 0:
                        left[x] -= 1
                        chosen[t, k] = here
                        break
            open_pair |= chosen[t, k] < 0
        if open_pair:
            waiting[num_waiting] = t
            num_waiting += 1
    for anywhere in (False, True):
        still = 0
        for i in range(num_waiting):
            t = waiting[i]
            row = row_of[origin[t]]
            for k in range(picks.shape[1]):
                if chosen[t, k] >= 0:
                    sent[chosen[t, k]] = t
            open_pair = False
            for k in range(picks.shape[1]):
                if chosen[t, k] >= 0:
                    continue
                if not (anywhere or in_row[picks[t, k], row]):
                    open_pair = True
                    continue
                best, most = -1, 0
                for x in range(start[picks[t, k]], start[picks[t, k] + 1]):
                    if left[x] == 0 or not (anywhere or replica_row[x] == row):
                        continue
                    if sent[device[x]] == t:
                        best = x
                        break
                    if left[x] > most:
                        best, most = x, left[x]
                if best >= 0:
                    left[best] -= 1
                    chosen[t, k] = device[best]
                    sent[device[best]] = t
                else:
                    open_pair = True
            if open_pair:
                waiting[still] = t
                still += 1
        num_waiting = still
        sent[:] = -1
