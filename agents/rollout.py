"""Run a policy over episodes, all of them side by side."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.agents.clairvoyant import Clairvoyant
from topomoe.agents.policy import Policy, check_fits
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import begin, observe, step
from topomoe.topologies.errors import InputError


@dataclass(frozen=True, eq=False)
class Rollout:
    """What a policy did in n episodes of H epochs.

    Attributes:
        epoch: int64 [n, H], epochs on the timeline.
        choice: int64 [n, H], the configuration of each epoch.
        cost: float64 [n, H], seconds, switching included.
        reconfiguration: float64 [n, H], the seconds of it that rewiring took.
        migration: float64 [n, H], the seconds of it that moving experts took.
        switched: bool [n, H].
        components: the parts of the epochs' cost by name, float64 [n, H] each.
        deciding: seconds that the policy took to decide, all calls together.
    """

    epoch: NDArray[np.int64]
    choice: NDArray[np.int64]
    cost: NDArray[np.float64]
    reconfiguration: NDArray[np.float64]
    migration: NDArray[np.float64]
    switched: NDArray[np.bool_]
    components: dict[str, NDArray[np.float64]]
    deciding: float


def layout_of(policy: Policy, problem: SwitchingProblem) -> ObservationLayout:
    """Return how a policy's observations are laid out; the problem's own where it does not say."""
    return getattr(policy, "layout", None) or ObservationLayout.of(problem)


def rollout(policy: Policy, problem: SwitchingProblem, starts: ArrayLike | None = None) -> Rollout:
    """Run ``policy`` through the episodes with first epochs ``starts`` (None: end to end).

    Raises:
        InputError: the policy is for another number of configurations or features, or what it
            returns is no action for each episode.
    """
    layout = layout_of(policy, problem)
    check_fits(layout, problem)
    state = begin(problem, problem.episodes() if starts is None else starts)
    memory: Any = state.start if isinstance(policy, Clairvoyant) else None
    first = np.ones(state.start.size, dtype=np.bool_)
    outcomes = []
    deciding = 0.0
    for _ in range(problem.episode_length):
        observation = observe(problem, state, layout)
        began = time.perf_counter()
        returned = policy.predict(observation, memory, first)
        deciding += time.perf_counter() - began
        action, memory = _checked(returned)
        state, _, outcome = step(problem, state, action)
        outcomes.append(outcome)
        first = np.zeros_like(first)
    return Rollout(
        epoch=np.stack([outcome.epoch for outcome in outcomes], axis=1),
        choice=np.stack([outcome.configuration for outcome in outcomes], axis=1),
        cost=np.stack([outcome.cost for outcome in outcomes], axis=1),
        reconfiguration=np.stack([outcome.reconfiguration for outcome in outcomes], axis=1),
        migration=np.stack([outcome.migration for outcome in outcomes], axis=1),
        switched=np.stack([outcome.switched for outcome in outcomes], axis=1),
        components={
            name: np.stack([outcome.components[name] for outcome in outcomes], axis=1)
            for name in problem.components
        },
        deciding=deciding,
    )


def _checked(returned: Any) -> tuple[NDArray[Any], Any]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise InputError("predict must return (actions, state)")
    try:
        return np.asarray(returned[0]), returned[1]
    except (TypeError, ValueError):
        raise InputError("predict must return an array of actions") from None
