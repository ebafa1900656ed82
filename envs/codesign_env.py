"""Co-design as a Gymnasium environment: a thin face on ``topomoe.envs.codesign_transition``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, CoDesignProblem
from topomoe.envs.codesign_layout import CoDesignLayout
from topomoe.envs.codesign_source import resolve_codesign
from topomoe.envs.codesign_state import CoDesignState, begin
from topomoe.envs.codesign_task import CoDesignTask
from topomoe.envs.codesign_transition import CoDesignOutcome, masks, observe, step
from topomoe.envs.switching import RENDER_MODES
from topomoe.envs.transition import first_epoch
from topomoe.topologies.errors import InputError, unknown


class FreePlacementEnv(gymnasium.Env[NDArray[np.float32], Any]):
    """What ``CoDesignEnv`` and ``PlacementEnv`` have in common: one copy of a ``CoDesignTask``."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # type: ignore[misc]

    def __init__(self, task: CoDesignTask, render_mode: str | None) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise unknown("render_mode", render_mode, RENDER_MODES)
        self.task = task
        self.problem = task.problem
        self.layout = task.layout
        self.render_mode = render_mode
        self.observation_space, self.action_space = make_spaces(self.layout)
        self._state: CoDesignState | None = None
        self._outcome: CoDesignOutcome | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode; ``options={"episode": i}``: the i-th of the timeline cut end to end."""
        super().reset(seed=seed)
        start = first_epoch(self.problem.switching, options, self.np_random)
        self._state = begin(self.task, start)
        self._outcome = None
        info = {key: value.tolist()[0] for key, value in reset_info(self.task, self._state).items()}
        return observe(self.task, self._state)[0], info

    def step(
        self, action: NDArray[np.int64] | np.int64 | int
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Set what ``action`` says and run one epoch."""
        if self._state is None:
            raise InputError("reset must be called before step")
        self._state, reward, outcome = step(self.task, self._state, np.asarray(action)[None])
        self._outcome = outcome
        over = bool(self._state.done[0] == self.problem.switching.episode_length)
        info = {key: value.tolist()[0] for key, value in step_info(self.task, outcome).items()}
        return observe(self.task, self._state)[0], float(reward[0]), over, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return which choices there are, bool [all choices], one action's after the other's."""
        if self._state is None:
            raise InputError("reset must be called before action_masks")
        return np.asarray(np.concatenate(masks(self.task, self._state), axis=1)[0])

    def render(self) -> str | NDArray[np.uint8] | None:
        """Return where the episode stands, as a line of text or a picture of the grid."""
        if self._state is None or self.render_mode is None:
            return None
        from topomoe.envs.codesign_picture import as_picture, as_text

        draw = as_text if self.render_mode == "ansi" else as_picture
        return draw(self.task, self._state, self._outcome)


class CoDesignEnv(FreePlacementEnv):
    """Choose the topology and the placement of every epoch, placements moving freely.

    Action: ``MultiDiscrete([A or A + 1, 1 + P + C + 1])``. The first is the topology to set; the
    last of A + 1, where the library has such, is the circuits fitted to the demand that is
    forecast. The second: 0 keeps the placement; 1..P sets one of the library; then come C proposed
    moves (``topomoe.envs.proposals``: swaps and replica moves by the forecast load; those first
    that save most seconds by ``topomoe.envs.forecast_price``); the last rebalances now (EPLB for
    the forecast, on the devices where that moves least).
    ``action_masks()`` says which choices there are; another one changes nothing and is noted in
    ``info["masked"]``; a number that is no choice at all raises.
    Observation: a float32 ``Box``; ``CoDesignLayout`` documents it part by part.
    Reward: -(epoch cost + switching cost) / scale, with the scale of ``problem.switching``.
    Episode: as in ``TopologySwitchEnv``, starting in the library's best configuration of training.
    Info: ``epoch``, the names ``topology`` and ``placement`` (that of the library chosen last),
    ``moved`` (share of slots that differ from it), ``switching``; after a step the costs in seconds
    ``dispatch``, ``compute``, ``combine``, ``other``, ``reconfiguration``, ``migration`` and their
    sum ``cost``; ``switched``; ``masked``; and ``returned``: the devices' layout changed, and with
    it the moved placement went back to the library's.

    >>> import numpy as np
    >>> env = CoDesignEnv()
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(np.array([1, 0]))
    >>> info["topology"], info["placement"], info["reconfiguration"]
    ('expander', 'mix', 0.05)

    Args:
        problem: the problem; None: that of ``scenario``, or a small built-in one.
        scenario: name or TOML file of a scenario.
        trace: folder of routing traces for the scenario.
        seed: of the scenario.
        part: training, validation or test.
        moves: C, proposals.
        observe: ``before``: the coming epoch's costs are unknown; ``after``: the library's are
            observed.
        queue: whether the queue features of the coming epoch are observed.
        render_mode: ``ansi`` (a line of text) or ``rgb_array`` (the grid: device load, link load,
            circuits).

    Raises:
        InputError: the problem, an option, an action or ``render_mode`` is wrong.
    """

    def __init__(
        self,
        problem: CoDesignProblem | None = None,
        scenario: str | Path | None = None,
        trace: str = "",
        seed: int = 0,
        part: str = "training",
        moves: int = 8,
        observe: str = "before",
        queue: bool = True,
        render_mode: str | None = None,
    ) -> None:
        resolved = resolve_codesign(problem, scenario, trace, seed, part)
        super().__init__(
            CoDesignTask.of(resolved, moves, observe=observe, queue=queue), render_mode
        )


def make_spaces(
    layout: CoDesignLayout,
) -> tuple[spaces.Box[np.float32], spaces.Discrete | spaces.MultiDiscrete[np.int64]]:
    """Return the observation and the action space of one copy."""
    low, high = layout.bounds()
    box = spaces.Box(low, high, dtype=np.float32)
    if layout.fixed:
        return box, spaces.Discrete(layout.placement_choices)
    return box, spaces.MultiDiscrete([layout.topology_choices, layout.placement_choices])


def reset_info(task: CoDesignTask, state: CoDesignState) -> dict[str, NDArray[Any]]:
    """Return what a reset's ``info`` holds, an array [n] each."""
    unmoved = np.zeros(state.start.size)
    return _where(task, state.start, state.topology, state.base, unmoved)


def step_info(task: CoDesignTask, outcome: CoDesignOutcome) -> dict[str, NDArray[Any]]:
    """Return what a step's ``info`` holds, an array [n] each; costs in seconds."""
    return {
        **_where(task, outcome.epoch, outcome.topology, outcome.base, outcome.moved),
        **{name: outcome.components[name] for name in PARTS},
        "reconfiguration": outcome.reconfiguration,
        "migration": outcome.migration,
        "cost": outcome.cost,
        "switched": outcome.switched,
        "masked": outcome.masked,
        "returned": outcome.returned,
    }


def _where(
    task: CoDesignTask,
    epoch: NDArray[np.int64],
    topology: NDArray[np.int64],
    base: NDArray[np.int64],
    moved: NDArray[np.float64],
) -> dict[str, NDArray[Any]]:
    cluster = task.problem.cluster
    return {
        "epoch": epoch.copy(),
        "topology": np.array(cluster.topologies, dtype=object)[topology],
        "placement": np.array(cluster.placements, dtype=object)[base],
        "moved": moved,
        "switching": np.full(epoch.size, task.problem.switching.switching, dtype=object),
    }
