"""Run a policy over episodes, all of them side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.agents.clairvoyant import Clairvoyant
from topomoe.agents.policy import Policy, check_fits
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import begin, observe, step


@dataclass(frozen=True, eq=False)
class Rollout:
    """What a policy did in n episodes of H epochs.

    Attributes:
        epoch: int64 [n, H], epochs on the timeline.
        choice: int64 [n, H], the configuration of each epoch.
        cost: float64 [n, H], seconds, switching included.
        reconfiguration: float64 [n, H], the seconds of it that switching took.
        switched: bool [n, H].
        components: the parts of the epochs' cost by name, float64 [n, H] each.
    """

    epoch: NDArray[np.int64]
    choice: NDArray[np.int64]
    cost: NDArray[np.float64]
    reconfiguration: NDArray[np.float64]
    switched: NDArray[np.bool_]
    components: dict[str, NDArray[np.float64]]


def rollout(policy: Policy, problem: SwitchingProblem, starts: ArrayLike | None = None) -> Rollout:
    """Run ``policy`` through the episodes with first epochs ``starts`` (None: end to end).

    Raises:
        InputError: the policy is for another number of configurations or features.
    """
    check_fits(policy.layout, problem)
    state = begin(problem, problem.episodes() if starts is None else starts)
    memory: Any = state.start if isinstance(policy, Clairvoyant) else None
    first = np.ones(state.start.size, dtype=np.bool_)
    outcomes = []
    for _ in range(problem.episode_length):
        observation = observe(problem, state, policy.layout)
        action, memory = policy.predict(observation, memory, first)
        state, _, outcome = step(problem, state, action)
        outcomes.append(outcome)
        first = np.zeros_like(first)
    return Rollout(
        epoch=np.stack([outcome.epoch for outcome in outcomes], axis=1),
        choice=np.stack([outcome.configuration for outcome in outcomes], axis=1),
        cost=np.stack([outcome.cost for outcome in outcomes], axis=1),
        reconfiguration=np.stack([outcome.reconfiguration for outcome in outcomes], axis=1),
        switched=np.stack([outcome.switched for outcome in outcomes], axis=1),
        components={
            name: np.stack([outcome.components[name] for outcome in outcomes], axis=1)
            for name in problem.components
        },
    )
