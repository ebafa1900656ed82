"""Compiled stages of dispatch: tokens' picks, how many tokens a replica gets, and the copies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.dispatching.capacity import DROPPED
from topomoe.dispatching.local_quota import local_quota
from topomoe.dispatching.replica_dealing import apportion
from topomoe.dispatching.replica_flow import minimise_largest
from topomoe.topologies.kernel import kernel

COPIES_DEVICE = 0  # one copy per token and destination device
COPIES_NODE_RELAY = 2  # one copy per token and destination node, forwarded inside

IntArray = NDArray[np.int64]


@kernel
def gather(
    experts: NDArray[np.int16],
    positions: IntArray,
    shared_expert: int,
    picks: NDArray[np.uint16],
    count: IntArray,
) -> None:
    """Fill picks [T, P] with the tokens' experts, the shared one last, and count [E] them.

    What is no expert is a pick that is dropped.
    """
    top_k = experts.shape[1]
    count[:] = 0
    for t in range(len(positions)):
        row = experts[positions[t]]
        for k in range(top_k):
            expert = np.uint16(row[k])  # -1 becomes DROPPED
            picks[t, k] = expert
            if expert != DROPPED:
                count[expert] += 1
        if shared_expert >= 0:
            picks[t, top_k] = shared_expert
    if shared_expert >= 0:
        count[shared_expert] = len(positions)


@kernel
def least_largest(
    count: IntArray,
    start: IntArray,
    device: IntArray,
    share: NDArray[np.float64],
    seed: np.uint64,
    num_devices: int,
    quota: IntArray,
) -> int:
    """Fill quota [X] for the least largest device load, from the shares on; return that load."""
    apportion(count, start, share, seed, quota)
    proof = np.empty(num_devices, dtype=np.bool_)
    return minimise_largest(quota, start, device, num_devices, proof)


@kernel
def spill_cap(largest: int, spill: float) -> int:
    """Return the load that a device may have above the least largest one; -1: any."""
    return -1 if np.isinf(spill) else int(np.floor((1.0 + spill) * largest + 1e-9))


@kernel
def near_quota(
    picks: NDArray[np.uint16],
    origin: NDArray[np.int32],
    start: IntArray,
    device: IntArray,
    row_of: IntArray,
    cap: int,
    quota: IntArray,
) -> None:
    """Fill quota [X] with what ``local_quota`` makes of these tokens' origins."""
    num_experts, num_devices = len(start) - 1, len(row_of)
    at = np.zeros((num_experts, num_devices), dtype=np.int64)
    for t in range(len(picks)):
        here = origin[t]
        for k in range(picks.shape[1]):
            if picks[t, k] < num_experts:
                at[picks[t, k], here] += 1
    row_count = np.zeros((num_experts, row_of.max() + 1), dtype=np.int64)
    own = np.zeros(len(quota), dtype=np.int64)
    for e in range(num_experts):
        for d in range(num_devices):
            row_count[e, row_of[d]] += at[e, d]
        for x in range(start[e], start[e + 1]):
            own[x] = at[e, device[x]]
            at[e, device[x]] = 0  # a second replica on the device has none left
    local_quota(row_count, own, start, device, row_of, cap, quota)


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
