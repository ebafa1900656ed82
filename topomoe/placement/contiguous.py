"""Experts in their numbering, the layout that frameworks start with."""

from __future__ import annotations

import numpy as np

from topomoe.placement.problem import PlacementProblem, Slots, even_shares


def assign(problem: PlacementProblem) -> Slots:
    """Return slot s holding expert s mod E, with even shares; the load plays no part.

    A device's S/N < E slots are consecutive, so it holds no expert twice.
    """
    row = np.arange(problem.num_slots, dtype=np.int32) % problem.num_experts
    slot_expert = np.tile(row, (problem.num_layers, 1)).astype(np.int32)
    return slot_expert, even_shares(slot_expert, problem.num_experts)
