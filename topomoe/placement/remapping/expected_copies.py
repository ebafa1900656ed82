"""How many token copies devices send to each device's contents, on average: traffic by placement.

Replicas are taken by share: a token with picks e goes to a device with probability
1 - prod over its picks of (1 - the device's share of e).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import replica_tables
from topomoe.placement.placement import Placement
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.kernel import kernel

FloatArray = NDArray[np.float64]


def from_trace(
    trace: RoutingTrace, placement: Placement, category: NDArray[np.int64], categories: int
) -> FloatArray:
    """Return copies [M, X, N] that a token of each category sends to each device, on average.

    ``category`` [P] is that of each position, in 0..X-1, or -1 for positions left out; positions
    count by the trace's weight. The token's own device counts like any other. A placement of E + 1
    experts routes the shared one for all.
    """
    tables = replica_tables(placement, "weighted")
    sent = np.zeros((trace.num_layers, categories, placement.num_devices))
    weight = np.ones(trace.num_positions) if trace.weight is None else trace.weight
    _count(
        trace.experts,
        category,
        weight,
        trace.num_experts if placement.num_experts > trace.num_experts else -1,
        tables.start,
        tables.slot,
        tables.share,
        tables.num_slots // tables.num_devices,
        sent,
    )
    counted = category >= 0
    tokens = np.bincount(category[counted], weight[counted], minlength=categories)
    return np.asarray(sent / np.where(tokens > 0, tokens, 1.0)[:, None])


def from_load(load: FloatArray, top_k: float, placement: Placement) -> FloatArray:
    """Return copies [M, 1, N] that a token sends to each device when picks are independent.

    ``load`` [M, E]: a token picks expert e with probability min(1, K * share of e in the load).
    """
    probability = np.minimum(1.0, top_k * load / load.sum(axis=1, keepdims=True))
    served = np.take_along_axis(probability, placement.slot_expert, axis=1) * placement.slot_share
    spared = (1.0 - served).reshape(len(load), 1, placement.num_devices, -1).prod(axis=3)
    return np.asarray(1.0 - spared)


def from_contents(load: FloatArray, top_k: float, placement: Placement) -> FloatArray:
    """Return copies [M, N, N] that a token sends from contents x to contents y.

    As ``from_load``, but what x holds itself it serves itself, replicas included: only picks that y
    serves and x lacks are sent.
    """
    layers, devices = placement.num_layers, placement.num_devices
    probability = np.minimum(1.0, top_k * load / load.sum(axis=1, keepdims=True))
    served = np.take_along_axis(probability, placement.slot_expert, axis=1) * placement.slot_share
    kept = np.log1p(-np.minimum(served, 1.0 - 1e-15))  # log of the chance to spare a slot
    sent = np.empty((layers, devices, devices))
    for m in range(layers):
        held = np.zeros((devices, placement.num_experts), dtype=np.bool_)
        held[placement.slot_device, placement.slot_expert[m]] = True
        spared = np.where(held[:, placement.slot_expert[m]], 0.0, kept[m])
        sent[m] = -np.expm1(spared.reshape(devices, devices, -1).sum(axis=2))
    return sent


@kernel
def _count(
    experts: NDArray[np.int16],
    category: NDArray[np.int64],
    weight: NDArray[np.float64],
    shared_expert: int,
    start: NDArray[np.int64],
    slot: NDArray[np.int32],
    share: NDArray[np.float64],
    slots_per_device: int,
    sent: NDArray[np.float64],
) -> None:
    """Add to sent [M, X, N] the chance of a copy to each device of every position [P] counted."""
    layers, positions, picks = experts.shape
    spared = np.ones(sent.shape[2])
    touched = np.empty(sent.shape[2], dtype=np.int64)
    for m in range(layers):
        for p in range(positions):
            if category[p] < 0:
                continue
            count = 0
            for k in range(picks + (1 if shared_expert >= 0 else 0)):
                expert = np.int64(experts[m, p, k]) if k < picks else shared_expert
                if expert < 0:
                    continue
                for replica in range(start[m, expert], start[m, expert + 1]):
                    rest = 1.0 - share[m, replica]
                    if rest == 1.0:
                        continue
                    device = slot[m, replica] // slots_per_device
                    if spared[device] == 1.0:
                        touched[count] = device
                        count += 1
                    spared[device] *= rest
            for at in range(count):
                device = touched[at]
                sent[m, category[p], device] += weight[p] * (1.0 - spared[device])
                spared[device] = 1.0
