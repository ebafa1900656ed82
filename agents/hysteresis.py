"""Hysteresis: switch only when the forecast gain over a horizon outweighs the switching cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.agents.rollout import rollout
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
HORIZONS = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 32.0, 50.0)
MARGINS = (1.0, 1.5)


class Hysteresis(BatchPolicy):
    """Forecast each configuration by a moving average of its cost, and move if it pays.

    With forecasts f, current configuration c and h = min(horizon, epochs left), configuration k
    gains (f[c] - f[k]) * h - margin * switch_cost[c, k]; the largest gain is taken if positive.
    The state is the moving average, float64 [n, K].

    Args:
        layout: how observations are laid out.
        switch_cost: float64 [K, K], in units of the problem's scale.
        episode_length: epochs an episode has.
        weight: of the newest epoch in the moving average, in (0, 1]; 1 forgets all others.
        horizon: epochs a gain is expected to last; 0 never switches.
        margin: times the switching cost that a gain has to exceed.

    Raises:
        InputError: a parameter is out of range.
    """

    def __init__(
        self,
        layout: ObservationLayout,
        switch_cost: NDArray[np.float64],
        episode_length: int,
        weight: float = 0.5,
        horizon: float = 10.0,
        margin: float = 1.0,
    ) -> None:
        super().__init__(layout)
        if not (0 < weight <= 1 and horizon >= 0 and margin >= 0):
            raise InputError(
                "hysteresis needs 0 < weight <= 1, horizon >= 0, margin >= 0, "
                f"got {weight}, {horizon}, {margin}"
            )
        self.switch_cost = switch_cost
        self.episode_length = episode_length
        self.weight, self.horizon, self.margin = weight, horizon, margin

    def choose(
        self,
        observation: NDArray[np.float32],
        state: NDArray[np.float64] | None,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the configuration with the largest gain, and the new moving average."""
        newest = observation[:, self.layout.newest].astype(np.float64)
        old = newest if state is None else np.where(episode_start[:, None], newest, state)
        forecast = (1 - self.weight) * old + self.weight * newest
        current = self.current(observation)
        copies = np.arange(len(newest))
        left = observation[:, self.layout["left"]] * self.episode_length
        benefit = forecast[copies, current][:, None] - forecast
        gain = benefit * np.minimum(self.horizon, left) - self.margin * self.switch_cost[current]
        best = gain.argmax(axis=1)
        return np.where(gain[copies, best] > 0, best, current).astype(np.int64), forecast


def tune(
    training: SwitchingProblem,
    observe: str = "before",
    weights: Sequence[float] = WEIGHTS,
    horizons: Sequence[float] = HORIZONS,
    margins: Sequence[float] = MARGINS,
) -> Hysteresis:
    """Return the Hysteresis of the grid that costs least over the training episodes.

    The episodes start in the configuration that is best on average in training.

    Ties go to the shorter horizon, the larger margin and the smaller weight: to fewer switches.
    """
    training = training.calibrated(training)
    layout = ObservationLayout.of(training, observe)
    relative = training.switch_cost / training.scale
    best: Hysteresis | None = None
    lowest = np.inf
    for horizon in sorted(horizons):
        for margin in sorted(margins, reverse=True):
            for weight in sorted(weights):
                policy = Hysteresis(
                    layout, relative, training.episode_length, weight, horizon, margin
                )
                total = float(rollout(policy, training).cost.sum())
                if total < lowest:
                    best, lowest = policy, total
    if best is None:
        raise InputError("weights, horizons and margins must each hold at least one value")
    return best
