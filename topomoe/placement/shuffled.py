"""Experts and surplus replicas shuffled over the slots: the floor that a method must beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.problem import PlacementProblem, Slots, even_shares
from topomoe.topologies.kernel import kernel


def assign(problem: PlacementProblem) -> Slots:
    """Return a seeded random placement with even shares; the load plays no part.

    Every expert gets floor(S/E) replicas and a random S mod E of them one more; all are shuffled
    over the slots. Where a device then holds an expert twice, the second one swaps with the first
    slot further on for which that leaves fewer doubles.
    """
    rng = np.random.default_rng(problem.seed)
    experts, slots = problem.num_experts, problem.num_slots
    slot_expert = np.empty((problem.num_layers, slots), dtype=np.int32)
    whole, rest = divmod(slots, experts)
    for layer in range(problem.num_layers):
        surplus = rng.permutation(experts)[:rest]
        pool = np.concatenate([np.tile(np.arange(experts), whole), surplus])
        slot_expert[layer] = rng.permutation(pool)
    _separate(slot_expert, experts, problem.slots_per_device)
    return slot_expert, even_shares(slot_expert, experts)


@kernel
def _separate(slot_expert: NDArray[np.int32], num_experts: int, per_device: int) -> None:
    """Swap slots in place until no device holds an expert twice.

    Needs S/N < E and at most N replicas an expert. A swap that helps always exists: some device
    lacks the doubled expert; if that device holds a double, swap with it, and otherwise its S/N
    experts are distinct, so one of them is not among the fewer than S/N of this device.
    """
    layers, slots = slot_expert.shape
    held = np.zeros((slots // per_device, num_experts), dtype=np.int32)
    for layer in range(layers):
        row = slot_expert[layer]
        held[:] = 0
        for slot in range(slots):
            held[slot // per_device, row[slot]] += 1
        moved = True
        while moved:  # each swap leaves fewer doubles than before, so this ends
            moved = False
            for slot in range(slots):
                here, expert = slot // per_device, row[slot]
                if held[here, expert] < 2:
                    continue
                for step in range(1, slots):
                    other_slot = (slot + step) % slots
                    there, other = other_slot // per_device, row[other_slot]
                    removed = 1 + (held[there, other] > 1)
                    added = (held[here, other] > 0) + (held[there, expert] > 0)
                    if there != here and other != expert and added < removed:
                        row[slot], row[other_slot] = other, expert
                        held[here, expert] -= 1
                        held[there, other] -= 1
                        held[here, other] += 1
                        held[there, expert] += 1
                        moved = True
                        break
