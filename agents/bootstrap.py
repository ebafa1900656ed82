"""Interquartile means with bootstrap intervals over seeds and episodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def interquartile_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the middle half of ``values`` [..., n] along the last axis.

    As in Agarwal et al. 2021 the lowest and highest floor(n / 4) values are left out.

    >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 100.0])))
    1.5
    """
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    kept: NDArray[np.float64] = ordered[..., cut : ordered.shape[-1] - cut]
    return np.asarray(kept.mean(axis=-1))


def resample(
    seeds: int, episodes: int, draws: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return indices [draws, seeds] and [draws, episodes], each drawn with replacement."""
    return (
        random.integers(seeds, size=(draws, seeds)),
        random.integers(episodes, size=(draws, episodes)),
    )


def interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values [draws]."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
