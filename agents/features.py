"""What the network sees of an observation: a fixed linear map fitted to the training problem."""

from __future__ import annotations

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


class FixedLinear(BaseFeaturesExtractor):
    """``observation @ weight + bias`` with a constant weight and bias, which are not trained.

    Args:
        observation_space: a Box of size D.
        size: F.
        weight: float32 [D, F]; None: zeros, to be filled.
        bias: float32 [F].
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self,
        observation_space: spaces.Box,
        size: int,
        weight: NDArray[np.float32] | None = None,
        bias: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__(observation_space, size)
        empty = torch.zeros(observation_space.shape[0], size)
        self.register_buffer("weight", empty if weight is None else torch.tensor(weight))
        self.register_buffer("bias", torch.zeros(size) if bias is None else torch.tensor(bias))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Map observations [n, D] to features [n, F]."""
        return torch.addmm(self.bias, observations, self.weight)


def feature_size(layout: ObservationLayout) -> int:
    """Return F: the observation's own numbers, two forecasts and a price a configuration."""
    return layout.size + 3 * layout.num_configurations


def fit(
    problem: SwitchingProblem, layout: ObservationLayout
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weight [D, F] and bias [F] that suit the network to a training problem.

    Which configuration is cheapest matters more than how much traffic an epoch has, so costs are
    taken relative to the mean over configurations, and divided by their spread. Queue features
    and statistics of the demand get mean 0 and deviation 1; the rest of the observation stays.
    Behind it come, for each configuration and in the same unit, ridge regression's forecasts of
    its cost in the coming epoch and in the mean of eight, and the price of switching to it.
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
    forecast = _forecast(problem, layout, apart / spread)
    weight[count : size - 1, size : size + 2 * count] = forecast.weight
    bias[size : size + 2 * count] = forecast.bias
    weight[:count, size + 2 * count :] = problem.metric / problem.scale / spread
    return weight.astype(np.float32), bias.astype(np.float32)


def _forecast(
    problem: SwitchingProblem, layout: ObservationLayout, apart: NDArray[np.float64]
) -> ridge.Ridge:
    """Return the map from observations, without current and left, to both forecasts [2 K]."""
    count = problem.num_configurations
    known = observations(problem, layout)[..., count:-1].astype(np.float64)
    epoch = (problem.episodes()[:, None] + np.arange(problem.episode_length)).ravel()
    total = np.concatenate([np.zeros((1, count)), np.cumsum(apart, axis=0)])
    until = np.minimum(epoch + LATER, problem.num_epochs)
    later = (total[until] - total[epoch]) / (until - epoch)[:, None]
    inputs, targets = known.reshape(epoch.size, -1), np.hstack([apart[epoch], later])
    group = np.repeat([0, 1], count)
    few = slice(0, MOST_ROWS)
    _, penalty = ridge.held_out(inputs[few], targets[few], group, LATER)
    return ridge.fit(inputs, targets, [penalty])[0]
