"""Many copies of the co-design and placement environments stepped together on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from topomoe.envs.autoreset import every, reset_options, restarted
from topomoe.envs.cluster import CoDesignProblem
from topomoe.envs.codesign_env import make_spaces, reset_info, step_info
from topomoe.envs.codesign_source import resolve_codesign
from topomoe.envs.codesign_state import CoDesignState, begin, put_rows, resumed, stored
from topomoe.envs.codesign_task import CoDesignTask
from topomoe.envs.codesign_transition import masks, observe, step
from topomoe.envs.generators import pack, seed_copies, unpack
from topomoe.envs.transition import first_epoch
from topomoe.topologies.errors import InputError

Observations = NDArray[np.float32]


class FreePlacementVectorEnv(VectorEnv[Observations, NDArray[np.int64], NDArray[Any]]):
    """Copies of one ``CoDesignTask``: copy i behaves as the single one seeded ``seed + i``.

    A copy whose episode ends is reset in the same step (``AutoresetMode.SAME_STEP``), as in
    ``TopologySwitchVectorEnv``.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int, task: CoDesignTask) -> None:
        if num_envs < 1:
            raise InputError(f"num_envs must be >= 1, got {num_envs}")
        self.num_envs = num_envs
        self.task = task
        self.problem = task.problem
        self.layout = task.layout
        self.single_observation_space, self.single_action_space = make_spaces(task.layout)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._state: CoDesignState | None = None

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
        self._state = begin(self.task, starts)
        infos = every(reset_info(self.task, self._state), self.num_envs)
        return observe(self.task, self._state), infos

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Set what every copy's action says and run one epoch."""
        if self._state is None:
            raise InputError("reset must be called before step")
        state, reward, outcome = step(self.task, self._state, actions)
        observation = observe(self.task, state)
        over = state.done == self.problem.switching.episode_length
        said = step_info(self.task, outcome)
        infos = every(said, self.num_envs)
        if over.any():
            ended = over.nonzero()[0].tolist()
            fresh = begin(self.task, [self._first_epoch(copy, None) for copy in ended])
            put_rows(state, over, fresh)
            infos = restarted(said, reset_info(self.task, state), over, observation.copy())
            observation[over] = observe(self.task, fresh)
        self._state = state
        return observation, reward, over, np.zeros_like(over), infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which choices each copy has, bool [num_envs, all choices]."""
        if self._state is None:
            raise InputError("reset must be called before action_masks")
        return np.concatenate(masks(self.task, self._state), axis=1)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return where all copies stand, as arrays that ``load_state_dict`` takes.

        They are the fields of ``CoDesignState`` that the rest follows from, and the random
        generators' states, ``generators`` (uint64 [n, 6]).

        Raises:
            InputError: the copies have not been reset yet.
        """
        if self._state is None:
            raise InputError("reset must be called before state_dict")
        generators = [one for one in self._generators if one is not None]
        return {**stored(self._state), "generators": pack(generators)}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continue where ``state_dict`` was taken: the same actions give the same steps.

        Raises:
            InputError: this is not the state of so many copies of this problem.
        """
        given = dict(state)
        generators = given.pop("generators", None)
        if generators is None:
            raise InputError("the copies' state must hold 'generators'")
        resumed_state = resumed(self.task, given, self.num_envs)
        self._generators = list(unpack(generators, self.num_envs))
        self._state = resumed_state

    def _first_epoch(self, copy: int, options: dict[str, Any] | None) -> int:
        generator = self._generators[copy]
        assert generator is not None
        return first_epoch(self.problem.switching, options, generator)


class CoDesignVectorEnv(FreePlacementVectorEnv):
    """Copies of ``CoDesignEnv``, whose arguments these are.

    Raises:
        InputError: an argument or an action is wrong.
    """

    def __init__(
        self,
        num_envs: int = 1,
        problem: CoDesignProblem | None = None,
        scenario: str | Path | None = None,
        trace: str = "",
        seed: int = 0,
        part: str = "training",
        moves: int = 8,
        observe: str = "before",
        queue: bool = True,
    ) -> None:
        resolved = resolve_codesign(problem, scenario, trace, seed, part)
        super().__init__(num_envs, CoDesignTask.of(resolved, moves, observe=observe, queue=queue))


class PlacementVectorEnv(FreePlacementVectorEnv):
    """Copies of ``PlacementEnv``, whose arguments these are.

    Raises:
        InputError: an argument or an action is wrong.
    """

    def __init__(
        self,
        num_envs: int = 1,
        problem: CoDesignProblem | None = None,
        scenario: str | Path | None = None,
        trace: str = "",
        seed: int = 0,
        part: str = "training",
        topology: str | None = None,
        moves: int = 8,
        observe: str = "before",
        queue: bool = True,
    ) -> None:
        resolved = resolve_codesign(problem, scenario, trace, seed, part)
        super().__init__(num_envs, CoDesignTask.of(resolved, moves, topology, True, observe, queue))
