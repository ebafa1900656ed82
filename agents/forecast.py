"""Forecast by ridge regression from all that is observed, the queue above all; then hysteresis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.episodes import epochs_left, observations
from topomoe.agents.lookahead import lookahead
from topomoe.agents.ridge import Ridge, fit, held_out
from topomoe.agents.value_rule import Candidate, SwitchPrice, ValueRule, cheapest
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem

FloatArray = NDArray[np.float64]
EDGES = (0, 1, 2, 3, 5, 8, 12, 20, 32)
MARGINS = (1.0, 1.4, 2.0, 3.0, 4.5, 0.7, 0.5, 0.35, 0.25)
MOST_QUEUE = 27  # queue features whose products are tried


@dataclass(frozen=True)
class Inputs:
    """What of an observation a forecast is made from.

    Attributes:
        queue: the queue features.
        products: their products with each other too.
        past: last and average costs, and the last demand.
    """

    queue: bool = True
    products: bool = False
    past: bool = True

    def of(self, observation: NDArray[np.float32], layout: ObservationLayout) -> FloatArray:
        """Return the inputs, float64 [n, D], of observations [n, layout.size].

        Costs are taken relative to the mean over configurations, which is an input of its own.
        """
        parts = {name: observation[:, layout[name]].astype(np.float64) for name in layout.sizes}
        costs = [parts["coming"]] if layout.observe == "after" else []
        costs += [parts["last"], parts["average"]] if self.past else []
        chosen = [np.zeros((len(observation), 0))]
        for cost in costs:
            mean = cost.mean(axis=1, keepdims=True)
            chosen += [cost - mean, mean]
        if self.past:
            chosen.append(parts["demand"])
        if self.queue:
            chosen.append(parts["queue"])
        if self.products:
            first, second = np.triu_indices(parts["queue"].shape[1])
            chosen.append(parts["queue"][:, first] * parts["queue"][:, second])
        return np.concatenate(chosen, axis=1)


@dataclass(frozen=True)
class Plan:
    """How a forecast becomes a decision.

    Attributes:
        horizon: epochs that count; 0 never switches.
        switches_later: whether later switches are planned with, or one stays for the horizon.
        margin: times the price of a switch that its gain has to exceed.
    """

    horizon: int
    switches_later: bool
    margin: float


PLANS = (
    Plan(0, False, 1.0),
    *(Plan(h, later, m) for h in EDGES[1:] for later in (False, True) for m in MARGINS),
)


class Forecast(ValueRule):
    """Ridge forecasts of every configuration's costs up to 32 epochs ahead, and a move if it pays.

    Forecast are the mean costs of epochs EDGES[g] to EDGES[g+1] from now, over the problem's scale.

    Args:
        layout: how observations are laid out.
        switch: what switching costs.
        episode_length: epochs an episode has.
        inputs: what forecasts are made from.
        model: the map from inputs to forecasts, G * K in the order [G, K].
        plan: what is done with them.
    """

    def __init__(
        self,
        layout: ObservationLayout,
        switch: SwitchPrice,
        episode_length: int,
        inputs: Inputs,
        model: Ridge,
        plan: Plan,
    ) -> None:
        super().__init__(layout, switch, plan.margin)
        self.episode_length, self.inputs = episode_length, inputs
        self.model, self.plan = model, plan

    def forecast(
        self, observation: NDArray[np.float32], state: None, episode_start: NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray, None]:
        """Return what being in each configuration leads to, and its coming epoch."""
        guess = self.model(self.inputs.of(observation, self.layout))
        left = epochs_left(observation, self.episode_length)
        return *weigh(guess, left, self.plan, self.switch), None


def weigh(
    guess: FloatArray, left: FloatArray, plan: Plan, switch: SwitchPrice
) -> tuple[FloatArray, FloatArray]:
    """Return ``value`` and ``coming`` of ``move``, from forecasts [n, G * K], epochs left [n]."""
    edges = np.array(EDGES)
    stages = int(np.searchsorted(edges, plan.horizon))
    mean = guess.reshape(len(guess), len(EDGES) - 1, -1)[:, : max(stages, 1)] + switch.keep
    if stages == 0:
        return np.zeros_like(mean[:, 0]), np.zeros_like(mean[:, 0])
    lasts = np.minimum(plan.horizon, left)[:, None] - edges[:stages]
    stage = mean * np.clip(lasts, 0, np.diff(edges)[:stages])[:, :, None]
    value = lookahead(stage, switch.price) if plan.switches_later else stage.sum(axis=1)
    return value, mean[:, 0]


def tune(
    training: SwitchingProblem,
    observe: str = "before",
    queue: bool = True,
    plans: Sequence[Plan] = PLANS,
) -> Forecast:
    """Return the Forecast whose inputs, penalties and plan cost least over the training episodes.

    Forecasts of training epochs come from models of the other blocks of time (five folds), and so
    do the costs by which inputs and plan are chosen; the model is then fitted to all of training.
    The budget: up to four sets of inputs, six penalties for each stage of the horizon, 145 plans
    for each set: 580 rules run through all training episodes. Ties go to fewer switches, then to
    margins near 1.

    Args:
        training: the training problem.
        observe: when costs are known, as in ``ObservationLayout``.
        queue: whether observations hold queue features; without, the past has to do.
        plans: those to try; the first should be never to switch.
    """
    training = training.calibrated(training)
    layout = ObservationLayout.of(training, observe, queue)
    switch, length = SwitchPrice.of(training), training.episode_length
    seen = observations(training, layout)
    rows, shape = seen.reshape(-1, layout.size), (*seen.shape[:2], -1)
    left = epochs_left(rows, length)
    targets = _targets(training)[: len(rows)]
    stage = np.arange(len(EDGES) - 1).repeat(training.num_configurations)
    sets = list(_input_sets(layout))
    guesses, penalties = [], []
    for inputs in sets:
        guess, penalty = held_out(inputs.of(rows, layout), targets, stage, gap=EDGES[-1])
        guesses.append(guess)
        penalties.append(penalty)

    def candidates() -> Iterator[Candidate]:
        for guess in guesses:
            made: dict[tuple[int, bool], tuple[FloatArray, FloatArray]] = {}
            for plan in plans:
                key = plan.horizon, plan.switches_later
                if key not in made:
                    made[key] = weigh(guess, left, plan, switch)
                value, coming = (part.reshape(shape) for part in made[key])
                yield Candidate(value, coming, plan.margin)

    chosen, plan = divmod(cheapest(training, switch, candidates()), len(plans))
    inputs = sets[chosen]
    model = fit(inputs.of(rows, layout), targets, [penalties[chosen]])[0]
    return Forecast(layout, switch, length, inputs, model, plans[plan])


def _input_sets(layout: ObservationLayout) -> Iterator[Inputs]:
    if not (layout.queue and layout.num_features):
        yield Inputs(queue=False)
        return
    for products in (False, True) if layout.num_features <= MOST_QUEUE else (False,):
        for past in (False, True):
            yield Inputs(queue=True, products=products, past=past)


def _targets(problem: SwitchingProblem) -> FloatArray:
    """Return the mean costs of each stage from every epoch on, [T, G * K], over the scale.

    They are relative to the mean over configurations. Past the timeline's end the prior counts.
    """
    cost = np.concatenate([problem.cost, np.tile(problem.prior, (EDGES[-1], 1))]) / problem.scale
    cost -= cost.mean(axis=1, keepdims=True)
    total = np.concatenate([np.zeros((1, cost.shape[1])), np.cumsum(cost, axis=0)])
    now = np.arange(problem.num_epochs)
    means = [(total[now + high] - total[now + low]) / (high - low) for low, high in pairwise(EDGES)]
    return np.concatenate(means, axis=1)
