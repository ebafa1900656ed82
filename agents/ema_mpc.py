"""Receding-horizon planning on a moving average: forecast, plan ahead, do the plan's first step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.episodes import epochs_left, observations
from topomoe.agents.hysteresis import moving_average
from topomoe.agents.lookahead import lookahead
from topomoe.agents.value_rule import Candidate, SwitchPrice, ValueRule, cheapest
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
WEIGHTS = (0.2, 0.5, 0.8, 1.0)
HORIZONS = (4, 12)
PERSISTENCE = (0.7, 0.85, 0.95, 1.0)
MARGINS = (1.5, 1.0, 0.75)


class EmaMpc(ValueRule):
    """Model predictive control with an exponential moving average as the model.

    The cost of configuration k, i epochs ahead, is forecast as prior[k] + persistence^i *
    (average[k] - prior[k]). A dynamic programme over the horizon, with the price of every switch,
    says what being in each configuration in the coming epoch leads to; one moves if that pays.
    The state is the moving average, float64 [n, K].

    Args:
        layout: how observations are laid out.
        switch: what switching costs.
        prior: float64 [K], the mean costs of training, in units of the problem's scale.
        episode_length: epochs an episode has.
        weight: of the newest epoch in the moving average, in (0, 1].
        horizon: epochs planned ahead; 0 never switches.
        persistence: share of a deviation that lasts to the next epoch, in [0, 1].
        margin: times the price of the first switch that its gain has to exceed.

    Raises:
        InputError: a parameter is out of range.
    """

    def __init__(
        self,
        layout: ObservationLayout,
        switch: SwitchPrice,
        prior: FloatArray,
        episode_length: int,
        weight: float = 0.5,
        horizon: int = 8,
        persistence: float = 0.9,
        margin: float = 1.0,
    ) -> None:
        super().__init__(layout, switch, margin)
        if not (0 < weight <= 1 and horizon >= 0 and 0 <= persistence <= 1 and margin >= 0):
            raise InputError(
                "ema-mpc needs 0 < weight <= 1, horizon >= 0, 0 <= persistence <= 1, margin >= 0, "
                f"got {weight}, {horizon}, {persistence}, {margin}"
            )
        self.prior, self.episode_length = prior, episode_length
        self.weight, self.horizon, self.persistence = weight, horizon, persistence

    def forecast(
        self,
        observation: NDArray[np.float32],
        state: FloatArray | None,
        episode_start: NDArray[np.bool_],
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return what each configuration leads to, its coming epoch, and the moving average."""
        newest = observation[:, self.layout.newest].astype(np.float64)
        old = newest if state is None else np.where(episode_start[:, None], newest, state)
        average = (1 - self.weight) * old + self.weight * newest
        left = epochs_left(observation, self.episode_length)
        value, coming = self.plan(average, left)
        return value, coming, average

    def plan(self, average: FloatArray, left: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return ``value`` and ``coming`` of ``move`` from averages [n, K] and epochs left [n]."""
        coming = average + self.switch.keep
        if self.horizon == 0:
            return np.zeros_like(coming), np.zeros_like(coming)
        ahead = np.arange(self.horizon)
        fade = (self.persistence**ahead)[:, None]
        stage = self.prior + fade * (average - self.prior)[:, None] + self.switch.keep
        stage *= (ahead < left[:, None])[:, :, None]
        return lookahead(stage, self.switch.price), coming


def tune(
    training: SwitchingProblem,
    observe: str = "before",
    weights: Sequence[float] = WEIGHTS,
    horizons: Sequence[int] = HORIZONS,
    persistence: Sequence[float] = PERSISTENCE,
    margins: Sequence[float] = MARGINS,
    queue: bool = True,
) -> EmaMpc:
    """Return the EmaMpc of the grid that costs least over the training episodes.

    The budget is the grid, by default 96 rules, and never switching. Ties go to fewer switches.
    """
    training = training.calibrated(training)
    layout = ObservationLayout.of(training, observe, queue)
    switch, length, count = (
        SwitchPrice.of(training),
        training.episode_length,
        training.num_configurations,
    )
    seen = observations(training, layout)
    newest, left = seen[..., layout.newest].astype(np.float64), epochs_left(seen, length)
    prior = training.prior / training.scale
    rules = [EmaMpc(layout, switch, prior, length, horizon=0)]
    candidates = [Candidate(np.zeros_like(newest), np.zeros_like(newest), 1.0)]
    for weight in weights:
        average = moving_average(newest, weight)
        for horizon, lasting in product(horizons, persistence):
            rule = EmaMpc(layout, switch, prior, length, weight, horizon, lasting)
            value, coming = (
                part.reshape(newest.shape)
                for part in rule.plan(average.reshape(-1, count), left.ravel())
            )
            for margin in margins:
                rules.append(
                    EmaMpc(layout, switch, prior, length, weight, horizon, lasting, margin)
                )
                candidates.append(Candidate(value, coming, margin))
    return rules[cheapest(training, switch, candidates)]
