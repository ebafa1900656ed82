"""Local search for the smallest largest device load with even shares.

An iterated local search (Lourenco, Martin and Stutzle, "Iterated local search", in Handbook of
Metaheuristics, 2003) on the placement that ``eplb`` makes. The descent always relieves the most
loaded device: by the swap of two slots that leaves the lower maximum of the two devices, and where
no swap helps by giving a slot of one expert to another, which changes the load of every device
that holds either. Where that is stuck too, a few random swaps start it anew.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement import eplb
from topomoe.placement.bounds import lower_bound
from topomoe.placement.problem import PlacementProblem, Slots, even_shares
from topomoe.placement.search.local_search_kernel import BLOCK, search_layers

PATIENCE = 100  # kicks without gain after which a layer stops, at least
MORE_PATIENCE = 20_000  # so many more over S: a kick costs less in a small layer


def assign(problem: PlacementProblem) -> Slots:
    """Return even shares whose largest device load no swap or change of replicas lowers.

    A layer stops at ``options.tolerance`` above ``lower_bound``, or after 100 + 20,000/S kicks
    without gain. Never worse than ``eplb``; no layer's result depends on the other layers.
    """
    slot_expert = eplb.assign(problem)[0]
    load, bound = device_units(problem)
    draws = np.random.default_rng(problem.seed).random(BLOCK << 10)
    target = bound * (1 + problem.options.tolerance)
    patience = PATIENCE + MORE_PATIENCE // problem.num_slots
    search_layers(load, target, problem.num_devices, patience, draws, slot_expert)
    return slot_expert, even_shares(slot_expert, problem.num_experts)


def device_units(problem: PlacementProblem) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the loads [M, E] and their lower bounds [M] in units of the mean device load."""
    load = problem.load / problem.load.max(axis=1, keepdims=True)
    load *= problem.num_devices / load.sum(axis=1, keepdims=True)
    devices, slots = problem.num_devices, problem.num_slots
    return load, np.array([lower_bound(row, devices, slots) for row in load])
