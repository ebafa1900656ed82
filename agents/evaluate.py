"""Compare policies on held-out timelines, episode by episode, against the clairvoyant optimum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from topomoe.agents.clairvoyant import plan
from topomoe.agents.policy import Policy
from topomoe.agents.rollout import layout_of, rollout
from topomoe.agents.static import Fixed
from topomoe.agents.step_times import percentiles, step_times
from topomoe.agents.summary import Run, SummaryRow, summarise
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

Policies = Mapping[str, Policy | Mapping[int, Policy]]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What ``evaluate`` found.

    Attributes:
        runs: by (agent, seed), in the order of the agents.
        summary: one row an agent.
    """

    runs: Mapping[tuple[str, int], Run]
    summary: tuple[SummaryRow, ...]

    def to_frame(self) -> pd.DataFrame:
        """Return a row an agent, seed and episode; costs and step times in seconds."""
        import pandas

        tables = []
        for (agent, seed), run in self.runs.items():
            cost, bound = run.cost, run.bound
            topology, placement = run.switches()
            parts = {f"{name}_s": part for name, part in run.rollout.components.items()}
            parts |= {
                "reconfiguration_s": run.rollout.reconfiguration,
                "migration_s": run.rollout.migration,
            }
            times = [percentiles(s, w) for s, w in zip(run.seconds, run.weight, strict=True)]
            tables.append(
                pandas.DataFrame(
                    {
                        "agent": agent,
                        "seed": seed,
                        "episode": np.arange(len(cost)),
                        "cost": cost,
                        "ratio_to_never_switch": _ratio(cost, run.never),
                        "ratio_to_clairvoyant": _ratio(cost, run.optimum),
                        "ratio_to_bound": _ratio(cost, bound),
                        "switches": run.rollout.switched.sum(axis=1),
                        "topology_switches": topology,
                        "placement_switches": placement,
                        **{name: part.sum(axis=1) for name, part in parts.items()},
                        "step_p50_s": [time[0] for time in times],
                        "step_p95_s": [time[1] for time in times],
                        "step_p99_s": [time[2] for time in times],
                        "switching": run.problem.switching,
                    }
                )
            )
        return pandas.concat(tables, ignore_index=True)

    def summary_frame(self) -> pd.DataFrame:
        """Return ``summary`` as a table: an estimate is three columns, NaN where it is n/a."""
        import pandas

        return pandas.DataFrame([row.columns() for row in self.summary])

    def timeline_frame(self, episodes: int | None = None) -> pd.DataFrame:
        """Return every epoch of each agent's first episodes (None: all): its choice and cost."""
        import pandas

        tables = []
        for (agent, seed), run in self.runs.items():
            problem, chosen = run.problem, run.rollout.choice[:episodes]
            names = np.array(problem.names, dtype=object)
            topologies = np.array(problem.topologies, dtype=object)
            placements = np.array(problem.placements or ("",), dtype=object)
            choice = chosen.ravel()
            parts = {f"{name}_s": part for name, part in run.rollout.components.items()}
            parts |= {
                "reconfiguration_s": run.rollout.reconfiguration,
                "migration_s": run.rollout.migration,
                "cost": run.rollout.cost,
            }
            tables.append(
                pandas.DataFrame(
                    {
                        "agent": agent,
                        "seed": seed,
                        "episode": np.arange(len(chosen)).repeat(chosen.shape[1]),
                        "epoch": run.rollout.epoch[:episodes].ravel(),
                        "choice": choice,
                        "configuration": names[choice],
                        "topology": topologies[problem.topology_of(choice)],
                        "placement": placements[problem.placement_of(choice)],
                        "switched": run.rollout.switched[:episodes].ravel(),
                        **{name: part[:episodes].ravel() for name, part in parts.items()},
                        "switching": problem.switching,
                    }
                )
            )
        return pandas.concat(tables, ignore_index=True)


def evaluate(
    policies: Policies,
    test: SwitchingProblem | Mapping[int, SwitchingProblem],
    starts: ArrayLike | None = None,
    seed: int = 0,
) -> Evaluation:
    """Run every policy through the same episodes of held-out problems.

    Args:
        policies: by name, one policy or one for each training seed, ``{"ppo": {0: a, 1: b}}``;
            anything with the ``predict`` of ``Policy``.
        test: the held-out problem, or one a seed, each ``calibrated`` to the training problem. With
            several, the i-th is played by the policy of the i-th training seed, counted round;
            with one, all policies of all seeds play it.
        starts: first epochs of the episodes; None: the timelines cut end to end.
        seed: of the bootstrap.

    Raises:
        InputError: no policies, a policy does not fit the problem or returns what is no action, or
            some observe an epoch's costs beforehand and others do not.
    """
    if not policies or (isinstance(test, Mapping) and not test):
        raise InputError("policies and test must name at least one policy and one problem")
    seen: dict[str, str] = {}
    runs: dict[tuple[str, int], Run] = {}
    yardsticks: dict[int, Run] = {}
    for name, number, timeline, policy, problem in _assigned(policies, test):
        seen.setdefault(layout_of(policy, problem).observe, name)
        if timeline not in yardsticks:
            yardsticks[timeline] = _never_switch(timeline, problem, starts)
        try:
            run = rollout(policy, problem, starts)
        except InputError as error:
            raise InputError(f"agent {name}, seed {number}: {error}") from None
        base = yardsticks[timeline]
        times = step_times(problem, run.epoch, run.choice)
        runs[name, number] = Run(timeline, problem, run, base.cost, base.optimum, *times)
    if len(seen) > 1:
        raise InputError(
            f"policies must observe alike: {seen['before']!r} observes before, "
            f"{seen['after']!r} after an epoch's costs are known"
        )
    if len({run.cost.shape for run in runs.values()}) > 1:
        raise InputError("the problems must have as many episodes each")
    return Evaluation(runs, summarise(runs, seed))


def _assigned(
    policies: Policies, test: SwitchingProblem | Mapping[int, SwitchingProblem]
) -> Iterator[tuple[str, int, int, Policy, SwitchingProblem]]:
    """Yield name, seed, timeline, policy and problem of every run."""
    for name, given in policies.items():
        trained = given if isinstance(given, Mapping) else {0: given}
        if not trained:
            raise InputError(f"agent {name} must have at least one policy")
        if isinstance(test, Mapping):
            own = list(trained.values())
            for place, (number, problem) in enumerate(test.items()):
                yield name, number, number, own[place % len(own)], problem
        else:
            for number, policy in trained.items():
                yield name, number, 0, policy, test


def _never_switch(timeline: int, problem: SwitchingProblem, starts: ArrayLike | None) -> Run:
    """Return the run that stays where episodes start, with the clairvoyant's cost beside it."""
    staying = rollout(Fixed(ObservationLayout.of(problem), problem.start), problem, starts)
    optimum = plan(problem, staying.epoch[:, 0])[1]
    never = staying.cost.sum(axis=1)
    times = step_times(problem, staying.epoch, staying.choice)
    return Run(timeline, problem, staying, never, optimum, *times)


def _ratio(cost: np.ndarray, base: np.ndarray) -> np.ndarray:
    equal = (cost == 0) & (base == 0)
    with np.errstate(divide="ignore"):
        return np.where(equal, 1.0, cost / np.where(equal, 1.0, base))
