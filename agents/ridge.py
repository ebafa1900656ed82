"""Ridge regression (Hoerl, Kennard 1970), its penalty chosen on folds of blocks in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear map ``inputs @ weight + bias`` from D inputs to Y targets: [D, Y] and [Y]."""

    weight: FloatArray
    bias: FloatArray

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Return the predictions [n, Y] for inputs [n, D]."""
        return np.asarray(inputs @ self.weight + self.bias)


def fit(
    inputs: FloatArray, targets: FloatArray, penalties: Sequence[float | FloatArray]
) -> list[Ridge]:
    """Return, for each penalty, the map of least squared error + penalty * rows * squared weights.

    Args:
        inputs: float64 [R, D]; each is divided by its standard deviation before it is penalised.
        targets: float64 [R, Y].
        penalties: each > 0, one number or one a target, [Y].
    """
    centre, mean = inputs.mean(axis=0), targets.mean(axis=0)
    deviation = inputs.std(axis=0)
    deviation = np.where(deviation > 1e-9, deviation, np.inf)  # what is constant says nothing
    standard = (inputs - centre) / deviation
    eigenvalue, vector = np.linalg.eigh(standard.T @ standard / len(inputs))
    moment = vector.T @ (standard.T @ (targets - mean)) / len(inputs)
    spectrum = np.maximum(eigenvalue, 0.0)[:, None]
    weights = [vector @ (moment / (spectrum + each)) / deviation[:, None] for each in penalties]
    return [Ridge(weight, mean - centre @ weight) for weight in weights]


def held_out(
    inputs: FloatArray,
    targets: FloatArray,
    group: NDArray[np.int64],
    gap: int,
    penalties: Sequence[float] = PENALTIES,
    folds: int = FOLDS,
) -> tuple[FloatArray, FloatArray]:
    """Return predictions [R, Y] for rows from models that never saw them, and penalties [Y].

    Rows are in the order of time. They are cut into ``folds`` blocks; a block is predicted by a
    model of the others, less ``gap`` rows on either side, whose targets overlap with it. One
    penalty is chosen for each group of targets, ``group`` [Y]: that of the least squared error.
    """
    edges = np.linspace(0, len(inputs), folds + 1).astype(np.int64)
    every = np.arange(len(inputs))
    guesses = np.empty((len(penalties), *targets.shape))
    for low, high in pairwise(edges):
        seen = (every < low - gap) | (every >= high + gap)
        if not seen.any():
            guesses[:, low:high] = targets.mean(axis=0)
            continue
        for index, model in enumerate(fit(inputs[seen], targets[seen], penalties)):
            guesses[index, low:high] = model(inputs[low:high])
    error = ((guesses - targets) ** 2).mean(axis=1)
    error = np.stack([error[:, group == g].sum(axis=1) for g in range(int(group.max()) + 1)])
    chosen = error.argmin(axis=1)[group]
    guess = np.take_along_axis(guesses, chosen[None, None, :], axis=0)[0]
    return guess, np.asarray(penalties, dtype=np.float64)[chosen]
