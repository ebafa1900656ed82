"""What the network sees of an observation: a fixed linear map fitted to the training problem."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem


class FixedLinear(BaseFeaturesExtractor):
    """``observation @ weight + bias`` with a constant weight and bias, which are not trained.

    Args:
        observation_space: a Box of size D.
        weight: float32 [D, D].
        bias: float32 [D].
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(
        self,
        observation_space: spaces.Box,
        weight: NDArray[np.float32] | None = None,
        bias: NDArray[np.float32] | None = None,
    ) -> None:
        size = observation_space.shape[0]
        super().__init__(observation_space, size)
        identity = np.eye(size, dtype=np.float32) if weight is None else weight
        self.register_buffer("weight", torch.tensor(identity))
        self.register_buffer("bias", torch.zeros(size) if bias is None else torch.tensor(bias))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Map observations [n, D] to features [n, D]."""
        return observations @ self.weight + self.bias


def fit(
    problem: SwitchingProblem, layout: ObservationLayout
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the weight [D, D] and bias [D] that suit the network to a training problem.

    Which configuration is cheapest matters more than how much traffic an epoch has, so costs are
    taken relative to the mean over configurations, and divided by their spread. Queue features
    get mean 0 and deviation 1; the rest stays.
    """
    weight = np.eye(layout.size)
    bias = np.zeros(layout.size)
    relative = problem.cost / problem.scale
    apart = relative - relative.mean(axis=1, keepdims=True)
    spread = max(float(apart.std()), 1e-6)
    count = problem.num_configurations
    centre = (np.eye(count) - 1.0 / count) / spread
    for part in ("last", "average", "coming"):
        where = layout[part]
        if where.stop > where.start:
            weight[where, where] = centre
    if layout.queue and layout.num_features:
        where = layout["queue"]
        features = problem.features.astype(np.float64)
        deviation = features.std(axis=0)
        deviation[deviation < 1e-6] = 1.0
        weight[where, where] = np.diag(1.0 / deviation)
        bias[where] = -features.mean(axis=0) / deviation
    return weight.astype(np.float32), bias.astype(np.float32)
