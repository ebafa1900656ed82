"""The interior point method of ``share_program`` on one layer: the iteration and its proof."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.shift.share_algebra import apply, assemble, factor, substitute, transposed
from topomoe.topologies.kernel import kernel

Floats = NDArray[np.float64]
_ITERATIONS = 60


@kernel
def solve(
    slot_expert: NDArray[np.int32],  # [S]
    load: Floats,  # [E, D], device mean about 1
    offset: Floats,  # [D]
    devices: int,
    weight: float,
    rtol: float,
    slot_share: Floats,  # [S], written
    weights: Floats,  # [D], written
) -> tuple[float, float]:
    """Solve one layer; returns (value, bound).

    Rows: devices x domains, then shares >= 0 of free slots, then of base slots (the first of each
    expert, which takes what the others leave), then above >= 0.
    """
    slots, (experts, domains) = slot_expert.size, load.shape
    per_device = slots // devices
    base = np.full(experts, -1, dtype=np.int64)
    count = np.zeros(experts, dtype=np.int64)
    free = np.empty(slots, dtype=np.int64)
    number = 0
    for s in range(slots):
        expert = slot_expert[s]
        count[expert] += 1
        if base[expert] < 0:
            base[expert] = s
        else:
            free[number] = s
            number += 1
    # Free variables that touch each device, with +1 for a slot there and -1 for its base there.
    touch_count = np.zeros(devices + 1, dtype=np.int64)
    for v in range(number):
        touch_count[free[v] // per_device + 1] += 1
        touch_count[base[slot_expert[free[v]]] // per_device + 1] += 1
    start = np.cumsum(touch_count)
    touch = np.empty(2 * number, dtype=np.int64)
    sign = np.empty(2 * number)
    fill = start[:-1].copy()
    for v in range(number):
        n = free[v] // per_device
        touch[fill[n]], sign[fill[n]] = v, 1.0
        fill[n] += 1
        n = base[slot_expert[free[v]]] // per_device
        touch[fill[n]], sign[fill[n]] = v, -1.0
        fill[n] += 1

    share = np.empty(slots)
    for s in range(slots):
        share[s] = 1.0 / count[slot_expert[s]]
    loads = _loads(slot_expert, load, share, devices)
    rows = devices * domains
    size = number + 1 + domains
    total_rows = rows + number + experts + domains
    x = np.empty(size)
    for v in range(number):
        x[v] = share[free[v]]
    x[number + 1 :] = 0.1
    x[number] = 0.1
    for d in range(domains):
        x[number] = max(x[number], (loads[:, d] - offset[d]).max() + 0.1)
    slack = np.empty(total_rows)
    dual = np.empty(total_rows)
    for n in range(devices):
        for d in range(domains):
            gap = x[number] + x[number + 1 + d] + offset[d] - loads[n, d]
            slack[n * domains + d] = gap
    for v in range(number):
        slack[rows + v] = x[v]
    for expert in range(experts):
        slack[rows + number + expert] = share[base[expert]]
    for d in range(domains):
        slack[rows + number + experts + d] = x[number + 1 + d]
    dual[:] = 1.0 / rows / slack
    cost = np.zeros(size)
    cost[number] = 1.0
    cost[number + 1 :] = weight

    best_value, best_bound = np.inf, -np.inf
    hessian = np.empty((size, size))
    theta = np.empty(total_rows)
    right = np.empty(size)
    change_slack, change_dual = np.empty(total_rows), np.empty(total_rows)
    target = np.empty(total_rows)
    y = np.empty((devices, domains))
    per_domain = np.empty(domains)
    for _ in range(_ITERATIONS):
        # The value of these shares, and the bound that these duals prove.
        for expert in range(experts):
            share[base[expert]] = 1.0
        for v in range(number):
            share[free[v]] = max(x[v], 0.0)
            share[base[slot_expert[free[v]]]] -= share[free[v]]
        for expert in range(experts):
            share[base[expert]] = max(share[base[expert]], 0.0)
        loads = _loads(slot_expert, load, share, devices)
        value = _objective(loads, offset, weight)
        if value < best_value:
            best_value = value
            slot_share[:] = share
        y[:] = dual[:rows].reshape(devices, domains)
        bound = _bound(slot_expert, load, offset, weight, y, per_domain)
        if bound > best_bound:
            best_bound = bound
            weights[:] = per_domain
        if best_value - best_bound <= rtol * abs(best_value):
            break

        mu = (slack * dual).sum() / total_rows
        theta[:] = dual / slack
        assemble(hessian, theta, start, touch, sign, free, slot_expert, load, devices, experts)
        if not factor(hessian):
            break
        residual = cost.copy()
        transposed(residual, dual, start, touch, sign, free, slot_expert, load, devices, experts)
        step = 1.0
        for corrector in range(2):
            if corrector == 0:
                target[:] = slack * dual
            else:
                after = ((slack + step * change_slack) * (dual + step * change_dual)).sum()
                centre = (max(after, 0.0) / total_rows / mu) ** 3
                target[:] = slack * dual + change_slack * change_dual - centre * mu
            right[:] = -residual
            change_dual[:] = target / slack
            transposed(
                right, change_dual, start, touch, sign, free, slot_expert, load, devices, experts
            )
            substitute(hessian, right)
            apply(
                change_slack, right, start, touch, sign, free, slot_expert, load, devices, experts
            )
            change_dual[:] = -(target + dual * change_slack) / slack
            step = 1.0
            for r in range(total_rows):
                if change_slack[r] < 0.0:
                    step = min(step, -slack[r] / change_slack[r])
                if change_dual[r] < 0.0:
                    step = min(step, -dual[r] / change_dual[r])
        step *= 0.99
        if not step > 1e-10:
            break
        x += step * right
        slack += step * change_slack
        dual += step * change_dual
    return best_value, best_bound


@kernel
def _loads(
    slot_expert: NDArray[np.int32], load: Floats, share: Floats, devices: int
) -> NDArray[np.float64]:
    per_device = slot_expert.size // devices
    loads = np.zeros((devices, load.shape[1]))
    for s in range(slot_expert.size):
        loads[s // per_device] += share[s] * load[slot_expert[s]]
    return loads


@kernel
def _objective(loads: Floats, offset: Floats, weight: float) -> float:
    """Return the lowest level + weight * sum of what worst loads exceed it by."""
    domains = offset.size
    worst = np.empty(domains)
    for d in range(domains):
        worst[d] = loads[:, d].max() - offset[d]
    lowest = np.inf
    for level in worst:
        lowest = min(lowest, level + weight * np.maximum(worst - level, 0.0).sum())
    return lowest


@kernel
def _bound(
    slot_expert: NDArray[np.int32],
    load: Floats,
    offset: Floats,
    weight: float,
    y: Floats,  # [N, D] any duals >= 0, written: made to sum to 1
    per_domain: Floats,  # [D], written: their sums over devices
) -> float:
    devices, domains = y.shape
    per_device = slot_expert.size // devices
    y /= y.sum()
    for d in range(domains):
        per_domain[d] = y[:, d].sum()
    if weight < 1.0:
        # What a load has beyond the weight goes to the others, in proportion to their room.
        excess = np.maximum(per_domain - weight, 0.0).sum()
        room = np.maximum(weight - per_domain, 0.0)
        for d in range(domains):
            wanted = min(per_domain[d], weight) + excess * room[d] / max(room.sum(), 1e-300)
            if per_domain[d] > 0.0:
                y[:, d] *= wanted / per_domain[d]
            else:
                y[:, d] = wanted / devices
            per_domain[d] = wanted
    cheapest = np.full(load.shape[0], np.inf)
    for s in range(slot_expert.size):
        expert = slot_expert[s]
        price = (y[s // per_device] * load[expert]).sum()
        cheapest[expert] = min(cheapest[expert], price)
    bound: float = cheapest.sum() - (per_domain * offset).sum()
    return bound
