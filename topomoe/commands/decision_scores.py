"""Agents of a study of decisions: made on training timelines, scored on held-out ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.agents import fitted_q
from topomoe.agents.baselines import TUNED, baseline
from topomoe.agents.bootstrap import sample_index, share_estimate
from topomoe.agents.evaluate import Policies, evaluate
from topomoe.agents.experience import joined
from topomoe.agents.policy import Policy
from topomoe.agents.rollout import rollout
from topomoe.agents.value_settings import FittedQSettings
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.rescale import calibrated
from topomoe.envs.scenario import Problems

FloatArray = NDArray[np.float64]
NEVER, CLAIRVOYANT, FITTED, RULE = "never-switch", "clairvoyant", "fitted-q", "best rule"
RULES = (NEVER, "hysteresis", "work-function", "ema-mpc", "forecast")
"""Among which validation chooses the best rule; earlier ones win ties."""
DRAWS = 2000
QUICK = {"ridge": (0.01,), "horizons": (8,), "margins": (1.0,), "targets": ("expected",)}
"""What fitted Q tries in each cell of a map."""
THOROUGH = {"ridge": (0.01,), "margins": (1.0,)}
"""What it tries elsewhere."""


@dataclass(frozen=True, eq=False)
class Timelines:
    """Training, validation and held-out timelines by seed, calibrated to training."""

    training: SwitchingProblem
    validation: SwitchingProblem
    tests: Mapping[int, SwitchingProblem]

    @classmethod
    def of(cls, problems: Problems) -> Timelines:
        """Return a scenario's own timelines."""
        tests = {seed: test.switching for seed, test in problems.tests.items()}
        return cls.made(problems.training.switching, problems.validation.switching, tests)

    @classmethod
    def made(
        cls,
        training: SwitchingProblem,
        validation: SwitchingProblem,
        tests: Mapping[int, SwitchingProblem],
    ) -> Timelines:
        """Return these timelines, calibrated."""
        return cls(*calibrated(training, validation, tests))

    def halves(self) -> tuple[SwitchingProblem, SwitchingProblem]:
        """Return the validation episodes in two halves, whole episodes each."""
        episodes = self.validation.episodes()
        middle = int(episodes[len(episodes) // 2])
        whole = len(episodes) * self.validation.episode_length
        return self.validation.part(0, middle), self.validation.part(middle, whole)


def fitted(given: Timelines, tries: Mapping[str, Any], seed: int = 0, queue: bool = True) -> Policy:
    """Return fitted Q, which chooses what it does on the first half of validation."""
    features = ("queue-random",) if queue else ("linear", "random")
    settings = FittedQSettings(features=features, queue=queue, **tries)
    return fitted_q.train(given.training, settings, seed, given.halves()[0])


def rule(name: str, given: Timelines, queue: bool = True) -> Policy:
    """Return a rule, tuned on what fitted Q sees: training and the first half of validation."""
    seen = given.training
    if name in TUNED:
        seen = joined(seen, given.halves()[0], alike=False)
    return baseline(name, seen, given.validation, queue=queue)


def clairvoyant(given: Timelines) -> dict[int, Policy]:
    """Return the exact optimum of each held-out timeline."""
    return {seed: baseline(CLAIRVOYANT, given.training, test) for seed, test in given.tests.items()}


def cheapest(policies: Mapping[str, Policy], problem: SwitchingProblem) -> str:
    """Return the policy whose episodes cost least; the earlier of equals."""
    costs = {name: float(rollout(policy, problem).cost.sum()) for name, policy in policies.items()}
    return min(costs, key=lambda name: costs[name])


def contenders(
    given: Timelines, tries: Mapping[str, Any], seed: int = 0
) -> tuple[dict[str, Policy], str]:
    """Return never-switch, the rule that validation chooses and fitted Q; and the rule's name."""
    rules = {name: rule(name, given) for name in RULES}
    best = cheapest(rules, given.halves()[1])
    return {NEVER: rules[NEVER], RULE: rules[best], FITTED: fitted(given, tries, seed)}, best


@dataclass(frozen=True, eq=False)
class Scores:
    """Seconds of the held-out episodes, [seeds, episodes], and switches in 100 epochs, by agent."""

    cost: Mapping[str, FloatArray]
    topology_switches: Mapping[str, float]
    placement_switches: Mapping[str, float]
    never: FloatArray

    def rows(self, agents: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return a row an agent: its cost over never-switch's with a 95 % bootstrap interval."""
        return [
            {
                "agent": agent,
                "cost_s": float(self.cost[agent].mean()),
                **share_columns(self.cost[agent], self.never),
                "topology_switches_per_100_epochs": self.topology_switches[agent],
                "placement_switches_per_100_epochs": self.placement_switches[agent],
            }
            for agent in agents or self.cost
        ]


def share_columns(part: FloatArray, whole: FloatArray) -> dict[str, float]:
    """Return the sum of ``part`` over that of ``whole``, [seeds, episodes], and its interval."""
    seeds, episodes = whole.shape
    picks = sample_index(seeds, episodes, DRAWS, np.random.default_rng(0), shared=False)
    found = share_estimate(part, whole, picks)
    return {"ratio": found.value, "low": found.low, "high": found.high}


def score(policies: Policies, given: Timelines) -> Scores:
    """Return what the policies' held-out episodes cost; never-switch's is the yardstick."""
    runs = evaluate(policies, given.tests).runs
    cost: dict[str, FloatArray] = {}
    topology: dict[str, float] = {}
    placement: dict[str, float] = {}
    for agent in policies:
        own = [runs[agent, seed] for seed in given.tests]
        switches = np.array([run.switches() for run in own], dtype=np.float64)
        per_epoch = 100.0 / given.training.episode_length
        cost[agent] = np.stack([run.cost for run in own])
        topology[agent] = per_epoch * float(switches[:, 0].mean())
        placement[agent] = per_epoch * float(switches[:, 1].mean())
        never = np.stack([run.never for run in own])
    return Scores(cost, topology, placement, never)
