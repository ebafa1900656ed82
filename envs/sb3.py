"""The vector environments as Stable-Baselines3 wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from topomoe.envs.resolve import Given
from topomoe.envs.vector import TopologySwitchVectorEnv
from topomoe.topologies.errors import InputError, unknown

_OWN = ("returns", "lengths", "actions", "observation")
INFOS = ("lean", "full")
_NOTHING: Any = MappingProxyType({})  # one for all copies of which there is nothing to say


class SB3VecEnv(VecEnv):
    """A vector environment of this project with the conventions of Stable-Baselines3's ``VecEnv``.

    Same trajectories as ``DummyVecEnv`` over the single environment: a copy that is done returns
    its next episode's first observation, and its info holds ``terminal_observation``,
    ``TimeLimit.truncated`` (whether the episode was cut off rather than ended) and ``episode``
    (``r`` the summed reward, ``l`` the length), which Stable-Baselines3 logs.

    With ``infos="lean"`` nothing is done copy by copy while no episode ends: infos of copies that
    are not done are empty and read-only. ``epochs`` tells which epoch each copy has just run.

    Args:
        num_envs: number of copies.
        problem: see ``TopologySwitchEnv``.
        observe: see ``TopologySwitchEnv``.
        queue: see ``TopologySwitchEnv``.
        infos: ``lean``, or ``full``: every step's info for every copy.

    Attributes:
        copies: the vector environment.
        problem: its problem.
        layout: of its observations.
        epochs: int64 [n], the epoch on the timeline that each copy ran in the last step; after
            ``reset`` the first of its episode.

    Raises:
        InputError: an argument or an action is wrong.
    """

    def __init__(
        self,
        num_envs: int,
        problem: Given = None,
        observe: str = "before",
        queue: bool = True,
        infos: str = "lean",
    ) -> None:
        self._wrap(TopologySwitchVectorEnv(num_envs, problem, observe, queue), infos)

    @classmethod
    def of(cls, copies: VectorEnv[Any, Any, Any], infos: str = "lean") -> SB3VecEnv:
        """Return the adaptor of any vector environment that resets copies in the same step.

        Args:
            copies: has ``problem`` and ``layout``, takes ``options={"episode": ...}``, and its
                infos hold ``epoch``.
            infos: ``lean`` or ``full``.
        """
        adaptor = cls.__new__(cls)
        adaptor._wrap(copies, infos)
        return adaptor

    def _wrap(self, copies: Any, infos: str) -> None:
        if infos not in INFOS:
            raise unknown("infos", infos, INFOS)
        if copies.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise InputError("copies must be reset in the step that ends their episode")
        self.copies = copies
        self.problem = copies.problem
        self.layout = copies.layout
        self.infos = infos
        self.epochs = np.zeros(copies.num_envs, dtype=np.int64)
        self._actions = np.zeros(copies.action_space.shape, dtype=np.int64)
        self._returns = np.zeros(copies.num_envs)
        self._lengths = np.zeros(copies.num_envs, dtype=np.int64)
        self._observation: NDArray[np.float32] | None = None
        super().__init__(
            copies.num_envs, copies.single_observation_space, copies.single_action_space
        )

    def reset(self) -> NDArray[np.float32]:
        """Start all copies with the seeds and options set beforehand, and return observations."""
        given = [options.get("episode") for options in self._options]
        if any(set(options) - {"episode"} for options in self._options):
            raise InputError("options must be 'episode' alone")
        observation: NDArray[np.float32]
        observation, infos = self.copies.reset(seed=self._seeds, options={"episode": given})
        self.reset_infos = _rows(infos, range(self.num_envs))
        self._reset_seeds()
        self._reset_options()
        self._returns[:], self._lengths[:] = 0.0, 0
        self.epochs = infos["epoch"]
        self._observation = observation
        return observation

    def step_async(self, actions: NDArray[np.int64]) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = np.asarray(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Step all copies; rewards are float32, as ``DummyVecEnv`` has them."""
        observation, reward, ended, cut, infos = self.copies.step(self._actions)
        self._observation = observation
        self._returns += reward
        self._lengths += 1
        done = ended | cut
        self.epochs = infos["epoch"]
        rows = [_NOTHING] * self.num_envs
        if self.infos == "full":
            rows = _rows(_running(infos), range(self.num_envs))
            for row in rows:
                row["TimeLimit.truncated"] = False
        if done.any():
            final = infos["final_info"]
            self.epochs = np.where(done, final["epoch"], infos["epoch"])
            over = done.nonzero()[0].tolist()
            fresh, last = _rows(_running(infos), over), _rows(final, over)
            returns, lengths = self._returns[over].tolist(), self._lengths[over].tolist()
            truncated = (cut & ~ended)[over].tolist()
            for position, copy in enumerate(over):
                rows[copy] = last[position]
                rows[copy]["terminal_observation"] = infos["final_obs"][copy]
                rows[copy]["episode"] = {"r": returns[position], "l": lengths[position]}
                rows[copy]["TimeLimit.truncated"] = truncated[position]
                self.reset_infos[copy] = fresh[position]
            self._returns[over], self._lengths[over] = 0.0, 0
        return observation, reward.astype(np.float32), done, rows

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return where all copies stand, as arrays by name that ``load_state_dict`` takes.

        They are the copies' own, and ``returns``, ``lengths`` of the episodes so far, ``epochs``,
        ``actions`` (the last ones) and ``observation`` (the last returned).

        Raises:
            InputError: the copies have not been reset yet.
        """
        if self._observation is None:
            raise InputError("reset must be called before state_dict")
        own = {name: np.array(getattr(self, f"_{name}")) for name in _OWN}
        return {**self.copies.state_dict(), **own, "epochs": self.epochs.copy()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue where ``state_dict`` was taken: the same actions give the same steps.

        Raises:
            InputError: this is not the state of so many copies of this problem.
        """
        given = dict(state)
        try:
            own = {name: np.array(given.pop(name)) for name in (*_OWN, "epochs")}
        except KeyError as error:
            raise InputError(f"the copies' state must hold {error.args[0]!r}") from None
        shape = (self.num_envs, *(self.observation_space.shape or ()))
        wanted: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "returns": (shape[:1], np.float64),
            "lengths": (shape[:1], np.int64),
            "actions": (self._actions.shape, np.integer),
            "epochs": (shape[:1], np.int64),
            "observation": (shape, np.float32),
        }
        for name, (size, kind) in wanted.items():
            if own[name].shape != size or not np.issubdtype(own[name].dtype, kind):
                raise InputError(
                    f"{name} must be {kind.__name__} {list(size)} in the copies' state, "
                    f"got {own[name].dtype} {list(own[name].shape)}"
                )
            if not np.isfinite(own[name]).all():
                raise InputError(f"{name} must be finite in the copies' state")
        self.copies.load_state_dict(given)
        self._returns, self._lengths = own["returns"], own["lengths"]
        self._observation, self._actions = own["observation"], own["actions"]
        self.epochs = own["epochs"]

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


def _running(infos: dict[str, Any]) -> dict[str, Any]:
    """Return what infos say of the episodes under way, which a reset has just begun for some."""
    ended = ("final_obs", "_final_obs", "final_info", "_final_info")
    return {key: value for key, value in infos.items() if key not in ended}


def _rows(infos: dict[str, Any], copies: Sequence[int]) -> list[dict[str, Any]]:
    """Turn arrays by name into one dict for each of some copies, without what it does not have."""
    rows: list[dict[str, Any]] = [{} for _ in copies]
    chosen = np.asarray(copies)
    for key, value in infos.items():
        if key.startswith("_"):
            continue
        has = infos[f"_{key}"][chosen].tolist()
        for row, item, there in zip(rows, value[chosen].tolist(), has, strict=True):
            if there:
                row[key] = item
    return rows
