"""Compiled search over the pieces of experts on devices that lowers the worst device's seconds.

Units as in ``piece_cost``. A device's score is its expected cost and z standard deviations of it.
Columns of ``piece`` [S, 3] and ``total`` [N, 3] are the mean of the cost, its variance, and the
cost of the expected tokens.
"""

from __future__ import annotations

from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.timing.piece_cost import level_share, piece_cost, plain_cost
from topomoe.topologies.kernel import kernel

_HEAT = 0.003  # of the highest score: devices so far below the worst count 1/e of it
_LEAST_GAIN = 1e-3  # of the worst device's weight


@kernel
def _lacks(expert: NDArray[np.int32], first: int, last: int, wanted: int) -> bool:
    slot = first
    while slot < last and expert[slot] != wanted:
        slot += 1
    return slot == last


@kernel
def _refresh(
    d: int,
    tokens: NDArray[np.float64],
    spread: NDArray[np.float64],
    knee: float,
    z: float,
    expert: NDArray[np.int32],
    share: NDArray[np.float64],
    piece: NDArray[np.float64],
    total: NDArray[np.float64],
    score: NDArray[np.float64],
) -> None:
    """Compute the costs of device d and its pieces anew."""
    per_device = len(expert) // len(score)
    total[d] = 0.0
    for slot in range(d * per_device, (d + 1) * per_device):
        piece[slot] = 0.0
        e = expert[slot]
        if e >= 0:
            amount = tokens[e] * share[slot]
            mean, variance = piece_cost(amount, share[slot], spread[e], knee)
            piece[slot, 0], piece[slot, 1] = mean, variance
            piece[slot, 2] = plain_cost(amount, knee)
        for column in range(3):
            total[d, column] += piece[slot, column]
    score[d] = total[d, 0] + z * sqrt(total[d, 1])


@kernel
def worst_score(
    tokens: NDArray[np.float64],
    spread: NDArray[np.float64],
    knee: float,
    z: float,
    devices: int,
    expert: NDArray[np.int32],
    share: NDArray[np.float64],
) -> float:
    """Return the highest score of a device; arguments as those of ``improve``."""
    piece, total, score = np.zeros((len(expert), 3)), np.zeros((devices, 3)), np.zeros(devices)
    for d in range(devices):
        _refresh(d, tokens, spread, knee, z, expert, share, piece, total, score)
    return float(score.max())


@kernel
def _best_swap(
    d: int,
    d2: int,
    a: int,
    z: float,
    heat: float,
    ceiling: float,
    best: float,
    expert: NDArray[np.int32],
    piece: NDArray[np.float64],
    total: NDArray[np.float64],
    score: NDArray[np.float64],
) -> tuple[float, int]:
    """Return the largest gain above ``best`` of swapping slot a of d with one of d2, and which."""
    per_device = len(expert) // len(score)
    first, first2 = d * per_device, d2 * per_device
    top, slot = score[d], -1
    before = 1.0 + exp((score[d2] - top) / heat)
    for b in range(first2, first2 + per_device):
        change = piece[b, 0] - piece[a, 0]
        one, two = total[d, 0] + change, total[d2, 0] - change
        if max(one, two) >= top:
            continue
        change = piece[b, 1] - piece[a, 1]
        one += z * sqrt(max(total[d, 1] + change, 0.0))
        two += z * sqrt(max(total[d2, 1] - change, 0.0))
        if max(one, two) >= top:
            continue
        gain = before - exp((one - top) / heat) - exp((two - top) / heat)
        change = piece[b, 2] - piece[a, 2]
        if gain <= best or max(total[d, 2] + change, total[d2, 2] - change) > ceiling:
            continue
        if expert[b] >= 0 and not _lacks(expert, first, first + per_device, expert[b]):
            continue
        best, slot = gain, b
    return best, slot


@kernel
def _best_share(
    d: int,
    d2: int,
    a: int,
    e: int,
    tokens: float,
    spread: float,
    knee: float,
    z: float,
    heat: float,
    ceiling: float,
    best: float,
    expert: NDArray[np.int32],
    share: NDArray[np.float64],
    piece: NDArray[np.float64],
    total: NDArray[np.float64],
    score: NDArray[np.float64],
) -> tuple[float, float, int, int]:
    """Return the largest gain above ``best`` of sharing a's expert anew between slots a and e.

    With it: the share that a keeps (all to either is a merge), and slots i of d and j of d2 to
    swap before, -1 for none; where e is free, the expert is split and nothing is swapped.
    """
    per_device = len(expert) // len(score)
    first, first2 = d * per_device, d2 * per_device
    last, last2 = first + per_device, first2 + per_device
    top, keep, swap_i, swap_j = score[d], 0.0, -1, -1
    before = 1.0 + exp((score[d2] - top) / heat)
    held = expert[e] >= 0
    both = share[a] + (share[e] if held else 0.0)
    for i in range(first - 1, last if held else first):
        swap = i >= first
        for j in range(first2 if swap else first2 - 1, last2 if swap else first2):
            if i == a or j == e:
                continue
            m, v = total[d, 0] - piece[a, 0], total[d, 1] - piece[a, 1]
            om, ov = total[d2, 0] - piece[e, 0], total[d2, 1] - piece[e, 1]
            plain, other_plain = total[d, 2] - piece[a, 2], total[d2, 2] - piece[e, 2]
            if swap:
                m, om = m + piece[j, 0] - piece[i, 0], om + piece[i, 0] - piece[j, 0]
                v, ov = v + piece[j, 1] - piece[i, 1], ov + piece[i, 1] - piece[j, 1]
                plain += piece[j, 2] - piece[i, 2]
                other_plain += piece[i, 2] - piece[j, 2]
            v, ov = max(v, 0.0), max(ov, 0.0)
            # Two pieces cost at least their tokens: what if the devices were level at that?
            level = 0.5 * (m + om + tokens * both + z * (sqrt(v) + sqrt(ov)))
            if before - 2.0 * exp((level - top) / heat) <= best:
                continue
            if swap:
                if expert[i] >= 0 and not _lacks(expert, first2, last2, expert[i]):
                    continue
                if expert[j] >= 0 and not _lacks(expert, first, last, expert[j]):
                    continue
            middle = level_share(tokens, spread, both, knee, z, m, v, om, ov)
            for trial in range(3 if held else 2):
                part = middle if trial == 0 else (0.0 if trial == 1 else both)
                left = both - part
                pm, pv = piece_cost(tokens * part, part, spread, knee)
                qm, qv = piece_cost(tokens * left, left, spread, knee)
                one, two = m + pm + z * sqrt(v + pv), om + qm + z * sqrt(ov + qv)
                if max(one, two) >= top:
                    continue
                gain = before - exp((one - top) / heat) - exp((two - top) / heat)
                if gain <= best or plain + plain_cost(tokens * part, knee) > ceiling:
                    continue
                if other_plain + plain_cost(tokens * left, knee) > ceiling:
                    continue
                best, keep = gain, part
                swap_i, swap_j = (i, j) if swap else (-1, -1)
    return best, keep, swap_i, swap_j


@kernel
def improve(
    tokens: NDArray[np.float64],  # [E], expected
    spread: NDArray[np.float64],  # [E], variance over mean of each expert's tokens
    knee: float,
    z: float,
    devices: int,
    visits: int,  # at most
    goal: float,  # stop once no device has a higher score
    ceiling: float,  # cost of the expected tokens that no change may exceed
    expert: NDArray[np.int32],  # [S], -1 where a slot has no piece; changed
    share: NDArray[np.float64],  # [S]; changed
) -> None:
    """Lower the sum of exp(score / heat) over devices until no visit of a device helps.

    A visit takes the best of: swapping a piece with another device's or moving it to a free slot,
    splitting it into one, shifting its share to another piece of the expert (all of it: a merge),
    the same after swapping two other pieces of the two devices.
    """
    per_device = len(expert) // devices
    piece, total, score = np.zeros((len(expert), 3)), np.zeros((devices, 3)), np.zeros(devices)
    for d in range(devices):
        _refresh(d, tokens, spread, knee, z, expert, share, piece, total, score)
    heat = max(_HEAT * score.max(), np.sqrt(total[:, 1]).mean() / max(z, 1.0))
    stuck = np.zeros(devices, dtype=np.bool_)
    moved = True
    while visits > 0 and score.max() > goal:
        d = -1
        for other in range(devices):
            if not stuck[other] and (d < 0 or score[other] > score[d]):
                d = other
        if d < 0:
            if not moved:
                break
            stuck[:] = False
            moved = False
            continue
        visits -= 1
        best = _LEAST_GAIN
        # The best change: slots i and j swap, then slot a keeps a part of what it has with slot e.
        best_i, best_j, best_a, best_e, keep = -1, -1, -1, -1, 0.0
        for a in range(d * per_device, (d + 1) * per_device):
            if expert[a] < 0:
                continue
            for d2 in range(devices):
                if score[d2] >= score[d]:
                    continue
                at, free = -1, -1
                for b in range(d2 * per_device, (d2 + 1) * per_device):
                    if expert[b] == expert[a]:
                        at = b
                    elif expert[b] < 0:
                        free = b
                if at < 0:
                    gain, b = _best_swap(
                        d, d2, a, z, heat, ceiling, best, expert, piece, total, score
                    )
                    if b >= 0:
                        best, best_i, best_j, best_a = gain, a, b, -1
                    if total[d2, 0] + 0.9 * knee < total[d, 0]:
                        at = free
                if at >= 0:
                    gain, part, i, j = _best_share(
                        d,
                        d2,
                        a,
                        at,
                        tokens[expert[a]],
                        spread[expert[a]],
                        knee,
                        z,
                        heat,
                        ceiling,
                        best,
                        expert,
                        share,
                        piece,
                        total,
                        score,
                    )
                    if gain > best:
                        best, keep, best_i, best_j, best_a, best_e = gain, part, i, j, a, at
        if best_i < 0 and best_a < 0:
            stuck[d] = True
            continue
        moved = True
        d2 = (best_j if best_a < 0 else best_e) // per_device
        if best_i >= 0:
            expert[best_i], expert[best_j] = expert[best_j], expert[best_i]
            share[best_i], share[best_j] = share[best_j], share[best_i]
        if best_a >= 0:
            both = share[best_a] + (share[best_e] if expert[best_e] >= 0 else 0.0)
            expert[best_e] = expert[best_a]
            share[best_a], share[best_e] = keep, both - keep
            for slot in (best_a, best_e):
                if share[slot] <= 0.0:
                    expert[slot], share[slot] = -1, 0.0
        for changed in (d, d2):
            _refresh(changed, tokens, spread, knee, z, expert, share, piece, total, score)
            stuck[changed] = False
