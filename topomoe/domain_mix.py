"""How the share of each domain changes from batch to batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def stationary(base: FloatArray) -> Iterator[FloatArray]:
    """Yield the same mix [D] for every batch."""
    while True:
        yield base


def phases(
    base: FloatArray, length: int, weight: float, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield mixes [D] in which one domain at a time dominates, for ``length`` batches.

    The dominant domain gets ``weight``, and all domains share the rest as in ``base`` [D]. The next
    is drawn evenly from the others that ``base`` has at all.
    """
    present = np.flatnonzero(base > 0)
    dominant = int(rng.choice(present))
    while True:
        mix = (1.0 - weight) * base
        mix[dominant] += weight
        for _ in range(length):
            yield mix
        others = present[present != dominant]
        dominant = int(rng.choice(others)) if len(others) else dominant


def drift(
    base: FloatArray, length: float, spread: float, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield mixes [D] that wander smoothly around ``base`` [D]: a logistic-normal process.

    The log weight of each domain is an Ornstein-Uhlenbeck process of standard deviation ``spread``
    whose correlation falls to 1/e over ``length`` batches; it starts in its stationary state.
    """
    keep = np.exp(-1.0 / length)
    offset = spread * rng.standard_normal(len(base))
    while True:
        weight = base * np.exp(offset - offset.max())
        yield weight / weight.sum()
        offset = keep * offset + np.sqrt(1 - keep**2) * spread * rng.standard_normal(len(base))
