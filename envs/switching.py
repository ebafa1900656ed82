"""The switching problem as a Gymnasium environment: a thin face on ``topomoe.envs.transition``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from topomoe.envs.cluster import RECENT, CoDesignProblem
from topomoe.envs.codesign_source import given_or_scenario
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.render import picture
from topomoe.envs.resolve import Given, library_table
from topomoe.envs.transition import Outcome, State, begin, first_epoch, observe, step
from topomoe.topologies.errors import InputError, unknown

RENDER_MODES = ("ansi", "rgb_array")


class TopologySwitchEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """Choose the configuration of every epoch before (or, on request, after) seeing its traffic.

    Action: ``Discrete(K)``, the configuration to set before the coming epoch.
    Observation: a float32 ``Box``; ``ObservationLayout`` documents it part by part.
    Reward: -(epoch cost + switching cost) / scale, where ``problem.scale`` is the mean cost of
    never switching, so that never switching earns about -1 an epoch.
    Episode: ``problem.episode_length`` epochs from a first epoch drawn by ``reset(seed=...)``, or
    the i-th episode of the timeline cut end to end with ``reset(options={"episode": i})``; it
    starts in ``problem.start`` and terminates after its last epoch (epochs left are observed, so
    the end is part of the problem and no truncation).
    Info: ``epoch``, the names ``configuration``, ``topology`` and, where there are any,
    ``placement``, ``switching`` (``reachable`` or ``hypothetical``); after a step also the cost in
    seconds by part: those of ``problem.components`` (``dispatch``, ``compute``, ``combine``,
    ``other``), ``reconfiguration``, ``migration``, their sum ``cost``, and ``switched``.

    >>> from topomoe.envs.phases import phase_problem
    >>> env = TopologySwitchEnv(phase_problem(epochs=100, episode_length=10))
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, info = env.step(2)
    >>> info["configuration"], info["switched"], info["reconfiguration"]
    ('wiring 2', True, 0.5)

    Args:
        problem: the problem, a scenario's (its library is what is chosen from), the path of a
            stored one, or None for a small built-in one.
        observe: ``before``: the coming epoch's costs are unknown; ``after``: they are observed.
        queue: whether the queue features of the coming epoch are observed.
        render_mode: ``ansi`` (a line of text a step) or ``rgb_array``: of a scenario the device
            grid (device load, link load and circuits of the last epoch, as under the placement
            that it chose); of a bare problem the costs and choices of the episode so far.
        scenario: instead of a problem, a scenario's name or TOML file: its topologies are chosen
            from, under the placement that is best in training.
        trace: the folder of routing traces the scenario is built on; by default its own.
        seed: of the scenario.
        part: training, validation, or test: timelines that share no request.

    Raises:
        InputError: the problem, an option, an action or ``render_mode`` is wrong.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": list(RENDER_MODES), "render_fps": 4}  # type: ignore[misc]

    def __init__(
        self,
        problem: Given = None,
        observe: str = "before",
        queue: bool = True,
        render_mode: str | None = None,
        scenario: str | Path | None = None,
        trace: str = "",
        seed: int = 0,
        part: str = "training",
    ) -> None:
        if render_mode is not None and render_mode not in RENDER_MODES:
            raise unknown("render_mode", render_mode, RENDER_MODES)
        resolved = given_or_scenario(problem, scenario, trace, seed, part)
        self._scenario = resolved if isinstance(resolved, CoDesignProblem) else None
        self.problem = library_table(resolved)
        self.layout = ObservationLayout.of(self.problem, observe, queue)
        self.render_mode = render_mode
        self.observation_space, self.action_space = make_spaces(self.layout)
        self._info = InfoMaker.of(self.problem)
        self._state: State | None = None
        self._outcomes: list[Outcome] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode; see the class for ``options``."""
        super().reset(seed=seed)
        start = first_epoch(self.problem, options, self.np_random)
        self._state = begin(self.problem, start)
        self._outcomes = []
        info = {key: value.tolist()[0] for key, value in self._info.reset(self._state)}
        return observe(self.problem, self._state, self.layout)[0], info

    def step(
        self, action: np.int64 | int
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Set configuration ``action`` and run one epoch."""
        if self._state is None:
            raise InputError("reset must be called before step")
        self._state, reward, outcome = step(self.problem, self._state, np.array([action]))
        self._outcomes.append(outcome)
        over = bool(self._state.done[0] == self.problem.episode_length)
        info = {key: value.tolist()[0] for key, value in self._info.step(outcome)}
        observation = observe(self.problem, self._state, self.layout)[0]
        return observation, float(reward[0]), over, False, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Which configurations may be chosen, bool [K]: all of them."""
        return np.ones(self.problem.num_configurations, dtype=np.bool_)

    def render(self) -> str | NDArray[np.uint8] | None:
        """Return the last epoch as a line of text, or a picture; see the class."""
        if self._state is None or self.render_mode is None:
            return None
        if self.render_mode == "rgb_array" and self._scenario is not None:
            return self._grid(self._scenario, self._state)
        if self.render_mode == "rgb_array":
            seen = [int(outcome.epoch[0]) for outcome in self._outcomes]
            chosen = np.array([outcome.configuration[0] for outcome in self._outcomes], np.int64)
            return picture(self.problem.cost[seen], chosen, self.problem.episode_length)
        hypothetical = " (hypothetical)" if self.problem.hypothetical else ""
        name = self.problem.names[self._state.configuration[0]]
        if not self._outcomes:
            return f"epoch {self._state.start[0]}: starts in {name}{hypothetical}"
        outcome = self._outcomes[-1]
        parts = ", ".join(f"{key} {part[0]:.4g} s" for key, part in outcome.components.items())
        return (
            f"epoch {outcome.epoch[0]}: {name}{hypothetical}, cost {outcome.cost[0]:.4g} s "
            f"({parts}, reconfiguration {outcome.reconfiguration[0]:.4g} s, "
            f"migration {outcome.migration[0]:.4g} s)"
        )

    def _grid(self, scenario: CoDesignProblem, state: State) -> NDArray[np.uint8]:
        from topomoe.envs.cluster_picture import cluster_picture

        cluster, pool = scenario.cluster, scenario.pool
        topology, placement = divmod(int(state.configuration[0]), self.problem.num_placements)
        epoch = int(self._outcomes[-1].epoch[0]) if self._outcomes else int(state.start[0])
        if self.problem.placements[placement] == RECENT:
            slots = scenario.recent[epoch]
        else:
            slots = cluster.slot_expert[placement, pool.layout[scenario.steps[epoch, 0]]]
        steps = scenario.steps[epoch] if self._outcomes else scenario.steps[epoch, :0]
        return cluster_picture(cluster, pool, steps, topology, slots)


def make_spaces(layout: ObservationLayout) -> tuple[spaces.Box[np.float32], spaces.Discrete]:
    """Return the observation and the action space of one copy."""
    low, high = layout.bounds()
    return spaces.Box(low, high, dtype=np.float32), spaces.Discrete(layout.num_configurations)


Info: TypeAlias = list[tuple[str, NDArray[np.generic] | NDArray[np.object_]]]


@dataclass(frozen=True, eq=False)
class InfoMaker:
    """Names what ``info`` holds, an array [n] each.

    Attributes:
        names: by key, object [K] each: what is said of a configuration.
        switching: ``reachable`` or ``hypothetical``.
    """

    names: Mapping[str, NDArray[np.object_]]
    switching: str

    @classmethod
    def of(cls, problem: SwitchingProblem) -> InfoMaker:
        """Return the one for a problem."""
        configurations = range(problem.num_configurations)
        names = {"configuration": problem.names}
        names["topology"] = tuple(
            problem.topologies[k] for k in problem.topology_of(configurations)
        )
        if problem.placements:
            chosen = problem.placement_of(configurations)
            names["placement"] = tuple(problem.placements[k] for k in chosen)
        arrays = {key: np.array(labels, dtype=object) for key, labels in names.items()}
        return cls(arrays, problem.switching)

    def reset(self, state: State) -> Info:
        """What a reset's ``info`` holds."""
        return self._where(state.start, state.configuration)

    def step(self, outcome: Outcome) -> Info:
        """What a step's ``info`` holds; costs in seconds."""
        return [
            *self._where(outcome.epoch, outcome.configuration),
            *outcome.components.items(),
            ("reconfiguration", outcome.reconfiguration),
            ("migration", outcome.migration),
            ("cost", outcome.cost),
            ("switched", outcome.switched),
        ]

    def _where(self, epoch: NDArray[np.int64], configuration: NDArray[np.int64]) -> Info:
        named = [(key, labels[configuration]) for key, labels in self.names.items()]
        switching = np.full(epoch.size, self.switching, dtype=object)
        return [("epoch", epoch), *named, ("switching", switching)]
