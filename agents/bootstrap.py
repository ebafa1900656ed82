"""Interquartile means with bootstrap intervals over seeds and episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Index = tuple[NDArray[np.int64], NDArray[np.int64]]


def interquartile_mean(values: FloatArray) -> FloatArray:
    """Return the mean of the middle half of ``values`` [..., n] along the last axis.

    As in Agarwal et al. 2021 the lowest and highest floor(n / 4) values are left out.

    >>> float(interquartile_mean(np.array([0.0, 1.0, 2.0, 100.0])))
    1.5
    """
    ordered = np.sort(values, axis=-1)
    cut = ordered.shape[-1] // 4
    kept: FloatArray = ordered[..., cut : ordered.shape[-1] - cut]
    return np.asarray(kept.mean(axis=-1))


def resample(
    seeds: int, episodes: int, draws: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return indices [draws, seeds] and [draws, episodes], each drawn with replacement.

    For seeds that all ran the same episodes: one draw of episodes holds for all of them.
    """
    return (
        random.integers(seeds, size=(draws, seeds)),
        random.integers(episodes, size=(draws, episodes)),
    )


def sample_index(
    seeds: int, episodes: int, draws: int, random: np.random.Generator, shared: bool
) -> Index:
    """Return what picks bootstrap samples [draws, seeds, episodes] from values [seeds, episodes].

    Seeds are drawn with replacement, then episodes: within each seed drawn, or once for all seeds
    where they ran the same episodes (``shared``).
    """
    if shared:
        rows, columns = resample(seeds, episodes, draws, random)
        return rows[:, :, None], columns[:, None, :]
    rows = random.integers(seeds, size=(draws, seeds))
    return rows[:, :, None], random.integers(episodes, size=(draws, seeds, episodes))


def interval(values: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values [draws]."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Estimate:
    """A number with the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """Return ``name``, ``name_low`` and ``name_high``."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


UNKNOWN = Estimate(np.nan, np.nan, np.nan)


def iqm_estimate(values: FloatArray, picks: Index) -> Estimate:
    """Return the interquartile mean of ``values`` [S, E]; ``picks``: see ``sample_index``."""
    drawn = values[picks].reshape(len(picks[0]), -1)
    return Estimate(float(interquartile_mean(values.ravel())), *interval(interquartile_mean(drawn)))


def share_estimate(part: FloatArray, whole: FloatArray, picks: Index) -> Estimate:
    """Return the sum of ``part`` over the sum of ``whole``, both [S, E]; unknown where that is 0.

    Samples of the bootstrap whose ``whole`` is not positive are left out.
    """
    total = float(whole.sum())
    if total <= 0:
        return UNKNOWN
    above, below = (values[picks].sum(axis=(1, 2)) for values in (part, whole))
    usable = below > 0
    if not usable.any():
        return UNKNOWN
    return Estimate(float(part.sum()) / total, *interval(above[usable] / below[usable]))
