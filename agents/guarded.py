"""A forecast with a guarantee: never much worse than (1 + eps) times never switching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.forecast import tune as tune_forecast
from topomoe.agents.policy import BatchPolicy, Policy
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SwitchLimit:
    """The most that switches can cost, in units of the problem's scale.

    Attributes:
        price: float64 [K, K], rewiring and waiting for experts at its longest.
        least, most: float64 [K, K], share of the epoch that the old placement serves.
        slowdown: by how much it is slowed meanwhile, as a share of the whole epoch.
        serving: int64 [K, K], what serves meanwhile.
    """

    price: FloatArray
    least: FloatArray
    most: FloatArray
    slowdown: float
    serving: IntArray

    @classmethod
    def of(cls, problem: SwitchingProblem) -> SwitchLimit:
        """Return the limits over all epochs of a problem."""
        every = np.arange(problem.num_configurations)
        placement = problem.placement_of(every)
        serving = (every - placement)[None] + placement[:, None]
        price, none = problem.switch_cost / problem.scale, np.zeros((every.size, every.size))
        if problem.migration is None:
            return cls(price, none, none, 0.0, serving)
        pair = placement[:, None], placement[None]
        stall, lag = problem.migration.stall, problem.migration.lag
        price = price + stall.max(axis=0)[pair] / problem.scale
        slowdown = problem.migration.slowdown
        return cls(price, lag.min(axis=0)[pair], lag.max(axis=0)[pair], slowdown, serving)

    def paid(self, before: IntArray, chosen: IntArray, cost: FloatArray) -> FloatArray:
        """Return the most that epochs of costs [n, K] can have cost, [n]."""
        copies = np.arange(len(cost))
        usual = cost[copies, chosen]
        slowed = (1 + self.slowdown) * cost[copies, self.serving[before, chosen]] - usual
        late = np.maximum(self.least[before, chosen] * slowed, self.most[before, chosen] * slowed)
        return np.asarray(usual + self.price[before, chosen] + late)


@dataclass(frozen=True, eq=False)
class Account:
    """What n copies remember.

    Attributes:
        debt: float64 [n], at least what was paid beyond (1 + eps) times never switching.
        home: int64 [n], where never-switch stays: where the episode began.
        before: int64 [n], the configuration before the current one.
        inner: the state of the policy that is guarded.
    """

    debt: FloatArray
    home: IntArray
    before: IntArray
    inner: Any


class Guarded(BatchPolicy):
    """Follow a policy as long as never switching stays within reach, else return to its place.

    Being away from home is allowed in an epoch if the debt so far + the way there + the way back
    home <= allowance, where the debt is what was paid beyond (1 + eps) times what staying at home
    would have cost. Otherwise one stays where one is, if that is allowed, or returns.

    So for every episode and each of its epochs, with A and N the costs of this policy and of never
    switching up to then, and in units of the problem's scale:

        A <= (1 + eps) * N + allowance + X + Y

    X is the largest excess of one epoch away, X = max(0, max over t, j and k of r_t(j, k) - (1 +
    eps) * r_t(home, home)), r_t(j, k) being what epoch t costs under k after j but for rewiring
    and waiting; Y is the same for the epoch of the return, k = home, in which the old placement
    may still serve. Without lag Y = 0.

    It holds whatever the policy does and whatever the traffic is, as long as switches cost no more
    than ``limit`` says and no cost exceeds 1000 times the scale, where observations are cut off.

    Args:
        inner: the policy that is followed.
        limit: the most that switches can cost.
        eps: share of never-switch's cost that may be lost, >= 0.
        allowance: what may be lost beside, >= 0, in units of the problem's scale: what a first trip
            is paid from. With 0 there must have been savings, or eps of time, before any.

    Raises:
        InputError: eps or the allowance is negative.
    """

    def __init__(
        self, inner: Policy, limit: SwitchLimit, eps: float = 0.05, allowance: float = 0.0
    ) -> None:
        super().__init__(inner.layout)
        if not (eps >= 0 and allowance >= 0):
            raise InputError(f"guarded needs eps and allowance >= 0, got {eps} and {allowance}")
        self.inner, self.limit, self.eps, self.allowance = inner, limit, eps, allowance

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Account | None,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[IntArray, Account]:
        """Return what the inner policy wants where that can be afforded, and the account."""
        current, copies = self.current(observation), np.arange(len(observation))
        if state is None:
            state = Account(np.zeros(len(copies)), current, current, None)
            episode_start = np.ones_like(episode_start)
        home = np.where(episode_start, current, state.home)
        last = observation[:, self.layout["last"]].astype(np.float64)
        stayed = (state.before == home) & (current == home)  # both pay the same
        paid = np.where(stayed, last[copies, home], self.limit.paid(state.before, current, last))
        debt = state.debt + paid - (1 + self.eps) * last[copies, home]
        debt = np.where(episode_start, 0.0, debt)
        wanted, inner = self.inner.predict(observation, state.inner, episode_start, deterministic)
        choice = home
        for option in (current, np.asarray(wanted)):
            trip = self.limit.price[current, option] + self.limit.price[option, home]
            allowed = (option == home) | (debt + trip <= self.allowance)
            choice = np.where(allowed, option, choice)
        return choice, Account(debt, home, current, inner)


def tune(
    training: SwitchingProblem,
    observe: str = "before",
    eps: float = 0.05,
    queue: bool = True,
) -> Guarded:
    """Return the tuned forecast rule, guarded; its allowance is the dearest round trip from home.

    The budget is the forecast's; ``eps`` is given, not tuned.
    """
    training = training.calibrated(training)
    limit = SwitchLimit.of(training)
    trips = limit.price[training.start] + limit.price[:, training.start]
    return Guarded(tune_forecast(training, observe, queue), limit, eps, float(trips.max()))
