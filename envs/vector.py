"""Many copies of the switching environment stepped together on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from topomoe.envs.autoreset import every, reset_options, restarted
from topomoe.envs.codesign_source import given_or_scenario
from topomoe.envs.generators import pack, seed_copies, unpack
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.resolve import Given, library_table
from topomoe.envs.switching import InfoMaker, make_spaces
from topomoe.envs.transition import State, begin, check_actions, first_epoch
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    from topomoe.envs.transition_kernel import Tables

Observations: TypeAlias = NDArray[np.float32]
_STATE = tuple(field.name for field in fields(State))


class TopologySwitchVectorEnv(VectorEnv[Observations, NDArray[np.int64], NDArray[Any]]):
    """Copies of ``TopologySwitchEnv``: copy i behaves as the single one seeded ``seed + i``.

    A copy whose episode ends is reset in the same step (``AutoresetMode.SAME_STEP``): the returned
    observation is the next episode's first, and ``info["final_obs"]`` and ``info["final_info"]``
    hold the last of the old one, as Gymnasium's own vector environments have it.

    Args:
        num_envs: number of copies, >= 1.
        problem: see ``TopologySwitchEnv``.
        observe: see ``TopologySwitchEnv``.
        queue: see ``TopologySwitchEnv``.
        scenario: see ``TopologySwitchEnv``, and there ``trace``, ``seed`` and ``part``.

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
        problem: Given = None,
        observe: str = "before",
        queue: bool = True,
        scenario: str | Path | None = None,
        trace: str = "",
        seed: int = 0,
        part: str = "training",
    ) -> None:
        if num_envs < 1:
            raise InputError(f"num_envs must be >= 1, got {num_envs}")
        self.num_envs = num_envs
        self.problem = library_table(given_or_scenario(problem, scenario, trace, seed, part))
        self.layout = ObservationLayout.of(self.problem, observe, queue)
        self.single_observation_space, self.single_action_space = make_spaces(self.layout)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._info = InfoMaker.of(self.problem)
        self._state: State | None = None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observations, dict[str, Any]]:
        """Start all copies; ``options={"episode": i}`` takes one number, or one for each copy."""
        self._generators = list(seed_copies(self._generators, seed))
        starts = [
            self._first_epoch(copy, own)
            for copy, own in enumerate(reset_options(options, self.num_envs))
        ]
        self._state = begin(self.problem, starts)
        # The kernel moves these arrays on in place, so what is handed out are copies.
        infos = {key: value.copy() for key, value in self._info.reset(self._state)}
        return self._tables.observe(self._state), every(infos, self.num_envs)

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Set every copy's configuration and run one epoch."""
        if self._state is None:
            raise InputError("reset must be called before step")
        chosen = check_actions(actions, self.num_envs, self.problem.num_configurations)
        reward, outcome = self._tables.step(self._state, chosen)
        observation = self._tables.observe(self._state)
        over = self._state.done == self.problem.episode_length
        infos = dict(self._info.step(outcome))
        if not over.any():
            return observation, reward, over, np.zeros_like(over), every(infos, self.num_envs)
        self._restart(self._state, over)
        said = restarted(infos, dict(self._info.reset(self._state)), over, observation)
        observation = self._tables.observe(self._state)
        return observation, reward, over, np.zeros_like(over), said

    def action_masks(self) -> NDArray[np.bool_]:
        """Which configurations may be chosen, bool [num_envs, K]: all of them."""
        return np.ones((self.num_envs, self.problem.num_configurations), dtype=np.bool_)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return where all copies stand, as arrays that ``load_state_dict`` takes.

        They are ``start``, ``done``, ``configuration`` (int64 [n]), ``average`` (float64 [n, K])
        and the random generators' states, ``generators`` (uint64 [n, 6]).

        Raises:
            InputError: the copies have not been reset yet.
        """
        if self._state is None:
            raise InputError("reset must be called before state_dict")
        arrays = {name: getattr(self._state, name).copy() for name in _STATE}
        generators = [one for one in self._generators if one is not None]
        return {**arrays, "generators": pack(generators)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue where ``state_dict`` was taken: the same actions give the same steps.

        Raises:
            InputError: this is not the state of so many copies of this problem.
        """
        if set(state) != {*_STATE, "generators"}:
            raise InputError(f"the copies' state must hold {[*_STATE, 'generators']}")
        problem, shape = self.problem, (self.num_envs,)
        ranges = {
            "start": problem.num_epochs - problem.episode_length,
            "done": problem.episode_length - 1,
            "configuration": problem.num_configurations - 1,
        }
        arrays = {name: np.array(state[name]) for name in _STATE}
        for name, largest in ranges.items():
            array = arrays[name]
            if array.dtype != np.int64 or array.shape != shape:
                raise InputError(f"{name} must be int64 {list(shape)} in the copies' state")
            if array.min() < 0 or array.max() > largest:
                raise InputError(f"{name} must be 0..{largest} in the copies' state")
        average = arrays["average"]
        if average.dtype != np.float64 or average.shape != (*shape, problem.num_configurations):
            raise InputError("average must be float64 [copies, configurations]")
        if not np.isfinite(average).all():
            raise InputError("average must be finite in the copies' state")
        self._generators = list(unpack(state["generators"], self.num_envs))
        self._state = State(**arrays)

    @cached_property
    def _tables(self) -> Tables:
        from topomoe.envs.transition_kernel import Tables  # loads the compiler

        return Tables.of(self.problem, self.layout)

    def _first_epoch(self, copy: int, options: dict[str, Any] | None) -> int:
        generator = self._generators[copy]
        assert generator is not None
        return first_epoch(self.problem, options, generator)

    def _restart(self, state: State, over: NDArray[np.bool_]) -> None:
        """Begin new episodes where copies are ``over``."""
        ended: list[int] = over.nonzero()[0].tolist()
        fresh = begin(self.problem, [self._first_epoch(copy, None) for copy in ended])
        for name in _STATE:
            getattr(state, name)[over] = getattr(fresh, name)
