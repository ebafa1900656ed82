"""From the placement served so far towards a new load, with few expert copies moved.

Shares cost nothing to change, a copy of an expert on a new device its weights. Copies are moved
step by step where they lower the largest device load most (`rebalance_kernel`), shares are found
anew by a linear programme, and the shortest prefix of the steps with the best load is kept: more
moves allowed are never worse.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from topomoe.placement import exact
from topomoe.placement.bounds import lower_bound
from topomoe.placement.placement import Placement
from topomoe.placement.problem import PlacementProblem, Slots
from topomoe.placement.shift.rebalance_kernel import plan_moves
from topomoe.placement.shift.share_program import best_shares
from topomoe.topologies.errors import InputError

_SAME = 1e-5  # loads that differ by less are equally good
_CLOSE = 1e-3  # so near the lower bound, no more copies are moved
_AFRESH = 1e-2  # what a placement made afresh must gain, to be worth moving most copies


def assign(problem: PlacementProblem) -> Slots:
    """Return slots with at most ``options.moves`` copies a layer new to their device, and shares.

    With moves = -1, as many as lower the load; where that stays more than 1 % above what
    ``exact`` makes afresh, the latter, on the devices where it moves least. Without a previous
    placement it is ``exact`` itself. Raises InputError where the previous one has other layers,
    devices, experts or slots.
    """
    previous = problem.previous
    if previous is None:
        return exact.assign(problem)
    ours = (problem.num_layers, problem.num_devices, problem.num_experts, problem.num_slots)
    theirs = (
        previous.num_layers,
        previous.num_devices,
        previous.num_experts,
        previous.num_slots,
    )
    if ours != theirs:
        raise InputError(
            f"previous must have the same (layers, devices, experts, slots), "
            f"got {theirs} and {ours}"
        )
    moves = problem.options.moves
    slot_expert = np.array(previous.slot_expert)
    slot_share = np.empty(slot_expert.shape)
    for m in range(problem.num_layers):
        slot_expert[m], slot_share[m] = _layer(problem, previous.slot_expert[m], m, moves)
    if moves >= 0:
        return slot_expert, slot_share
    fresh = relabelled(
        Placement(*exact.assign(problem), problem.num_devices, problem.num_experts), previous
    )
    moved = Placement(slot_expert, slot_share, problem.num_devices, problem.num_experts)
    better = fresh.device_load(problem.load).max(axis=1) * (1 + _AFRESH) < moved.device_load(
        problem.load
    ).max(axis=1)
    slot_expert[better] = fresh.slot_expert[better]
    slot_share[better] = fresh.slot_share[better]
    return slot_expert, slot_share


def relabelled(placement: Placement, previous: Placement) -> Placement:
    """Return the placement with each layer's devices renamed so that the fewest copies are new.

    An assignment problem between its devices and those of ``previous``: shared experts count.
    Within a device, experts keep the slots they had where these are as many.
    """
    from scipy.optimize import linear_sum_assignment

    layers, devices = placement.num_layers, placement.num_devices
    expert = np.array(placement.slot_expert).reshape(layers, devices, -1)
    share = np.array(placement.slot_share).reshape(layers, devices, -1)
    for m in range(layers):
        has, had = (
            np.zeros((devices, placement.num_experts)),
            np.zeros((devices, placement.num_experts)),
        )
        has[placement.slot_device, placement.slot_expert[m]] = 1
        had[previous.slot_device, previous.slot_expert[m]] = 1
        _, name = linear_sum_assignment(-(had @ has.T))
        expert[m], share[m] = expert[m, name], share[m, name]
    shape = placement.slot_expert.shape
    return replace(placement, slot_expert=expert.reshape(shape), slot_share=share.reshape(shape))


def _layer(
    problem: PlacementProblem, before: NDArray[np.int32], layer: int, moves: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the slots and shares [S] of one layer."""
    devices, slots = problem.num_devices, problem.num_slots
    load = problem.load[layer]
    column = np.ascontiguousarray(load[:, None] * (devices / load.sum()))
    bound = lower_bound(column[:, 0], devices, slots)
    one = column.T[None]  # [D, M, E] of one load and layer

    kept = best_shares(before[None], one, devices)
    best, slot_expert, slot_share = kept.value[0], before, kept.slot_share[0]
    if moves == 0 or best <= bound * (1 + _CLOSE):
        return slot_expert, slot_share
    limit = slots if moves < 0 else min(moves, slots)
    path = np.empty((limit + 1, slots), dtype=np.int32)
    cost = np.empty(limit + 1, dtype=np.int64)
    steps = plan_moves(np.array(before), column, devices, limit, path, cost)
    for step in range(1, steps + 1):
        found = best_shares(path[step][None], one, devices)
        if found.value[0] < best * (1 - _SAME):
            best, slot_expert, slot_share = found.value[0], path[step], found.slot_share[0]
        if best <= bound * (1 + _CLOSE):
            break
    return slot_expert, slot_share
