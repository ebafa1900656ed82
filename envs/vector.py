"""Many copies of the switching environment stepped together on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.resolve import resolve
from topomoe.envs.switching import make_spaces, reset_info, step_info
from topomoe.envs.transition import State, begin, first_epoch, observe, step
from topomoe.topologies.errors import InputError

Observations: TypeAlias = NDArray[np.float32]


class TopologySwitchVectorEnv(VectorEnv[Observations, NDArray[np.int64], NDArray[Any]]):
    """Copies of ``TopologySwitchEnv``: copy i behaves as the single one seeded ``seed + i``.

    A copy whose episode ends is reset in the same step (``AutoresetMode.SAME_STEP``): the returned
    observation is the next episode's first, and ``info["final_obs"]`` and ``info["final_info"]``
    hold the last of the old one, as Gymnasium's own vector environments have it.

    Args:
        num_envs: number of copies, >= 1.
        problem: the problem, the path of a stored one, or None for a small built-in one.
        observe: see ``TopologySwitchEnv``.
        queue: see ``TopologySwitchEnv``.

    Raises:
        InputError: an argument or an action is wrong.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        problem: SwitchingProblem | str | Path | None = None,
        observe: str = "before",
        queue: bool = True,
    ) -> None:
        if num_envs < 1:
            raise InputError(f"num_envs must be >= 1, got {num_envs}")
        self.num_envs = num_envs
        self.problem = resolve(problem)
        self.layout = ObservationLayout.of(self.problem, observe, queue)
        self.single_observation_space, self.single_action_space = make_spaces(self.layout)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._state: State | None = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Start all copies; ``options={"episode": i}`` takes one number, or one for each copy."""
        seeds: list[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif isinstance(seed, (int, np.integer)):
            seeds = [int(seed) + copy for copy in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"seed must be one number or {self.num_envs}, got {len(seeds)}")
        for copy, one in enumerate(seeds):
            if one is not None or self._generators[copy] is None:
                self._generators[copy] = seeding.np_random(one)[0]
        given = dict(options or {})
        episodes = np.broadcast_to(np.asarray(given.pop("episode", None)), self.num_envs).tolist()
        starts = [
            self._first_epoch(copy, {**given, "episode": episode})
            for copy, episode in enumerate(episodes)
        ]
        self._state = begin(self.problem, starts)
        infos: dict[str, Any] = {}
        for key, value in reset_info(self.problem, self._state):
            infos[key], infos[f"_{key}"] = value, np.ones(self.num_envs, dtype=np.bool_)
        return observe(self.problem, self._state, self.layout), infos

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Set every copy's configuration and run one epoch."""
        if self._state is None:
            raise InputError("reset must be called before step")
        state, reward, outcome = step(self.problem, self._state, actions)
        observation = observe(self.problem, state, self.layout)
        over = state.done == self.problem.episode_length
        infos: dict[str, Any] = {}
        every = np.ones(self.num_envs, dtype=np.bool_)
        for key, value in step_info(self.problem, outcome):
            infos[key], infos[f"_{key}"] = value, every
        if over.any():
            infos, observation, state = self._restart(state, over, observation, infos)
        self._state = state
        return observation, reward, over, np.zeros_like(over), infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Which configurations may be chosen, bool [num_envs, K]: all of them."""
        return np.ones((self.num_envs, self.problem.num_configurations), dtype=np.bool_)

    def _first_epoch(self, copy: int, options: dict[str, Any] | None) -> int:
        generator = self._generators[copy]
        assert generator is not None
        return first_epoch(self.problem, options, generator)

    def _restart(
        self, state: State, over: NDArray[np.bool_], last: Observations, infos: dict[str, Any]
    ) -> tuple[dict[str, Any], Observations, State]:
        """Reset the copies that are ``over``; what they ended with becomes ``final_*``."""
        ended: list[int] = over.nonzero()[0].tolist()
        fresh = begin(self.problem, [self._first_epoch(copy, None) for copy in ended])
        merged = {}
        for name in ("start", "done", "configuration", "average"):
            merged[name] = getattr(state, name).copy()
            merged[name][over] = getattr(fresh, name)
        restarted = State(**merged)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for copy in ended:
            final_obs[copy] = last[copy]
        final_info: dict[str, Any] = {}
        started = dict(reset_info(self.problem, restarted))
        running: dict[str, Any] = {}
        for key, value in infos.items():
            if key.startswith("_"):
                continue
            final_info[key], final_info[f"_{key}"] = np.where(over, value, _zero(value)), over
            # A restarted copy's info is its reset's, which has no costs yet.
            if key in started:
                new = np.where(over, started[key], value)
                running[key], running[f"_{key}"] = new, np.ones_like(over)
            elif not over.all():
                running[key], running[f"_{key}"] = np.where(over, _zero(value), value), ~over
        running["final_obs"], running["_final_obs"] = final_obs, over
        running["final_info"], running["_final_info"] = final_info, over
        first = observe(self.problem, restarted, self.layout)
        return running, np.where(over[:, None], first, last), restarted


def _zero(value: NDArray[Any]) -> NDArray[Any]:
    return np.full_like(value, None) if value.dtype == object else np.zeros_like(value)
