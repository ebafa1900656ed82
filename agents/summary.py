"""What an evaluation says of each agent: interquartile means, intervals, regret closed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.baselines import ONLINE, ONLINE_BLIND
from topomoe.agents.bootstrap import UNKNOWN, Estimate, iqm_estimate, sample_index, share_estimate
from topomoe.agents.rollout import Rollout
from topomoe.agents.step_times import percentiles
from topomoe.envs.problem import SwitchingProblem

DRAWS = 2000
LEAST_GAP = 1e-9  # of the clairvoyant's cost: below it there is no regret to close
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """One agent on one held-out timeline.

    Attributes:
        timeline: which one; agents are compared with others on the same.
        problem: it.
        rollout: every epoch's choice and cost, [episodes, H].
        never: float64 [episodes], seconds of never switching.
        optimum: float64 [episodes], seconds of the clairvoyant.
        seconds, weight: step times, [episodes, ...]; see ``step_times``.
    """

    timeline: int
    problem: SwitchingProblem
    rollout: Rollout
    never: FloatArray
    optimum: FloatArray
    seconds: FloatArray
    weight: FloatArray

    @property
    def cost(self) -> FloatArray:
        """Seconds of each episode."""
        return np.asarray(self.rollout.cost.sum(axis=1))

    @property
    def bound(self) -> FloatArray:
        """Seconds below which no placement can bring an episode; NaN where it is not known."""
        if not self.problem.bound.size:
            return np.full(len(self.never), np.nan)
        return np.asarray(self.problem.bound[self.rollout.epoch].sum(axis=1))

    def switches(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how often each episode's topology and placement changed, [episodes] each."""
        start = np.full((len(self.rollout.choice), 1), self.problem.start)
        chosen = np.concatenate([start, self.rollout.choice], axis=1)
        parts = self.problem.topology_of(chosen), self.problem.placement_of(chosen)
        topology, placement = (np.diff(part, axis=1).astype(bool).sum(axis=1) for part in parts)
        return topology, placement


@dataclass(frozen=True)
class SummaryRow:
    """One agent over all seeds and episodes.

    ``cost`` is the mean over episodes, in seconds. Ratios and differences are interquartile means
    with 95 % bootstrap intervals over seeds and episodes; differences are paired by episode and
    relative to never-switch's cost of the episode, negative where the agent is cheaper.
    ``best_online`` is the online rule among the agents that is cheapest on these very episodes, the
    hardest to beat; ``best_blind`` the cheapest of those that do not look at the queue.
    ``regret_closed`` = (best online - agent) / (best online - clairvoyant) in mean cost, NaN (n/a)
    where the two are equal or no online rule took part; ``regret_closed_blind`` from the best
    blind. Step times are seconds over all steps, waiting included; NaN where they are not known.
    """

    agent: str
    seeds: int
    episodes: int
    cost: float
    ratio_to_never_switch: Estimate
    ratio_to_clairvoyant: Estimate
    ratio_to_bound: Estimate
    difference_to_never_switch: Estimate
    difference_to_best_online: Estimate
    difference_to_best_blind: Estimate
    regret_closed: Estimate
    regret_closed_blind: Estimate
    best_online: str
    best_blind: str
    switches_per_100_epochs: float
    topology_switches_per_100_epochs: float
    placement_switches_per_100_epochs: float
    step_p50_s: float
    step_p95_s: float
    step_p99_s: float
    switching: str

    def columns(self) -> dict[str, object]:
        """Return the row flat: an estimate as three columns."""
        found: dict[str, object] = {}
        for name, value in vars(self).items():
            found |= value.columns(name) if isinstance(value, Estimate) else {name: value}
        return found


def summarise(runs: Mapping[tuple[str, int], Run], seed: int) -> tuple[SummaryRow, ...]:
    """Return a row an agent; its numbers depend on no other agent but the best online rules."""
    by_agent: dict[str, list[Run]] = {}
    for (name, _), run in runs.items():
        by_agent.setdefault(name, []).append(run)
    online, blind = (
        min(
            (name for name in rules if name in by_agent),
            key=lambda name: float(np.mean([run.cost.mean() for run in by_agent[name]])),
            default="",
        )
        for rules in (ONLINE, ONLINE_BLIND)
    )
    return tuple(
        _row(name, own, by_agent.get(online, []), by_agent.get(blind, []), (online, blind), seed)
        for name, own in by_agent.items()
    )


def _row(
    name: str,
    runs: list[Run],
    online: list[Run],
    blind: list[Run],
    best: tuple[str, str],
    seed: int,
) -> SummaryRow:
    shared = len({run.timeline for run in runs}) < len(runs)
    cost, never, optimum, bound = (
        np.stack([getattr(run, part) for run in runs])
        for part in ("cost", "never", "optimum", "bound")
    )
    picks = sample_index(len(cost), cost.shape[1], DRAWS, np.random.default_rng(seed), shared)

    def ratio(base: FloatArray) -> Estimate:
        equal = (base == 0) & (cost == 0)
        with np.errstate(divide="ignore"):
            values = np.where(equal, 1.0, cost / np.where(equal, 1.0, base))
        return iqm_estimate(values, picks)

    def against(rule: list[Run]) -> tuple[Estimate, Estimate]:
        """Return the paired difference to a rule and the regret closed from it."""
        if not rule:
            return UNKNOWN, UNKNOWN
        base = np.stack([_on(rule, run.timeline) for run in runs])
        gap = base - optimum
        difference = iqm_estimate((cost - base) / np.maximum(never, 1e-300), picks)
        if gap.sum() <= LEAST_GAP * optimum.sum():
            return difference, UNKNOWN
        return difference, share_estimate(base - cost, gap, picks)

    to_online, closed = against(online)
    to_blind, closed_blind = against(blind)
    switched = [run.rollout.switched.mean() for run in runs]
    topology, placement = np.stack([run.switches() for run in runs], axis=1)
    epochs = runs[0].rollout.choice.shape[1]
    times = percentiles(
        np.concatenate([run.seconds.ravel() for run in runs]),
        np.concatenate([run.weight.ravel() for run in runs]),
    )
    return SummaryRow(
        agent=name,
        seeds=cost.shape[0],
        episodes=cost.shape[1],
        cost=float(cost.mean()),
        ratio_to_never_switch=ratio(never),
        ratio_to_clairvoyant=ratio(optimum),
        ratio_to_bound=UNKNOWN if np.isnan(bound).any() else ratio(bound),
        difference_to_never_switch=iqm_estimate((cost - never) / np.maximum(never, 1e-300), picks),
        difference_to_best_online=to_online,
        difference_to_best_blind=to_blind,
        regret_closed=closed,
        regret_closed_blind=closed_blind,
        best_online=best[0],
        best_blind=best[1],
        switches_per_100_epochs=100.0 * float(np.mean(switched)),
        topology_switches_per_100_epochs=100.0 * float(topology.mean()) / epochs,
        placement_switches_per_100_epochs=100.0 * float(placement.mean()) / epochs,
        step_p50_s=times[0],
        step_p95_s=times[1],
        step_p99_s=times[2],
        switching=runs[0].problem.switching,
    )


def _on(rule: list[Run], timeline: int) -> FloatArray:
    """Return what a rule's episodes of a timeline cost, the mean over its seeds there."""
    return np.asarray(np.mean([run.cost for run in rule if run.timeline == timeline], axis=0))
