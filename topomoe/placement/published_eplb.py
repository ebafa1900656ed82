"""The published greedy to the letter: a device may hold an expert twice, as two slots of one copy.

Source: DeepSeek EPLB (github.com/deepseek-ai/EPLB, 2025), global policy, written anew. ``eplb``
keeps the copies of an expert apart, which can cost balance where shares are even: two copies of
three on one device are a share of 2/3 there, which no layout without doubles gives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.eplb import replicate
from topomoe.topologies.kernel import kernel


def published_slots(load: NDArray[np.float64], devices: int, slots: int) -> NDArray[np.int32]:
    """Return the expert of each slot [M, S] for ``load[M, E]``, doubles on a device included."""
    shape = (len(load), slots)
    replica_expert = np.empty(shape, dtype=np.int32)
    replica_load = np.empty(shape)
    replicate(load, slots, replica_expert, replica_load)
    if slots == devices:
        return replica_expert
    order = np.argsort(-replica_load, axis=1, kind="stable")
    slot_expert = np.empty(shape, dtype=np.int32)
    _pack(order, replica_expert, replica_load, devices, slot_expert)
    return slot_expert


@kernel
def _pack(
    order: NDArray[np.int64],  # [M, S], replicas from the heaviest down
    replica_expert: NDArray[np.int32],  # [M, S]
    replica_load: NDArray[np.float64],  # [M, S]
    devices: int,
    slot_expert: NDArray[np.int32],  # [M, S], written
) -> None:
    layers, slots = order.shape
    per_device = slots // devices
    for layer in range(layers):
        total = np.zeros(devices)
        used = np.zeros(devices, dtype=np.int64)
        for replica in order[layer]:
            device = -1
            for candidate in range(devices):
                free = used[candidate] < per_device
                if free and (device < 0 or total[candidate] < total[device]):
                    device = candidate
            slot_expert[layer, device * per_device + used[device]] = replica_expert[layer, replica]
            used[device] += 1
            total[device] += replica_load[layer, replica]
