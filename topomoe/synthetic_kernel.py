"""The router of a synthetic trace: Gumbel top-k over fixed-point scores, one layer at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

SCORE_BITS = 16  # a score is an int32 in units of 2**-16: integer sums are the same everywhere
FACTOR_BITS = 8  # latent coordinates, and their weights, are in units of 2**-8
NOISE_BITS = 13  # the Gumbel quantile table has 2**13 entries: 32 KiB stay in the first cache


def gumbel_table() -> NDArray[np.int32]:
    """Return the standard Gumbel quantiles at the midpoints of 2**13 equal cells, fixed point."""
    midpoints = (np.arange(1 << NOISE_BITS) + 0.5) / (1 << NOISE_BITS)
    gumbel = -np.log(-np.log(midpoints))
    return np.asarray(np.rint(gumbel * (1 << SCORE_BITS)), dtype=np.int32)


@kernel
def remember(sequence: NDArray[np.float64], start: NDArray[np.int64], keep: float) -> None:
    """Turn white noise [P, r] into AR(1) sequences of the same variance, in place.

    Each of the requests ``start`` [Q+1] delimits has its own; ``keep`` is the correlation of
    successive tokens.
    """
    fresh = np.sqrt(1 - keep * keep)
    for q in range(len(start) - 1):
        for t in range(start[q] + 1, start[q + 1]):
            for j in range(sequence.shape[1]):
                sequence[t, j] = keep * sequence[t - 1, j] + fresh * sequence[t, j]


@kernel
def limit_groups(score: NDArray[np.int32], groups: int, kept: int) -> None:
    """Set the scores [E] of all but the ``kept`` best groups of successive experts to the lowest.

    A group's score is the sum of its two best (DeepSeek-V3 technical report, 2024, section 2.1.2:
    the highest K_r/M affinities of a node, 2 there).
    """
    lowest = np.int32(-(2**31))
    size = len(score) // groups
    total = np.empty(groups, dtype=np.int64)
    for g in range(groups):
        first = second = lowest
        for e in range(g * size, (g + 1) * size):
            if score[e] > first:
                first, second = score[e], first
            elif score[e] > second:
                second = score[e]
        total[g] = np.int64(first) + (np.int64(second) if size > 1 else 0)
    for _ in range(groups - kept):
        worst = 0
        for g in range(1, groups):
            if total[g] <= total[worst]:
                worst = g
        total[worst] = np.int64(1) << 62
        score[worst * size : (worst + 1) * size] = lowest


@kernel
def route_tokens(
    request_score: NDArray[np.int32],
    request: NDArray[np.int32],
    latent: NDArray[np.int32],
    factor: NDArray[np.int32],
    noise: NDArray[np.int32],
    key: int,
    groups: tuple[int, int],
    chosen: NDArray[np.int16],
) -> None:
    """Write each token's top-k experts to ``chosen`` int16 [T, K], best first.

    The score of expert e for token t is ``request_score[request[t], e]`` plus the dot product of
    ``latent[t]`` [r] and ``factor[:, e]`` plus Gumbel noise: without the dot product this samples
    K experts without replacement in proportion to exp(score) (Kool et al. 2019, "Stochastic beams
    and where to find them", section 2.3). The noise is a hash of (key, t, e), so that no array of
    it exists and any token can be routed alone. Ties go to the lower id. ``groups`` is the number
    of groups of experts and of those that a token may use.
    """
    num_tokens, rank = latent.shape
    num_experts, top_k = request_score.shape[1], chosen.shape[1]
    score = np.empty(num_experts, dtype=np.int32)
    best = np.empty(top_k, dtype=np.int32)
    shift = np.uint32(32 - NOISE_BITS)
    for t in range(num_tokens):
        # splitmix64 (Steele et al. 2014) of the token's counter seeds a 32-bit hash per expert
        state = np.uint64(key) + np.uint64(t + 1) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        seed = np.uint32((state ^ (state >> np.uint64(31))) & np.uint64(0xFFFFFFFF))
        base = request_score[request[t]]
        for e in range(num_experts):
            # murmur3's 32-bit finaliser over a Weyl sequence
            bits = np.uint32(seed + np.uint32(e) * np.uint32(0x9E3779B9))
            bits = np.uint32((bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B))
            bits = np.uint32((bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35))
            bits = np.uint32(bits ^ (bits >> np.uint32(16)))
            score[e] = base[e] + noise[bits >> shift]
        for j in range(rank):
            weight = latent[t, j]
            for e in range(num_experts):
                score[e] += weight * factor[j, e]
        if groups[1] < groups[0]:
            limit_groups(score, groups[0], groups[1])
        filled = 0
        for e in range(num_experts):
            value = score[e]
            if filled == top_k:
                if value <= best[top_k - 1]:
                    continue
                place = top_k - 1
            else:
                place = filled
                filled += 1
            while place > 0 and best[place - 1] < value:
                best[place] = best[place - 1]
                chosen[t, place] = chosen[t, place - 1]
                place -= 1
            best[place] = value
            chosen[t, place] = e
