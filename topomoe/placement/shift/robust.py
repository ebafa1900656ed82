"""Placements from several loads that should also serve loads not seen.

Slots come first: the greedy of ``eplb`` on one load that stands for all, then local search
(`robust_kernel`) on the loads of every device in every domain. Then shares: even, or those of a
linear programme (`share_program`). Objectives:

- ``mean``, ``max``: the mean load, or each expert's largest, as if it were the only one.
- ``mixes``: the worst load of a device in any mix of the domains. Device loads are linear in the
  mix, so the worst mix is a domain. ``topomoe.placement.shift.mixes`` certifies the result.
- ``regret``: the worst excess over what ``exact`` reaches for that domain alone.
- ``cvar``: the mean of the worst ``tail`` of the domains' largest device loads.
- ``deviation``: replicas in proportion to mean + ``deviations`` * standard deviation (the replica
  budget), slots and shares as in ``mixes``.
- ``shift``: even shares, and slots for loads changed in two ways: stretched away from their mean
  (what is new may lie outside all that was seen) and pulled towards equal loads (experts not yet
  hot may become so). How much of each is decided by leaving out one given load after the other.
- ``batch``: the same for slots whose shares are found anew for every batch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from topomoe.placement import eplb, exact
from topomoe.placement.placement import Placement
from topomoe.placement.problem import PlacementProblem, Slots, even_shares
from topomoe.placement.shift.robust_kernel import change_replicas, spread, swap_slots
from topomoe.placement.shift.share_program import best_shares

Floats = NDArray[np.float64]

# (stretch, pull): loads become mean + (1 + stretch)(load - mean), then (1 - pull) load + pull.
PLANS = (
    (0.0, 0.0),
    (0.5, 0.0),
    (1.0, 0.0),
    (-1.0, 0.0),
    (0.0, 0.2),
    (0.5, 0.2),
    (0.0, 0.5),
    (0.0, 0.8),
    (-1.0, 0.5),
    (-1.0, 0.8),
)
_TRIAL_LAYERS = 4  # that a plan is tried on
_LEAST_LOAD = 0.02  # of its mean, that stretching leaves an expert
_ROUNDS = 4  # of replica changes and exchanges
_SWEEPS = 6  # of exchanges in a round
_LEVELLING = 20  # sweeps of ``spread`` between exchanges
_LEVELLED = 60  # and to score a trial


def assign(problem: PlacementProblem) -> Slots:
    """Return slots and shares for ``problem.options.objective`` over ``problem.domain_load``."""
    loads, options = problem.domain_load, problem.options
    objective = options.objective
    if objective in ("shift", "batch"):
        stretch, pull = choose_plan(problem, objective)
        planned = changed(loads, stretch, pull)
        slot_expert = _search(problem, planned, planned.max(axis=0), objective)
        return slot_expert, even_shares(slot_expert, problem.num_experts)
    if objective in ("mean", "max"):
        loads = np.asarray(getattr(loads, objective)(axis=0, keepdims=True))
    weight, offset, start = 1.0, None, loads.max(axis=0)
    if objective == "cvar":
        weight = 1.0 / (options.tail * len(loads))
    elif objective == "regret":
        offset = np.stack([_alone(problem, load) for load in loads])
    elif objective == "deviation":
        start = loads.mean(axis=0) + options.deviations * loads.std(axis=0)
    slot_expert = _search(problem, loads, start, objective)
    shares = best_shares(slot_expert, loads, problem.num_devices, weight, offset)
    return slot_expert, shares.slot_share


def changed(loads: Floats, stretch: float, pull: float) -> Floats:
    """Return loads [D, M, E] stretched away from their mean and pulled to 1, layer means 1.

    Stretched by -1 they are their mean, and [1, M, E].
    """
    mean = loads.mean(axis=0)
    planned = np.maximum(mean + (1 + stretch) * (loads - mean), _LEAST_LOAD * mean)
    planned /= planned.mean(axis=2, keepdims=True)
    if stretch == -1:
        planned = planned[:1]
    return np.asarray((1 - pull) * planned + pull)


def choose_plan(problem: PlacementProblem, objective: str) -> tuple[float, float]:
    """Return the plan that serves each given load best when it is planned from the others.

    Best by the mean over loads of max/mean load, plus that of the worst load, on a few layers.
    With fewer than three loads there is nothing to choose by: the loads stay as they are.
    """
    loads = problem.domain_load
    if len(loads) < 3:
        return PLANS[0]
    layers = np.unique(np.linspace(0, problem.num_layers - 1, _TRIAL_LAYERS).astype(int))
    loads = loads[:, layers]
    scores = []
    for plan in PLANS:
        ratio = np.empty(len(loads))
        for left_out in range(len(loads)):
            planned = changed(np.delete(loads, left_out, axis=0), *plan)
            slots = _search(problem, planned, planned.max(axis=0), objective)
            ratio[left_out] = _served(problem, slots, loads[left_out], objective)
        scores.append(ratio.mean() + ratio.max())
    return PLANS[int(np.argmin(scores))]


def _search(
    problem: PlacementProblem, loads: Floats, start: Floats, objective: str
) -> NDArray[np.int32]:
    """Return slots [M, S] for loads [D, M, E], from the greedy on ``start`` [M, E]."""
    devices, experts = problem.num_devices, problem.num_experts
    slot_expert = eplb.assign(replace(problem, load=np.ascontiguousarray(start)))[0]
    if problem.slots_per_device == 1 and objective != "deviation":
        return slot_expert  # the greedy is best, and exchanges change nothing
    for m, row in enumerate(slot_expert):
        load = np.ascontiguousarray(loads[:, m].T) * (devices / experts)
        if objective == "batch":
            part = _even_part(row, load)
            for _ in range(_ROUNDS):
                spread(row, load, part, devices, _LEVELLING)
                if not swap_slots(row, part, devices, experts, _SWEEPS):
                    break
            continue
        for _ in range(_ROUNDS):
            steps = 0 if objective == "deviation" else change_replicas(row, load, devices)
            steps += swap_slots(row, _even_part(row, load), devices, experts, _SWEEPS)
            if not steps:
                break
    return slot_expert


def _served(
    problem: PlacementProblem, slot_expert: NDArray[np.int32], load: Floats, objective: str
) -> float:
    """Return the mean over layers of max/mean device load under ``load`` [M, E]."""
    devices, ratio = problem.num_devices, []
    for row, rest in zip(slot_expert, load, strict=True):
        column = rest[:, None] * (devices / rest.sum())
        part = _even_part(row, column)
        if objective == "batch":
            spread(row, column, part, devices, _LEVELLED)
        ratio.append(part.reshape(devices, -1).sum(axis=1).max())
    return float(np.mean(ratio))


def _even_part(row: NDArray[np.int32], load: Floats) -> Floats:
    """Return what each slot [S] carries of loads [E, D] at even shares, [S, D]."""
    part: Floats = (load / np.maximum(np.bincount(row, minlength=len(load)), 1)[:, None])[row]
    return part


def _alone(problem: PlacementProblem, load: Floats) -> Floats:
    """Return the largest device load [M] that ``exact`` reaches for this load [M, E] alone."""
    slot_expert, slot_share = exact.assign(replace(problem, load=load))
    placement = Placement(slot_expert, slot_share, problem.num_devices, problem.num_experts)
    return np.asarray(placement.device_load(load).max(axis=1))
