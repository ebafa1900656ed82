"""Random choice: any configuration, every epoch. It marks the floor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.envs.layout import ObservationLayout


class RandomChoice(BatchPolicy):
    """Any configuration, drawn evenly each epoch; the state carries the generator."""

    def __init__(self, layout: ObservationLayout, seed: int = 0) -> None:
        super().__init__(layout)
        self.seed = seed

    def choose(
        self,
        observation: NDArray[np.float32],
        state: np.random.Generator | None,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], np.random.Generator]:
        """Draw one configuration a copy; without a state the draws begin anew from ``seed``."""
        random = np.random.default_rng(self.seed) if state is None else state
        return random.integers(self.layout.num_configurations, size=len(observation)), random
