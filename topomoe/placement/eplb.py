"""The published greedy of DeepSeek's expert-parallelism load balancer, global policy.

Source: DeepSeek EPLB (github.com/deepseek-ai/EPLB, 2025), the steps "replicate" and "pack" without
the hierarchy of expert groups, written anew from that description.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.problem import PlacementProblem, Slots, even_shares
from topomoe.topologies.kernel import kernel


def assign(problem: PlacementProblem) -> Slots:
    """Replicate the hottest experts, then pack replicas from the heaviest down; even shares.

    Replicate: each of the S - E surplus slots goes to the expert with the largest load per
    replica, the lowest id among equals. Pack: replicas in descending order of that load (experts
    0..E-1 first among equals, then surplus replicas in the order made), each onto the least loaded
    device with a free slot, the lowest among equals. With one slot a device, replica i is on
    device i.

    It departs from the published code where that would put an expert on one device twice: an
    expert gets at most N replicas; a replica passes over the devices that hold its expert; and
    where no other device has a free slot, it takes the slot of another replica, which moves to the
    free one, the pair chosen for the smaller maximum of the two devices' loads. Loads are float64
    here and float32 there, and the order of equal loads is left open there.
    """
    shape = (problem.num_layers, problem.num_slots)
    replica_expert = np.empty(shape, dtype=np.int32)
    replica_load = np.empty(shape)
    replicate(problem.load, problem.num_devices, replica_expert, replica_load)
    slot_expert = replica_expert
    if problem.slots_per_device > 1:
        order = np.argsort(-replica_load, axis=1, kind="stable")
        slot_expert = np.empty(shape, dtype=np.int32)
        _pack(order, replica_expert, replica_load, problem.num_devices, slot_expert)
    return slot_expert, even_shares(slot_expert, problem.num_experts)


@kernel
def replicate(
    load: NDArray[np.float64],  # [M, E]
    most: int,  # replicas that one expert may have
    replica_expert: NDArray[np.int32],  # [M, S], written
    replica_load: NDArray[np.float64],  # [M, S], written
) -> None:
    """Give each surplus slot to the expert with the largest load per replica."""
    layers, slots = replica_expert.shape
    experts = load.shape[1]
    count = np.empty(experts, dtype=np.int64)
    each = np.empty(experts)
    for layer in range(layers):
        count[:] = 1
        each[:] = load[layer]
        for expert in range(experts):
            replica_expert[layer, expert] = expert
        for replica in range(experts, slots):
            hottest, highest = 0, -np.inf
            for expert in range(experts):
                if each[expert] > highest:
                    hottest, highest = expert, each[expert]
            replica_expert[layer, replica] = hottest
            count[hottest] += 1
            full = count[hottest] == most
            each[hottest] = -np.inf if full else load[layer, hottest] / count[hottest]
        for replica in range(slots):
            expert = replica_expert[layer, replica]
            replica_load[layer, replica] = load[layer, expert] / count[expert]


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
    experts = replica_expert.max() + 1
    total = np.empty(devices)
    used = np.empty(devices, dtype=np.int64)
    slot_load = np.empty(slots)
    held = np.empty((devices, experts), dtype=np.bool_)
    for layer in range(layers):
        row = slot_expert[layer]
        total[:] = 0.0
        used[:] = 0
        held[:] = False
        for replica in order[layer]:
            expert, load = replica_expert[layer, replica], replica_load[layer, replica]
            device = -1
            for candidate in range(devices):
                if used[candidate] < per_device and (
                    device < 0 or total[candidate] < total[device]
                ):
                    if held[candidate, expert]:
                        continue
                    device = candidate
            slot = device * per_device + (used[device] if device >= 0 else 0)
            if device < 0:
                # Every free slot is on a device that holds this expert. A full device that lacks
                # it holds something that the device with the free slot lacks, as that holds fewer.
                free = -1
                for candidate in range(devices):
                    if used[candidate] < per_device and (
                        free < 0 or total[candidate] < total[free]
                    ):
                        free = candidate
                lowest = np.inf
                for other in range(slots):
                    there = other // per_device
                    if used[there] < per_device or held[there, expert]:
                        continue
                    if held[free, row[other]]:
                        continue
                    moved = slot_load[other]
                    higher = max(total[free] + moved, total[there] - moved + load)
                    if higher < lowest:
                        lowest, slot = higher, other
                device = slot // per_device
                target = free * per_device + used[free]
                row[target], slot_load[target] = row[slot], slot_load[slot]
                held[free, row[slot]], held[device, row[slot]] = True, False
                total[free] += slot_load[slot]
                total[device] -= slot_load[slot]
                used[free] += 1
            else:
                used[device] += 1
            row[slot], slot_load[slot] = expert, load
            held[device, expert] = True
            total[device] += load
