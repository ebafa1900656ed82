"""Compiled dispatch: which replica serves each token-expert pair, and what crosses the network.

A layer is dispatched in two stages. The first gives every token-expert pair a device, by share or
by load; the second counts the copies that cross from device to device. By share, each expert's
tokens are apportioned to its replicas in whole numbers and dealt by a stride through the counts, so
that neighbouring tokens of a request do not all go to one replica.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

COPIES_DEVICE = 0  # one copy per token and destination device
COPIES_NODE_RELAY = 2  # one copy per token and destination node, forwarded inside

BY_SHARE = 0  # replicas in proportion to their shares
LEAST_LOADED = 1  # the replica on the device with the least load so far
LOCAL_FIRST = 2  # same device, then same row, then least loaded


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
    count: NDArray[np.int64],
    replica_start: NDArray[np.int64],
    replica_share: NDArray[np.float64],
    seed: np.uint64,
    bound: NDArray[np.int64],
) -> None:
    """Fill bound [X]: running sums of the whole tokens of an expert's replicas, by share.

    Systematic rounding with one seeded offset u an expert: the running sum is floor(n * c + u) for
    cumulative share c, so that each replica gets its share of n to within one token.
    """
    for expert in range(len(count)):
        first, last = replica_start[expert], replica_start[expert + 1]
        u = float(mixed(seed, expert) >> np.uint64(11)) * 2.0**-53
        total = 0.0
        for x in range(first, last):
            total += replica_share[x]
            bound[x] = min(count[expert], int(np.floor(count[expert] * total + u)))
        bound[last - 1] = count[expert]


@kernel
def deal_by_share(
    experts: NDArray[np.int16],
    positions: NDArray[np.int64],
    shared_expert: int,
    replica_start: NDArray[np.int64],
    replica_slot: NDArray[np.int32],
    replica_share: NDArray[np.float64],
    slots_per_device: int,
    seed: np.uint64,
    chosen: NDArray[np.int32],
    slot_load: NDArray[np.int64],
) -> None:
    """Fill chosen [T, picks] with devices and add to slot_load [S], replicas by their shares."""
    top_k = experts.shape[1]
    num_experts = len(replica_start) - 1
    count = np.zeros(num_experts, dtype=np.int64)
    for t in range(len(positions)):
        row = experts[positions[t]]
        for k in range(top_k):
            count[np.uint16(row[k])] += 1
    if shared_expert >= 0:
        count[shared_expert] = len(positions)
    bound = np.zeros(len(replica_slot), dtype=np.int64)
    apportion(count, replica_start, replica_share, seed, bound)

    # dealt[following[e]] is the device of expert e's next token: one table, no branch a token
    dealt = np.empty(len(positions) * chosen.shape[1], dtype=np.int32)
    following = np.zeros(num_experts, dtype=np.int64)
    begin = 0
    for expert in range(num_experts):
        n = count[expert]
        following[expert] = begin
        if n == 0:
            continue
        stride = coprime_stride(n)
        at = np.int64(mixed(seed, num_experts + expert) % np.uint64(n))
        before = 0
        for x in range(replica_start[expert], replica_start[expert + 1]):
            slot_load[replica_slot[x]] += bound[x] - before
            device = replica_slot[x] // slots_per_device
            for _ in range(bound[x] - before):
                dealt[begin + at] = device
                at += stride
                if at >= n:
                    at -= n
            before = bound[x]
        begin += n
    for t in range(len(positions)):
        row = experts[positions[t]]
        for k in range(top_k):
            picked = np.uint16(row[k])
            chosen[t, k] = dealt[following[picked]]
            following[picked] += 1
        if shared_expert >= 0:
            chosen[t, top_k] = dealt[following[shared_expert]]
            following[shared_expert] += 1


@kernel
def deal_by_load(
    experts: NDArray[np.int16],
    positions: NDArray[np.int64],
    origin: NDArray[np.int32],
    shared_expert: int,
    replica_start: NDArray[np.int64],
    replica_slot: NDArray[np.int32],
    slots_per_device: int,
    num_devices: int,
    row_of: NDArray[np.int64],
    local_first: bool,
    chosen: NDArray[np.int32],
    slot_load: NDArray[np.int64],
) -> None:
    """Fill chosen [T, picks] with devices and add to slot_load [S], token by token by load so far.

    The replica on the least loaded device; with ``local_first`` one on the token's own device if
    there is one, else the least loaded of its row (``columns`` devices a row), else of all.
    """
    elsewhere = np.int64(1) << 40  # more than any load: rows come before
    device_load = np.zeros(num_devices, dtype=np.int64)
    device_of = np.arange(len(slot_load)) // slots_per_device
    top_k = experts.shape[1]
    for t in range(len(positions)):
        here = origin[t]
        for k in range(chosen.shape[1]):
            expert = np.int64(experts[positions[t], k]) if k < top_k else shared_expert
            best = np.int64(1) << 62
            slot = replica_slot[replica_start[expert]]
            for x in range(replica_start[expert], replica_start[expert + 1]):
                device = device_of[replica_slot[x]]
                key = device_load[device]
                if local_first:
                    if device == here:
                        key = np.int64(-1)
                    elif row_of[device] != row_of[here]:
                        key += elsewhere
                if key < best:
                    best = key
                    slot = replica_slot[x]
            device = device_of[slot]
            slot_load[slot] += 1
            device_load[device] += 1
            chosen[t, k] = device


@kernel
def count_copies(
    chosen: NDArray[np.int32],
    origin: NDArray[np.int32],
    mode: int,
    node_size: int,
    copies: NDArray[np.float32],
) -> None:
    """Add to copies [N, N] what tokens that start on ``origin`` [T] send to chosen [T, picks]."""
    devices = copies.shape[0]
    sent = np.full(devices, -1, dtype=np.int64)
    if mode == COPIES_NODE_RELAY:
        sent_node = np.full(devices // node_size, -1, dtype=np.int64)
        for t in range(len(origin)):
            here = origin[t]
            sent[here] = t
            for k in range(chosen.shape[1]):
                device = chosen[t, k]
                if sent[device] == t:
                    continue
                sent[device] = t
                node = device // node_size
                if node == here // node_size:
                    copies[here, device] += 1
                    continue
                relay = node * node_size + here % node_size
                if sent_node[node] != t:
                    sent_node[node] = t
                    copies[here, relay] += 1
                if relay != device:
                    copies[relay, device] += 1
        return
    one, nothing = np.float32(1), np.float32(0)
    for t in range(len(origin)):
        here = np.uint32(origin[t])
        row = copies[here]
        sent[here] = t
        for k in range(chosen.shape[1]):
            device = np.uint32(chosen[t, k])
            if mode == COPIES_DEVICE:
                row[device] += one if sent[device] != t else nothing
                sent[device] = t
            else:
                row[device] += one if device != here else nothing


@kernel
def dispatch_layers(
    experts: NDArray[np.int16],
    positions: NDArray[np.int64],
    origin: NDArray[np.int32],
    shared_expert: int,
    replica_start: NDArray[np.int64],
    replica_slot: NDArray[np.int32],
    replica_share: NDArray[np.float64],
    slots_per_device: int,
    choice: int,
    row_of: NDArray[np.int64],
    mode: int,
    node_size: int,
    seed: NDArray[np.uint64],
    copies: NDArray[np.float32],
    slot_load: NDArray[np.int64],
) -> None:
    """Dispatch a batch through layers: experts [M, P, K], tables [M, ...], copies [M, N, N].

    positions, origin [T]; ``shared_expert`` is appended to each token where >= 0; the replicas of
    expert e in layer m are replica_slot[m, replica_start[m, e]:replica_start[m, e+1]].
    """
    picks = experts.shape[2] + (1 if shared_expert >= 0 else 0)
    chosen = np.empty((len(positions), picks), dtype=np.int32)
    for m in range(experts.shape[0]):
        if choice == BY_SHARE:
            deal_by_share(
                experts[m],
                positions,
                shared_expert,
                replica_start[m],
                replica_slot[m],
                replica_share[m],
                slots_per_device,
                seed[m],
                chosen,
                slot_load[m],
            )
        else:
            deal_by_load(
                experts[m],
                positions,
                origin,
                shared_expert,
                replica_start[m],
                replica_slot[m],
                slots_per_device,
                copies.shape[1],
                row_of,
                choice == LOCAL_FIRST,
                chosen,
                slot_load[m],
            )
        count_copies(chosen, origin, mode, node_size, copies[m])
