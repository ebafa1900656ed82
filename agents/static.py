"""One configuration for good: the best of training, the best in hindsight, or any."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError


class Fixed(BatchPolicy):
    """Always ``configuration``; it switches at most once, at an episode's start.

    Raises:
        InputError: there is no such configuration.
    """

    def __init__(self, layout: ObservationLayout, configuration: int) -> None:
        super().__init__(layout)
        if not 0 <= configuration < layout.num_configurations:
            raise InputError(
                f"configuration must be 0..{layout.num_configurations - 1}, got {configuration}"
            )
        self.configuration = configuration

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Any,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return ``configuration`` for every copy."""
        return np.full(len(observation), self.configuration, dtype=np.int64), state


def never_switch(training: SwitchingProblem, observe: str = "before") -> Fixed:
    """Return the single configuration that was cheapest on average in training.

    On a problem ``calibrated`` to the same training it is where episodes start: no switch at all.
    """
    return Fixed(ObservationLayout.of(training, observe), int(training.cost.mean(axis=0).argmin()))


def static_best(test: SwitchingProblem, observe: str = "before") -> Fixed:
    """Return the best single configuration in hindsight over all whole episodes of ``test``.

    The switch to it at each episode's start is counted.
    """
    episodes = test.episodes()
    whole = test.cost[: episodes.size * test.episode_length].sum(axis=0)
    total = whole + episodes.size * test.switch_cost[test.start]
    return Fixed(ObservationLayout.of(test, observe), int(total.argmin()))
