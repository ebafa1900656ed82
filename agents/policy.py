"""What a policy is: Stable-Baselines3's ``predict``, on a batch of observations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError


class Policy(Protocol):
    """Anything that chooses configurations from observations laid out as ``layout``."""

    @property
    def layout(self) -> ObservationLayout:
        """How the observations it expects are laid out."""

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return the actions [n] (or one, for one observation) and the state to pass next time."""


class BatchPolicy(ABC):
    """A policy whose subclasses write ``choose`` for a batch; ``predict`` checks shapes.

    Args:
        layout: how observations are laid out.
    """

    def __init__(self, layout: ObservationLayout) -> None:
        self.layout = layout

    @abstractmethod
    def choose(
        self,
        observation: NDArray[np.float32],
        state: Any,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return actions [n] and the next state for observations [n, layout.size]."""

    def predict(
        self,
        observation: NDArray[np.float32],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return the actions for observations [n, size], or one action for one [size].

        Args:
            observation: float32, laid out as ``layout``.
            state: what the last call returned; None at first.
            episode_start: bool [n], which copies begin an episode; None: those of a first call.
            deterministic: False lets a policy that can explore do so.

        Raises:
            InputError: the observation has another size: it comes from another environment.
        """
        given = np.asarray(observation, dtype=np.float32)
        batch = np.atleast_2d(given)
        if batch.ndim != 2 or batch.shape[1] != self.layout.size:
            raise InputError(
                f"observation must have shape [n, {self.layout.size}], got {list(given.shape)}"
            )
        if episode_start is None:
            starts = np.full(len(batch), state is None)
        else:
            starts = np.broadcast_to(np.asarray(episode_start, dtype=np.bool_), len(batch))
        actions, after = self.choose(batch, state, starts, deterministic)
        return (actions if given.ndim == 2 else np.asarray(actions[0])), after

    def current(self, observation: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the configuration set now, int64 [n]."""
        return np.asarray(observation[:, self.layout["current"]].argmax(axis=1), dtype=np.int64)


def check_fits(layout: ObservationLayout, problem: SwitchingProblem) -> None:
    """Raise InputError unless ``layout`` can describe the observations of ``problem``."""
    own = (layout.num_configurations, layout.num_features)
    other = (problem.num_configurations, len(problem.feature_names))
    if layout.num_demand != len(problem.demand_names):
        raise InputError(
            f"the policy is for {layout.num_demand} statistics of the demand, "
            f"the problem has {len(problem.demand_names)}"
        )
    if own[0] != other[0] or (layout.queue and own[1] != other[1]):
        raise InputError(
            f"the policy is for {own[0]} configurations and {own[1]} features, "
            f"the problem has {other[0]} and {other[1]}"
        )
