"""What the network sees of an observation: a fixed map fitted to the training problem."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from topomoe.agents import ridge
from topomoe.agents.episodes import observations
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem

LATER = 8  # epochs of the later forecast, the first one included
MOST_ROWS = 16_384  # by which the forecasts' penalty is chosen
UNITS = 192  # random features of the queue, which forecasts are linear in
STEEPNESS = 1.0  # standard deviation of what tanh is taken of


@dataclass(frozen=True, eq=False)
class Fixed:
    """The constants of ``FixedFeatures``, float32.

    Attributes:
        weight: [D, F], bias: [F], the linear part.
        projection: [D, U], offset: [U], of the random features.
        mixture: [U, F], what they add.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    mixture: NDArray[np.float32]

    @classmethod
    def empty(cls, observation: int, size: int) -> Fixed:
        """Return zeros for D = ``observation`` and F = ``size``."""
        shapes = ((observation, size), (size,), (observation, UNITS), (UNITS,), (UNITS, size))
        return cls(*(np.zeros(shape, np.float32) for shape in shapes))


class FixedLinear(BaseFeaturesExtractor):
    """``observation @ weight + bias + tanh(observation @ projection + offset) @ mixture``.

    All of it is constant: nothing here is trained.

    Args:
        observation_space: a Box of size D.
        size: F.
        fixed: the constants; None: zeros, to be filled.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    projection: torch.Tensor
    offset: torch.Tensor
    mixture: torch.Tensor

    def __init__(
        self,
        observation_space: spaces.Box,
        size: int,
        fixed: Fixed | None = None,
    ) -> None:
        super().__init__(observation_space, size)
        constants = fixed or Fixed.empty(observation_space.shape[0], size)
        for field in fields(Fixed):
            self.register_buffer(field.name, torch.tensor(getattr(constants, field.name)))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Map observations [n, D] to features [n, F]."""
        waves = torch.addmm(self.offset, observations, self.projection).tanh_()
        return torch.addmm(self.bias, observations, self.weight).addmm_(waves, self.mixture)


def feature_size(layout: ObservationLayout) -> int:
    """Return F: the observation's own numbers, two forecasts and a price a configuration."""
    return layout.size + 3 * layout.num_configurations


def fit(problem: SwitchingProblem, layout: ObservationLayout, seed: int = 0) -> Fixed:
    """Return the constants that suit the network to a training problem.

    Which configuration is cheapest matters more than how much traffic an epoch has, so costs are
    taken relative to the mean over configurations, and divided by their spread. Queue features
    and statistics of the demand get mean 0 and deviation 1; the rest of the observation stays.
    Behind it come, for each configuration and in the same unit, ridge regression's forecasts of
    its cost in the coming epoch and in the mean of eight, and the price of switching to it.
    Forecasts are linear in the queue features and in tanh of random mixtures of them (Rahimi,
    Recht 2007), drawn from ``seed``; without a queue they are linear in past costs.
    """
    count, size = problem.num_configurations, layout.size
    weight, bias = np.zeros((size, feature_size(layout))), np.zeros(feature_size(layout))
    weight[:, :size] = np.eye(size)
    relative = problem.cost / problem.scale
    apart = relative - relative.mean(axis=1, keepdims=True)
    spread = max(float(apart.std()), 1e-6)
    centre = (np.eye(count) - 1.0 / count) / spread
    for part in ("last", "average", "coming"):
        where = layout[part]
        if where.stop > where.start:
            weight[where, where] = centre
    for part, columns in (("queue", problem.features), ("demand", problem.demand)):
        where = layout[part]
        if where.stop > where.start:
            values = columns.astype(np.float64)
            deviation = values.std(axis=0)
            deviation[deviation < 1e-6] = 1.0
            weight[where, where] = np.diag(1.0 / deviation)
            bias[where] = -values.mean(axis=0) / deviation
    queue = layout["queue"]
    projection, offset = np.zeros((size, UNITS)), np.zeros(UNITS)
    mixture = np.zeros((UNITS, feature_size(layout)))
    wide = queue.stop - queue.start
    if wide:
        random = np.random.default_rng([seed, 2])
        mixed = STEEPNESS / np.sqrt(wide) * random.standard_normal((wide, UNITS))
        projection[queue] = weight[queue, queue] @ mixed
        offset = bias[queue] @ mixed + random.uniform(-1, 1, UNITS)
    ahead = slice(size, size + 2 * count)
    forecast, known = _forecast(problem, layout, apart / spread, projection, offset)
    bias[ahead] = forecast.bias
    weight[known, ahead] = forecast.weight[: len(forecast.weight) - UNITS * bool(wide)]
    if wide:
        mixture[:, ahead] = forecast.weight[-UNITS:]
    weight[:count, size + 2 * count :] = problem.metric / problem.scale / spread
    constants = (weight, bias, projection, offset, mixture)
    return Fixed(*(array.astype(np.float32) for array in constants))


def _forecast(
    problem: SwitchingProblem,
    layout: ObservationLayout,
    apart: NDArray[np.float64],
    projection: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> tuple[ridge.Ridge, slice]:
    """Return the map to both forecasts [2 K] and the part of observations that it is from.

    Behind that part its inputs are the random features, where there is a queue. Past costs beside
    it are left out: they are mostly noise, and the network sees them anyway.
    """
    count = problem.num_configurations
    seen = observations(problem, layout).reshape(-1, layout.size).astype(np.float64)
    part = slice(count, layout.size - 1)
    if layout.sizes["queue"]:
        part = slice(layout["coming"].start, layout["queue"].stop)
    parts = [seen[:, part]]
    if layout.sizes["queue"]:
        parts.append(np.tanh(seen @ projection + offset))
    epoch = (problem.episodes()[:, None] + np.arange(problem.episode_length)).ravel()
    total = np.concatenate([np.zeros((1, count)), np.cumsum(apart, axis=0)])
    until = np.minimum(epoch + LATER, problem.num_epochs)
    later = (total[until] - total[epoch]) / (until - epoch)[:, None]
    inputs, targets = np.hstack(parts), np.hstack([apart[epoch], later])
    group = np.repeat([0, 1], count)
    few = slice(0, MOST_ROWS)
    _, penalty = ridge.held_out(inputs[few], targets[few], group, LATER)
    return ridge.fit(inputs, targets, [penalty])[0], part
