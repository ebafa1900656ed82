"""Pieces merged where that makes no batch slower: fewer replicas that read weights for nothing."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.timing.piece_cost import piece_cost, plain_cost
from topomoe.topologies.kernel import kernel

_CAUTION = 5.0  # times the deviations: sampled batches are not all batches


@kernel
def merge_pieces(
    tokens: NDArray[np.float64],  # [E], expected
    spread: NDArray[np.float64],  # [E], variance over mean of each expert's tokens
    counts: NDArray[np.float64],  # [B, E], tokens of sampled batches
    knee: float,
    z: float,
    devices: int,
    expert: NDArray[np.int32],  # [S], -1 where a slot has no piece; changed
    share: NDArray[np.float64],  # [S]; changed
) -> None:
    """Merge each piece, from the smallest, into another of its expert if no maximum rises.

    The maxima over devices: of the cost of the expected tokens, of the mean and z deviations over
    batches, and of the sampled batches. Others may be worse than the sampled, so that a merged
    device must stay below the second with five times the deviations, and in all batches below the
    least of the third.
    """
    per_device = len(expert) // devices
    batches = len(counts)
    cost = np.zeros((devices, batches))
    plain, mean, variance = np.zeros(devices), np.zeros(devices), np.zeros(devices)
    held = np.zeros(len(tokens), dtype=np.int64)
    amount = np.zeros(len(expert))
    for slot in range(len(expert)):
        e = expert[slot]
        if e < 0:
            continue
        held[e] += 1
        d = slot // per_device
        amount[slot] = tokens[e] * share[slot]
        m, v = piece_cost(amount[slot], share[slot], spread[e], knee)
        mean[d] += m
        variance[d] += v
        plain[d] += plain_cost(amount[slot], knee)
        for b in range(batches):
            cost[d, b] += plain_cost(counts[b, e] * share[slot], knee)
    worst_plain = plain.max()
    worst_score = (mean + z * np.sqrt(variance)).max()
    worst = np.zeros(batches)
    for d in range(devices):
        worst = np.maximum(worst, cost[d])
    always = worst.min()
    trial, chosen = np.empty(batches), np.empty(batches)
    for slot in np.argsort(amount, kind="mergesort"):
        e = expert[slot]
        if e < 0 or held[e] < 2:
            continue
        best, lowest, best_mean, best_variance = -1, worst_score, 0.0, 0.0
        for other in range(len(expert)):
            if expert[other] != e or other == slot:
                continue
            d = other // per_device
            both = share[slot] + share[other]
            now = plain_cost(tokens[e] * share[other], knee)
            if plain[d] - now + plain_cost(tokens[e] * both, knee) > worst_plain:
                continue
            om, ov = piece_cost(tokens[e] * share[other], share[other], spread[e], knee)
            m, v = piece_cost(tokens[e] * both, both, spread[e], knee)
            m, v = mean[d] - om + m, max(variance[d] - ov + v, 0.0)
            score = m + _CAUTION * z * sqrt(v)
            if score > lowest:
                continue
            fits = True
            for b in range(batches):
                trial[b] = cost[d, b] - plain_cost(counts[b, e] * share[other], knee)
                trial[b] += plain_cost(counts[b, e] * both, knee)
                fits = fits and trial[b] <= always
            if fits:
                best, lowest, best_mean, best_variance = other, score, m, v
                chosen[:] = trial
        if best < 0:
            continue
        d, d2 = slot // per_device, best // per_device
        both = share[slot] + share[best]
        m, v = piece_cost(amount[slot], share[slot], spread[e], knee)
        mean[d] -= m
        variance[d] = max(variance[d] - v, 0.0)
        plain[d] -= plain_cost(amount[slot], knee)
        plain[d2] += plain_cost(tokens[e] * both, knee) - plain_cost(amount[best], knee)
        mean[d2], variance[d2] = best_mean, best_variance
        for b in range(batches):
            cost[d, b] -= plain_cost(counts[b, e] * share[slot], knee)
        cost[d2] = chosen
        amount[best] += amount[slot]
        expert[slot], share[slot], share[best] = -1, 0.0, both
        held[e] -= 1
