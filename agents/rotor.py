"""Round robin, as a rotor switch turns whatever the traffic. It marks the floor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.envs.layout import ObservationLayout
from topomoe.topologies.errors import InputError


class Rotor(BatchPolicy):
    """The next configuration every ``period`` epochs, as a rotor switch turns.

    Raises:
        InputError: ``period`` < 1.
    """

    def __init__(self, layout: ObservationLayout, period: int = 1) -> None:
        super().__init__(layout)
        if period < 1:
            raise InputError(f"period must be >= 1 epochs, got {period}")
        self.period = period

    def choose(
        self,
        observation: NDArray[np.float32],
        state: NDArray[np.int64] | None,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count the epochs of each copy's episode and turn on every ``period``-th."""
        epoch = np.zeros(len(observation), np.int64) if state is None else state
        epoch = np.where(episode_start, 0, epoch) + 1
        turn = (epoch % self.period == 0).astype(np.int64)
        return (self.current(observation) + turn) % self.layout.num_configurations, epoch
