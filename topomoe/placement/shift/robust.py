"""Placements from several loads that should also serve loads not seen.

Slots come first: the greedy of ``eplb`` on one load that stands for all, then annealing
(`robust_anneal`) and local search (`robust_kernel`) on the loads of every device in every domain.
Then shares: even, or those of a linear programme (`share_program`). Objectives:

- ``mean``, ``max``: the mean load, or each expert's largest, as if it were the only one.
- ``mixes``: the worst load of a device in any mix of the domains. Device loads are linear in the
  mix, so the worst mix is a domain. ``topomoe.placement.shift.mixes`` certifies the result.
- ``regret``: the worst excess over what ``exact`` reaches for that domain alone.
- ``cvar``: the mean of the worst ``tail`` of the domains' largest device loads.
- ``deviation``: replicas in proportion to mean + ``deviations`` * standard deviation (the replica
  budget), slots and shares as in ``mixes``.
- ``shift``: for a load not seen. Loads are stretched away from their mean (what is new may lie
  outside all that was seen) and pulled towards equal loads (experts not yet hot may become so),
  devices bear some standard deviations of what their experts vary by (uncertain experts get more
  replicas, and company), shares are even or half those fitted. How much of each (`PLANS`, where
  ``eplb`` on the mean and on the maximum are two) is decided by leaving out one given load after
  the other.
- ``batch``: the same for slots whose shares are found anew for every batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topomoe.placement import eplb, exact
from topomoe.placement.placement import Placement
from topomoe.placement.problem import PlacementProblem, Slots, even_shares
from topomoe.placement.shift.robust_anneal import anneal_slots
from topomoe.placement.shift.robust_kernel import change_replicas, spread, swap_slots
from topomoe.placement.shift.share_program import best_shares

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What slots and shares are made for when the load to serve is not known."""

    start: str = ""  # "mean" or "max": what ``eplb`` makes of that load, unchanged
    stretch: float = 0.0  # loads become mean + (1 + stretch)(load - mean); -1: their mean
    pull: float = 0.0  # then (1 - pull) load + pull
    doubt: float = 0.0  # standard deviations of an expert's own load that devices must bear
    fitted: float = 0.0  # part of the best shares for the loads given; the rest is even


PLANS = (
    Plan("mean"),
    Plan("max"),
    Plan(),
    Plan(fitted=0.5),
    Plan(stretch=0.5),
    Plan(stretch=1.0),
    Plan(doubt=1.0),
    Plan(doubt=3.0),
    Plan(stretch=1.0, doubt=2.0),
    Plan(stretch=-1.0, doubt=1.0),
    Plan(pull=0.1),
    Plan(pull=0.3),
    Plan(pull=0.5),
    Plan(pull=0.8),
    Plan(stretch=-1.0, pull=0.8),
)
_TRIAL_LAYERS = 4  # that a plan is tried on
_LEAST_LOAD = 0.02  # of its mean, that stretching leaves an expert
_DRAWS = 1 << 18  # of annealing, read in a circle
_PROPOSALS = 300  # of annealing, for each slot
_ROUNDS = 4  # of replica changes and exchanges
_SWEEPS = 6  # of exchanges in a round
_LEVELLING = 20  # sweeps of ``spread`` between exchanges
_LEVELLED = 60  # and to score a trial


def assign(problem: PlacementProblem) -> Slots:
    """Return slots and shares for ``problem.options.objective`` over ``problem.domain_load``."""
    loads, options = problem.domain_load, problem.options
    objective = options.objective
    if objective in ("shift", "batch"):
        return planned(problem, choose_plan(problem, objective), objective)
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


def planned(problem: PlacementProblem, plan: Plan, objective: str, rounds: int = _ROUNDS) -> Slots:
    """Return slots [M, S] and shares made by ``plan`` from ``problem.domain_load``.

    ``rounds`` of local search at most follow the annealing.
    """
    given = problem.domain_load
    if plan.start:
        load = np.ascontiguousarray(getattr(given, plan.start)(axis=0))
        return eplb.assign(replace(problem, load=load))
    loads = changed(given, plan.stretch, plan.pull)
    variance = plan.doubt**2 * _variance(given)
    slot_expert = _search(problem, loads, loads.max(axis=0), objective, variance, rounds)
    slot_share = even_shares(slot_expert, problem.num_experts)
    if plan.fitted:
        best = best_shares(slot_expert, given, problem.num_devices, rtol=1e-4).slot_share
        slot_share = (1 - plan.fitted) * slot_share + plan.fitted * best
    return slot_expert, slot_share


def _variance(loads: Floats) -> Floats:
    """Return the variance of each expert's load [M, E], half of it as if all varied alike."""
    mean = loads.mean(axis=0)
    own = loads.var(axis=0, ddof=min(1, len(loads) - 1))
    alike = own.sum(axis=1, keepdims=True) / np.square(mean).sum(axis=1, keepdims=True)
    return np.asarray(0.5 * own + 0.5 * alike * np.square(mean))


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


def choose_plan(problem: PlacementProblem, objective: str) -> Plan:
    """Return the plan that serves each given load best when it is made from the others.

    Best by the mean over loads of max/mean load, plus that of the worst load, on a few layers.
    With fewer than three loads there is nothing to choose by: the loads stay as they are.
    """
    loads = problem.domain_load
    if len(loads) < 3:
        return Plan()
    layers = np.unique(np.linspace(0, problem.num_layers - 1, _TRIAL_LAYERS).astype(int))
    loads = loads[:, layers]
    rounds = 1 if objective == "batch" else 0  # annealed slots tell plans apart
    scores = []
    for plan in PLANS:
        ratio = np.empty(len(loads))
        for left_out in range(len(loads)):
            others = np.delete(loads, left_out, axis=0)
            trial = replace(problem, load=others.sum(axis=0), domain_load=others)
            ratio[left_out] = _served(
                trial, planned(trial, plan, objective, rounds), loads[left_out]
            )
        scores.append(ratio.mean() + ratio.max())
    return PLANS[int(np.argmin(scores))]


def _search(
    problem: PlacementProblem,
    loads: Floats,
    start: Floats,
    objective: str,
    variance: Floats | None = None,
    rounds: int = _ROUNDS,
) -> NDArray[np.int32]:
    """Return slots [M, S] for loads [D, M, E], from the greedy on ``start`` [M, E]."""
    devices, experts = problem.num_devices, problem.num_experts
    slot_expert = eplb.assign(replace(problem, load=np.ascontiguousarray(start)))[0]
    if problem.slots_per_device == 1 and objective != "deviation":
        return slot_expert  # the greedy is best, and exchanges change nothing
    scale = devices / experts
    draws = np.random.default_rng(problem.seed).random(_DRAWS)
    for m, row in enumerate(slot_expert):
        load = np.zeros((experts, len(loads) + 1))
        load[:, :-1] = loads[:, m].T * scale
        if variance is not None:
            load[:, -1] = variance[m] * scale**2
        if objective != "deviation":
            anneal_slots(row, load, devices, _PROPOSALS * problem.num_slots, draws)
        if objective == "batch":
            part = _even_part(row, load)
            for _ in range(rounds):
                free = np.ascontiguousarray(part[:, :-1])
                spread(row, np.ascontiguousarray(load[:, :-1]), free, devices, _LEVELLING)
                part[:, :-1] = free
                if not swap_slots(row, part, devices, experts, _SWEEPS):
                    break
            continue
        for _ in range(rounds):
            steps = 0 if objective == "deviation" else change_replicas(row, load, devices)
            steps += swap_slots(row, _even_part(row, load), devices, experts, _SWEEPS)
            if not steps:
                break
    return slot_expert


def _served(problem: PlacementProblem, slots: Slots, load: Floats) -> float:
    """Return the mean over layers of max/mean device load under ``load`` [M, E]."""
    devices, ratio = problem.num_devices, []
    for row, share, rest in zip(*slots, load, strict=True):
        column = rest[:, None] * (devices / rest.sum())
        part = column[row] * share[:, None]
        if problem.options.objective == "batch":
            spread(row, column, part, devices, _LEVELLED)
        ratio.append(part.reshape(devices, -1).sum(axis=1).max())
    return float(np.mean(ratio))


def _even_part(row: NDArray[np.int32], load: Floats) -> Floats:
    """Return what each slot [S] adds of loads and variance [E, D + 1] at even shares."""
    count = np.maximum(np.bincount(row, minlength=len(load)), 1)[:, None]
    part = load / count
    part[:, -1:] /= count
    return np.asarray(part[row])


def _alone(problem: PlacementProblem, load: Floats) -> Floats:
    """Return the largest device load [M] that ``exact`` reaches for this load [M, E] alone."""
    slot_expert, slot_share = exact.assign(replace(problem, load=load))
    placement = Placement(slot_expert, slot_share, problem.num_devices, problem.num_experts)
    return np.asarray(placement.device_load(load).max(axis=1))
