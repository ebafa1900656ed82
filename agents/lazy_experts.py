"""Lazy experts: follow exponential weights, but move as seldom as their changes allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.agents.rollout import rollout
from topomoe.agents.value_rule import SwitchPrice
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
RATES = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
SHARES = (0.0, 0.01, 0.05)
FIRST = (0.99, 0.9)


@dataclass(frozen=True, eq=False)
class Belief:
    """The law by which the configurations in use were drawn, [n, K], and the generator.

    Logarithms, so that what was unlikely for long can come back.
    """

    log_probability: FloatArray
    random: np.random.Generator


class LazyExperts(BatchPolicy):
    """Exponential weights over configurations with the fewest switches that their law allows.

    The shrinking dartboard (Geulen, Voecking, Winkler 2010): the probability p_t[k] of being in k
    is proportional to the weight exp(-rate * (cost of k so far)), so that the expected regret is
    that of exponential weights, while the choice is kept with a probability of p_t / p_{t-1} and
    drawn anew only for what is missing. Here that is the maximal coupling of p_{t-1} and p_t, which
    keeps at least as often: it moves with the probability sum_k max(p_t[k] - p_{t-1}[k], 0).

    For costs that differ by at most D in an epoch, switches that cost at most d beyond the epochs
    themselves, and n epochs, the expected whole cost exceeds that of any configuration k by at most
    ln(1 / p_0[k]) / rate + rate * n * D * (D / 8 + d) + (1 - first) * d, without ``share`` and
    under ``before``. With a ``share`` of the weight spread evenly after each epoch (Herbster,
    Warmuth 1998) it follows changing optima.

    The state is a ``Belief``; without one the draws begin anew from ``seed``.

    Args:
        layout: how observations are laid out.
        keep: float64 [K], what keeping each configuration adds to an epoch's cost.
        rate: learning rate, per unit of cost (the problem's scale), > 0.
        share: of the weight that is spread evenly, 0..1.
        first: probability of the configuration that an episode starts in, 0..1.
        seed: of the draws.

    Raises:
        InputError: a parameter is out of range.
    """

    def __init__(
        self,
        layout: ObservationLayout,
        keep: FloatArray | float = 0.0,
        rate: float = 0.1,
        share: float = 0.0,
        first: float = 0.9,
        seed: int = 0,
    ) -> None:
        super().__init__(layout)
        if not (0 < rate < np.inf and 0 <= share <= 1 and 0 < first <= 1):
            raise InputError(
                "lazy-experts needs rate > 0, 0 <= share <= 1, 0 < first <= 1, "
                f"got {rate}, {share}, {first}"
            )
        self.keep, self.rate, self.share, self.first = keep, rate, share, first
        self.seed = seed

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Belief | None,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], Belief]:
        """Return the choices after the newest costs, and the belief they are drawn from."""
        random = np.random.default_rng(self.seed) if state is None else state.random
        current, count = self.current(observation), self.layout.num_configurations
        here = np.arange(count) == current[:, None]
        even = (1.0 - self.first) / max(count - 1, 1)
        with np.errstate(divide="ignore"):  # a probability of nothing stays nothing
            weight = np.log(np.where(here, self.first if count > 1 else 1.0, even))
        # An episode is entered by a draw as well: from certainty to p_0.
        old = here.astype(np.float64)
        if state is not None:
            weight = np.where(episode_start[:, None], weight, state.log_probability)
            old = np.where(episode_start[:, None], old, np.exp(state.log_probability))
        newest = observation[:, self.layout.newest].astype(np.float64) + self.keep
        if self.layout.observe == "before":  # at an episode's start nothing has been seen yet
            newest[episode_start] = 0.0
        weight = weight - self.rate * newest
        weight -= weight.max(axis=1, keepdims=True)
        weight -= np.log(np.exp(weight).sum(axis=1, keepdims=True))
        if self.share > 0:
            weight = np.log((1.0 - self.share) * np.exp(weight) + self.share / count)
        new = np.exp(weight)
        draw = random.random((2, len(current)))
        copies = np.arange(len(current))
        kept = draw[0] * old[copies, current] <= new[copies, current]
        missing = np.cumsum(np.maximum(new - old, 0.0), axis=1)
        drawn = (missing <= draw[1][:, None] * missing[:, -1:]).sum(axis=1)
        chosen = np.where(kept, current, np.minimum(drawn, count - 1))
        return chosen.astype(np.int64), Belief(weight, random)


def tune(
    training: SwitchingProblem,
    observe: str = "before",
    rates: Sequence[float] = RATES,
    shares: Sequence[float] = SHARES,
    firsts: Sequence[float] = FIRST,
    seed: int = 0,
    queue: bool = True,
) -> LazyExperts:
    """Return the LazyExperts of the grid that cost least over the training episodes.

    The budget is the grid, by default 48 rules, each with the draws of ``seed``. Ties go to fewer
    switches.
    """
    training = training.calibrated(training)
    layout, keep = ObservationLayout.of(training, observe, queue), SwitchPrice.of(training).keep
    rules = [
        LazyExperts(layout, keep, rate, share, first, seed)
        for rate, share, first in product(rates, shares, firsts)
    ]
    runs = [rollout(rule, training) for rule in rules]
    totals = [(float(run.cost.sum()), int(run.switched.sum())) for run in runs]
    return rules[totals.index(min(totals))]
