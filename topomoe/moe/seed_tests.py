"""Tests of differences between routers, with seeds as the unit.

A seed trains a router from scratch: thousands of requests scored on one trained model say how good
that model is, not how good the router. Losses are in nats a token; R routers, S seeds, Q requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.checked import numbers
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
LEVEL = 0.05  # of significance; intervals hold 1 - LEVEL
ROUNDING = 1e-12  # of a loss: smaller differences are none
DRAWS = 2000  # bootstrap samples, and shuffles of the Friedman test


@dataclass(frozen=True)
class Difference:
    """A mean paired difference with its 95 % t interval and two-sided p value over seeds."""

    mean: float
    low: float
    high: float
    p: float


def seed_difference(first: ArrayLike, second: ArrayLike) -> Difference:
    """Return the mean of ``first`` [S] - ``second`` [S], paired by seed, df = S - 1.

    A single seed says nothing: interval and p are NaN. Where all differences are the same, the
    interval is that one value, and p is 1 if it is 0, else 0.
    """
    x, y = numbers(first, "first"), numbers(second, "second")
    if x.shape != y.shape or x.ndim != 1 or not x.size:
        raise InputError(f"paired losses must be [S] both, got shapes {x.shape} and {y.shape}")
    d = x - y
    mean, seeds = float(d.mean()), len(d)
    if seeds == 1:
        return Difference(mean, nan, nan, nan)
    rounding = ROUNDING * float(np.maximum(np.abs(x), np.abs(y)).max())
    if np.ptp(d) <= rounding:
        return Difference(mean, mean, mean, 1.0 if abs(mean) <= rounding else 0.0)
    from scipy.special import stdtr, stdtrit

    error = float(d.std(ddof=1)) / sqrt(seeds)
    reach = float(stdtrit(seeds - 1, 1 - LEVEL / 2)) * error
    p = 2.0 * float(stdtr(seeds - 1, -abs(mean) / error))
    return Difference(mean, mean - reach, mean + reach, p)


def holm(p: ArrayLike) -> FloatArray:
    """Return p values [n] adjusted for n tests at once (Holm 1979); NaN is no test and stays.

    The i-th smallest, i = 0, 1, ..., is multiplied by n - i, is no smaller than those before it and
    no larger than 1.
    """
    values = numbers(p, "p")
    adjusted = np.full(values.shape, nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    scaled = values[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def hierarchical_interval(
    difference: FloatArray, weight: FloatArray, draws: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of differences [S, Q], ``weight`` [S, Q].

    Seeds are drawn with replacement, then requests within each seed drawn; a seed's mean is over
    its tokens (weights), and seeds count alike. Of three seeds a bootstrap knows ten samples, one
    in nine of them a single seed thrice, and spreads them too little: it stands beside the t
    interval and does not replace it.
    """
    seeds, requests = difference.shape
    s = rng.integers(seeds, size=(draws, seeds, 1))
    q = rng.integers(requests, size=(draws, seeds, requests))
    w = weight[s, q]
    means = ((difference[s, q] * w).sum(axis=2) / w.sum(axis=2)).mean(axis=1)
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def pooled_p(loss: FloatArray) -> FloatArray:
    """Return two-sided p values of every pair of routers, [R, R], from losses [R, S].

    The error is pooled over all routers, that of a two-way table without interaction (routers and
    seeds as blocks), df = (R - 1)(S - 1): it takes all differences between routers to vary alike
    over seeds. Of two routers it is the paired t test. NaN with one seed or one router.
    """
    routers, seeds = loss.shape
    freedom = (routers - 1) * (seeds - 1)
    if not freedom:
        return np.full((routers, routers), nan)
    from scipy.special import stdtr

    mean = loss.mean(axis=1)
    residual = loss - mean[:, None] - loss.mean(axis=0) + loss.mean()
    error = sqrt(2.0 * float((residual**2).sum()) / freedom / seeds)
    gap = np.abs(mean[:, None] - mean)
    rounding = ROUNDING * float(np.abs(loss).max())
    if error <= rounding:  # the same differences in every seed
        return np.where(gap <= rounding, 1.0, 0.0)
    return np.asarray(2.0 * stdtr(freedom, -gap / error))


@dataclass(frozen=True)
class Friedman:
    """Friedman's test that routers rank alike in every seed."""

    statistic: float
    p: float  # of the chi-squared approximation
    p_shuffled: float  # share of shuffles, each seed's ranks by themselves, that reach as far


def friedman(loss: FloatArray, draws: int = DRAWS, seed: int = 0) -> Friedman:
    """Test losses [R, S], seeds as blocks; NaN for fewer than three routers or two seeds.

    The chi-squared law holds for many seeds; with few, trust ``p_shuffled``.
    """
    routers, seeds = loss.shape
    if routers < 3 or seeds < 2:
        return Friedman(nan, nan, nan)
    ranks = ranks_of(loss)
    if (ranks == ranks[0]).all():  # all tied in every seed
        return Friedman(0.0, 1.0, 1.0)
    from scipy.stats import friedmanchisquare

    found = friedmanchisquare(*loss)
    rng = np.random.default_rng(seed)
    shuffled = rng.permuted(np.broadcast_to(ranks, (draws, routers, seeds)), axis=1)
    # Ties are shuffled with the ranks, so that the sum of squares orders samples as the statistic.
    reached = (shuffled.sum(axis=2) ** 2).sum(axis=1) >= (ranks.sum(axis=1) ** 2).sum() - 1e-9
    return Friedman(
        float(found.statistic), float(found.pvalue), float((1 + reached.sum()) / (1 + draws))
    )


def ranks_of(loss: FloatArray) -> FloatArray:
    """Return each router's rank in every seed, [R, S], 1 the best, equals at their mean."""
    below = (loss[None] < loss[:, None]).sum(axis=1)
    equal = (loss[None] == loss[:, None]).sum(axis=1)
    return np.asarray(below + (equal + 1) / 2)
