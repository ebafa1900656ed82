"""What values are linear in: features of an observation, and observations of every epoch at once.

Nothing here depends on the configuration that is set: traffic does not react to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import AVERAGE_WEIGHT, State, observe

FloatArray = NDArray[np.float64]
MOST_PRODUCTS = 256
STEEPNESS = 0.7  # standard deviation of what tanh is taken of
LIMIT = 6.0  # deviations beyond which a feature says no more


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A fixed map from observations to D features of mean 0 and variance 1 in training.

    The I inputs are the observation's parts without ``current`` and ``left``, each row of costs
    split into its mean and the differences from it. Features are the inputs, products of them, and
    tanh of ``inputs @ projection + offset``; what of them there is depends on the kind.

    Attributes:
        centre, spread: float32 [I]; a spread of 0 drops an input.
        pairs: int64 [R, 2], inputs multiplied.
        pair_centre, pair_spread: float32 [R].
        projection: float32 [I, U], offset: float32 [U].
        random_centre, random_spread: float32 [U].
    """

    centre: NDArray[np.float32]
    spread: NDArray[np.float32]
    pairs: NDArray[np.int64]
    pair_centre: NDArray[np.float32]
    pair_spread: NDArray[np.float32]
    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    random_centre: NDArray[np.float32]
    random_spread: NDArray[np.float32]

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Return the features [n, D] of inputs [n, I]."""
        plain = _normal(inputs, self.centre, self.spread)
        parts = [plain]
        if len(self.pairs):
            products = plain[:, self.pairs[:, 0]] * plain[:, self.pairs[:, 1]]
            parts.append(_normal(products, self.pair_centre, self.pair_spread))
        if len(self.offset):
            waves = np.tanh(plain @ self.projection + self.offset)
            parts.append(_normal(waves, self.random_centre, self.random_spread))
        return np.concatenate(parts, axis=1)


def input_size(layout: ObservationLayout) -> int:
    """Return I."""
    costs = sum(layout.sizes[part] > 0 for part in ("last", "average", "coming"))
    return layout.size - layout.sizes["current"] - 1 + costs


def inputs_of(observation: NDArray[np.float32], layout: ObservationLayout) -> FloatArray:
    """Return the inputs, float64 [n, I], of observations [n, size]."""
    parts = []
    for part in ("last", "average", "coming"):
        cost = observation[:, layout[part]].astype(np.float64)
        if cost.shape[1]:
            mean = cost.mean(axis=1, keepdims=True)
            parts += [cost - mean, mean]
    parts += [observation[:, layout[part]].astype(np.float64) for part in ("demand", "queue")]
    return np.concatenate(parts, axis=1)


def pairs_of(layout: ObservationLayout, kind: str) -> NDArray[np.int64]:
    """Return which inputs are multiplied, [R, 2]: queue features, if they are few enough."""
    last = input_size(layout)
    queue = np.arange(last - layout.sizes["queue"], last)
    first, second = np.triu_indices(len(queue))
    if kind not in ("queue-products", "queue-random") or len(first) > MOST_PRODUCTS:
        return np.zeros((0, 2), dtype=np.int64)
    return np.stack([queue[first], queue[second]], axis=1).astype(np.int64)


def units_of(kind: str, units: int) -> int:
    """Return U, how many random features a ``kind`` has."""
    return units if kind.endswith("random") else 0


def fit_features(
    inputs: FloatArray, layout: ObservationLayout, kind: str, units: int, seed: int
) -> FeatureMap:
    """Return the map of one ``kind`` (see the settings) that standardises inputs [n, I]."""
    centre, spread = _moments(inputs)
    if kind.startswith("queue"):
        spread[: 2 * (layout.num_configurations + 1)] = 0.0  # last and average come first
    pairs = pairs_of(layout, kind)
    plain = _normal(inputs, centre, spread)
    products = _moments(plain[:, pairs[:, 0]] * plain[:, pairs[:, 1]])
    random = np.random.default_rng(seed)
    units = units_of(kind, units)
    mixed = max(int((spread > 0).sum()), 1)
    mixture = STEEPNESS / np.sqrt(mixed) * random.standard_normal((len(centre), units))
    projection = mixture.astype(np.float32)
    offset = random.uniform(-1, 1, units).astype(np.float32)
    waves = _moments(np.tanh(plain @ projection + offset))
    return FeatureMap(centre, spread, pairs, *products, projection, offset, *waves)


def observations(
    problem: SwitchingProblem, layout: ObservationLayout, age: int | None
) -> NDArray[np.float32]:
    """Return what is observed before each epoch, [T, size], without current and left.

    Args:
        problem: the timeline.
        layout: how observations are laid out.
        age: epochs of the episode that are over, for all rows; the first ``age`` rows are zero.
            None: each episode began with the timeline.
    """
    epochs = problem.num_epochs
    relative = problem.cost / problem.scale
    prior = problem.prior / problem.scale
    first = 0 if age is None else age
    average = np.tile(prior, (epochs - first, 1))
    if age is None:
        for epoch in range(1, epochs):
            average[epoch] = (1 - AVERAGE_WEIGHT) * average[epoch - 1]
            average[epoch] += AVERAGE_WEIGHT * relative[epoch - 1]
        done = np.minimum(np.arange(epochs), problem.episode_length - 1)
    else:
        for back in range(age, 0, -1):
            past = relative[first - back : epochs - back]
            average = (1 - AVERAGE_WEIGHT) * average + AVERAGE_WEIGHT * past
        done = np.full(epochs - first, age)
    epoch_of = np.arange(first, epochs)
    state = State(epoch_of - done, done, np.zeros_like(done), average)
    result = np.zeros((epochs, layout.size), dtype=np.float32)
    result[first:] = observe(problem, state, layout)
    return result


def _moments(values: FloatArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    centre, spread = values.mean(axis=0), values.std(axis=0)
    spread[spread < 1e-6 * (1.0 + np.abs(centre))] = 0.0
    return centre.astype(np.float32), spread.astype(np.float32)


def _normal(
    values: FloatArray, centre: NDArray[np.float32], spread: NDArray[np.float32]
) -> FloatArray:
    inverse = np.divide(1.0, spread, out=np.zeros(len(spread)), where=spread > 0)
    return np.asarray(np.clip((values - centre) * inverse, -LIMIT, LIMIT))
