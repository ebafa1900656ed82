"""Hysteresis: switch only when the forecast gain over a horizon outweighs the switching cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.episodes import epochs_left, observations
from topomoe.agents.value_rule import Candidate, SwitchPrice, ValueRule, cheapest
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
WEIGHTS = (0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
HORIZONS = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 32.0, 50.0)
MARGINS = (1.0, 1.5)


class Hysteresis(ValueRule):
    """Forecast each configuration by a moving average of its cost, and move if it pays.

    With forecasts f, current configuration c and h = min(horizon, epochs left), configuration k
    gains (f[c] - f[k]) * h - margin * switch_cost[c, k]; the largest gain is taken if positive.
    Where the old placement serves for a while, that part of the first epoch is no gain.
    The state is the moving average, float64 [n, K].

    Args:
        layout: how observations are laid out.
        switch_cost: what switching costs, in units of the problem's scale; or float64 [K, K].
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
        switch_cost: SwitchPrice | FloatArray,
        episode_length: int,
        weight: float = 0.5,
        horizon: float = 10.0,
        margin: float = 1.0,
    ) -> None:
        given = switch_cost if isinstance(switch_cost, SwitchPrice) else None
        super().__init__(layout, given or SwitchPrice.plain(np.asarray(switch_cost)), margin)
        if not (0 < weight <= 1 and horizon >= 0 and margin >= 0):
            raise InputError(
                "hysteresis needs 0 < weight <= 1, horizon >= 0, margin >= 0, "
                f"got {weight}, {horizon}, {margin}"
            )
        self.episode_length = episode_length
        self.weight, self.horizon = weight, horizon

    def forecast(
        self,
        observation: NDArray[np.float32],
        state: FloatArray | None,
        episode_start: NDArray[np.bool_],
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the moving average over the horizon, over one epoch, and as the state."""
        newest = observation[:, self.layout.newest].astype(np.float64)
        old = newest if state is None else np.where(episode_start[:, None], newest, state)
        average = (1 - self.weight) * old + self.weight * newest
        left = epochs_left(observation, self.episode_length)
        return *spread(average + self.switch.keep, left, self.horizon), average


def spread(forecast: FloatArray, left: FloatArray, horizon: float) -> tuple[FloatArray, FloatArray]:
    """Return a forecast [..., K] over ``horizon`` epochs or what is ``left``, and over one.

    A horizon shorter than one epoch has no whole first epoch either.
    """
    lasts = np.minimum(horizon, left)[..., None]
    return forecast * lasts, forecast * np.minimum(lasts, 1.0)


def moving_average(newest: FloatArray, weight: float) -> FloatArray:
    """Return the moving average along the epochs of episodes [n, H, K], begun by the first."""
    average = np.array(newest)
    for epoch in range(1, newest.shape[1]):
        average[:, epoch] = (1 - weight) * average[:, epoch - 1] + weight * newest[:, epoch]
    return average


def tune(
    training: SwitchingProblem,
    observe: str = "before",
    weights: Sequence[float] = WEIGHTS,
    horizons: Sequence[float] = HORIZONS,
    margins: Sequence[float] = MARGINS,
    queue: bool = True,
) -> Hysteresis:
    """Return the Hysteresis of the grid that costs least over the training episodes.

    The episodes start in the configuration that is best on average in training. The budget is the
    grid, by default 120 rules.

    Ties go to fewer switches; then to the shorter horizon, the larger margin, the smaller weight.

    Raises:
        InputError: there is nothing to choose from.
    """
    training = training.calibrated(training)
    layout = ObservationLayout.of(training, observe, queue)
    switch, length = SwitchPrice.of(training), training.episode_length
    seen = observations(training, layout)
    newest, left = seen[..., layout.newest].astype(np.float64), epochs_left(seen, length)
    averages = {weight: moving_average(newest, weight) + switch.keep for weight in weights}
    grid = list(product(sorted(horizons), sorted(margins, reverse=True), sorted(weights)))
    best = cheapest(
        training,
        switch,
        (Candidate(*spread(averages[w], left, horizon), margin) for horizon, margin, w in grid),
    )
    if best < 0:
        raise InputError("weights, horizons and margins must each hold at least one value")
    horizon, margin, weight = grid[best]
    return Hysteresis(layout, switch, length, weight, horizon, margin)
