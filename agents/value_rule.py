"""The rule behind every forecast: switch when what is gained outweighs what switching costs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.episodes import charged
from topomoe.agents.policy import BatchPolicy
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.kernel import exact_kernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SwitchPrice:
    """What a rule reckons a switch costs, in units of the problem's scale.

    Attributes:
        price: float64 [K, K], of moving from row to column, beyond the epochs themselves; the
            diagonal is zero.
        keep: float64 [K], of keeping a configuration for an epoch, where its placement is made
            anew now and then.
        lag: float64 [K, K], share of the first epoch in which the old placement still serves.
        serving: int64 [K, K], the configuration that serves meanwhile: the new topology with the
            old placement.
    """

    price: FloatArray
    keep: FloatArray
    lag: FloatArray
    serving: IntArray

    @classmethod
    def of(cls, problem: SwitchingProblem) -> SwitchPrice:
        """Return the expectations of a problem: its ``metric``, and the mean lag of migrations."""
        every = np.arange(problem.num_configurations)
        placement = problem.placement_of(every)
        keep = np.diag(problem.metric) / problem.scale
        lag = np.zeros((every.size, every.size))
        if problem.migration is not None:
            lag = problem.migration.lag.mean(axis=0)[placement[:, None], placement[None]]
        return cls(
            price=problem.metric / problem.scale - keep,
            keep=keep,
            lag=lag,
            serving=(every - placement)[None] + placement[:, None],
        )

    @classmethod
    def plain(cls, switch_cost: FloatArray) -> SwitchPrice:
        """Return the price of switches [K, K] that cost what they cost, and nothing else."""
        shape = switch_cost.shape
        every = np.broadcast_to(np.arange(shape[1]), shape).copy()
        given = np.asarray(switch_cost, dtype=np.float64)
        return cls(given, np.zeros(shape[0]), np.zeros(shape), every)


def move(
    value: FloatArray, coming: FloatArray, current: IntArray, margin: float, switch: SwitchPrice
) -> IntArray:
    """Return where to be next, int64 [n]: where the gain is largest if it is positive, else here.

    Moving from c to k gains value[c] - value[k] - margin * price[c, k] - lag[c, k] * (coming[s] -
    coming[k]), s being what serves until the new placement does.

    Args:
        value: float64 [n, K], forecast cost of the epochs that count, in each configuration.
        coming: float64 [n, K], that of the first of them alone.
        current: int64 [n].
        margin: times the price that a gain has to exceed.
        switch: what switching costs.
    """
    copies = np.arange(len(value))
    late = np.take_along_axis(coming, switch.serving[current], axis=1) - coming
    gain = value[copies, current][:, None] - value - margin * switch.price[current]
    gain -= switch.lag[current] * late
    best = gain.argmax(axis=1)
    return np.where(gain[copies, best] > 0, best, current).astype(np.int64)


class ValueRule(BatchPolicy):
    """A policy that ``move``s by forecast costs.

    Args:
        layout: how observations are laid out.
        switch: what switching costs.
        margin: times that price that a gain has to exceed.
    """

    def __init__(self, layout: ObservationLayout, switch: SwitchPrice, margin: float) -> None:
        super().__init__(layout)
        self.switch, self.margin = switch, margin

    @abstractmethod
    def forecast(
        self, observation: NDArray[np.float32], state: Any, episode_start: NDArray[np.bool_]
    ) -> tuple[FloatArray, FloatArray, Any]:
        """Return ``value`` and ``coming`` of ``move``, [n, K] each, and the next state."""

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Any,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[IntArray, Any]:
        """Return where to be next, and the next state."""
        value, coming, after = self.forecast(observation, state, episode_start)
        return move(value, coming, self.current(observation), self.margin, self.switch), after


@dataclass(frozen=True, eq=False)
class Candidate:
    """A rule to try: ``value`` and ``coming`` [n, H, K] of whole training episodes, and margin."""

    value: FloatArray
    coming: FloatArray
    margin: float


def cheapest(
    training: SwitchingProblem, switch: SwitchPrice, candidates: Iterable[Candidate]
) -> int:
    """Return which candidate costs least over the training episodes, everything charged.

    Ties go to fewer switches, then to the first. -1: there is none.
    """
    best, lowest = -1, (np.inf, 0)
    for index, candidate in enumerate(candidates):
        choice = follow(
            np.ascontiguousarray(candidate.value),
            np.ascontiguousarray(candidate.coming),
            training.start,
            candidate.margin,
            switch.price,
            switch.lag,
            switch.serving,
        )
        switches = int(
            (choice[:, 1:] != choice[:, :-1]).sum() + (choice[:, 0] != training.start).sum()
        )
        score = float(charged(training, choice).sum()), switches
        if score < lowest:
            best, lowest = index, score
    return best


@exact_kernel
def follow(
    value: FloatArray,
    coming: FloatArray,
    start: int,
    margin: float,
    price: FloatArray,
    lag: FloatArray,
    serving: IntArray,
) -> IntArray:
    """Return the choices [n, H] of episodes in which every epoch is ``move``d by its forecasts."""
    episodes, length, count = value.shape
    choice = np.empty((episodes, length), dtype=np.int64)
    for episode in range(episodes):
        current = start
        for epoch in range(length):
            v, c = value[episode, epoch], coming[episode, epoch]
            best, most = current, 0.0
            for k in range(count):
                gain = v[current] - v[k] - margin * price[current, k]
                gain -= lag[current, k] * (c[serving[current, k]] - c[k])
                if gain > most:
                    best, most = k, gain
            current = best
            choice[episode, epoch] = current
    return choice
