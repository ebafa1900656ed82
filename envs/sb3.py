"""The vector environment as Stable-Baselines3 wants it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.vector import TopologySwitchVectorEnv
from topomoe.topologies.errors import InputError


class SB3VecEnv(VecEnv):
    """``TopologySwitchVectorEnv`` with the conventions of Stable-Baselines3's ``VecEnv``.

    Same trajectories as ``DummyVecEnv`` over ``TopologySwitchEnv``: a copy that is done returns
    its next episode's first observation, and its info holds ``terminal_observation``,
    ``TimeLimit.truncated`` (False: the end of an episode is part of the problem) and ``episode``
    (``r`` the summed reward, ``l`` the length), which Stable-Baselines3 logs.

    Args:
        num_envs: number of copies.
        problem: see ``TopologySwitchEnv``.
        observe: see ``TopologySwitchEnv``.
        queue: see ``TopologySwitchEnv``.
    """

    def __init__(
        self,
        num_envs: int,
        problem: SwitchingProblem | str | Path | None = None,
        observe: str = "before",
        queue: bool = True,
    ) -> None:
        self.copies = TopologySwitchVectorEnv(num_envs, problem, observe, queue)
        self.problem = self.copies.problem
        self.layout = self.copies.layout
        self._actions = np.zeros(num_envs, dtype=np.int64)
        self._returns = np.zeros(num_envs)
        super().__init__(
            num_envs, self.copies.single_observation_space, self.copies.single_action_space
        )

    def reset(self) -> NDArray[np.float32]:
        """Start all copies with the seeds and options set beforehand, and return observations."""
        given = [options.get("episode") for options in self._options]
        if any(set(options) - {"episode"} for options in self._options):
            raise InputError("options must be 'episode' alone")
        observation, infos = self.copies.reset(seed=self._seeds, options={"episode": given})
        self.reset_infos = _rows(infos, self.num_envs)
        self._reset_seeds()
        self._reset_options()
        self._returns[:] = 0.0
        return observation

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step all copies; rewards are float32, as ``DummyVecEnv`` has them."""
        observation, reward, done, _, infos = self.copies.step(self._actions)
        self._returns += reward
        rows = _rows(infos.get("final_info", infos), self.num_envs)
        if done.any():
            running = _rows({k: v for k, v in infos.items() if "final" not in k}, self.num_envs)
            for copy in range(self.num_envs):
                if done[copy]:
                    self.reset_infos[copy] = running[copy]
                    rows[copy]["terminal_observation"] = infos["final_obs"][copy]
                    rows[copy]["episode"] = {
                        "r": float(self._returns[copy]),
                        "l": self.problem.episode_length,
                    }
                else:
                    rows[copy] = running[copy]
            self._returns[done] = 0.0
        for row in rows:
            row["TimeLimit.truncated"] = False
        return observation, reward.astype(np.float32), done, rows

    def close(self) -> None:
        """Release the copies."""
        self.copies.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute that all copies share, once for each copy asked for."""
        value = getattr(self.copies, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refuse: the copies are rows of arrays and share every attribute."""
        raise InputError(f"cannot set {attr_name!r}: the copies are not separate objects")

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call a method that returns one row a copy, such as ``action_masks``."""
        rows = getattr(self.copies, method_name)(*method_args, **method_kwargs)
        return [rows[copy] for copy in self._get_indices(indices)]

    def env_is_wrapped(
        self,
        wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]],
        indices: VecEnvIndices = None,
    ) -> list[bool]:
        """Return False for each copy: none is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Return no pictures: ``TopologySwitchEnv`` draws them."""
        return [None] * self.num_envs


def _rows(infos: dict[str, Any], copies: int) -> list[dict[str, Any]]:
    """Turn arrays by name into one dict a copy, leaving out what a copy does not have."""
    rows: list[dict[str, Any]] = [{} for _ in range(copies)]
    for key, value in infos.items():
        if key.startswith("_"):
            continue
        has = infos[f"_{key}"].tolist()
        for row, item, there in zip(rows, value.tolist(), has, strict=True):
            if there:
                row[key] = item
    return rows
