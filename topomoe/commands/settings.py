"""The settings of ``topomoe train`` and ``topomoe evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topomoe.agents.settings import DQNSettings, ObservationSettings, PPOSettings
from topomoe.agents.value_settings import FittedQSettings, HindsightSettings
from topomoe.envs.scenario_presets import SCENARIOS, load_scenario
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.settings import apply, given, leaves, merge, read_toml
from topomoe.topologies.errors import InputError, unknown

DEFAULT_AGENT, DEFAULT_SCENARIO = "ppo", SCENARIOS[0]


@dataclass(frozen=True)
class TrainSettings:
    """A learned agent on one scenario; each learner has a subclass with its own ``learner``."""

    agent: str = DEFAULT_AGENT
    """Learner: ppo, maskable-ppo, dqn, fitted-q or hindsight."""
    scenario: str = DEFAULT_SCENARIO
    """Scenario: default, pools, hard, stationary, slow-migration, or a TOML file; the flags of a
    scenario change it."""
    seeds: int = 1
    """Trainings, with seeds 0, 1, ..."""
    problem: ScenarioSettings = field(default_factory=ScenarioSettings)
    """The scenario."""

    def __post_init__(self) -> None:
        """Check what no other part checks; InputError names the field."""
        if self.agent not in LEARNERS:
            raise unknown("agent", self.agent, LEARNERS)
        if self.seeds < 1:
            raise InputError(f"seeds must be >= 1, got {self.seeds}")


@dataclass(frozen=True)
class PPOTraining(TrainSettings):
    """PPO or MaskablePPO."""

    observation: ObservationSettings = field(default_factory=ObservationSettings)
    """What the agent sees."""
    learner: PPOSettings = field(default_factory=PPOSettings)
    """How it is trained."""


@dataclass(frozen=True)
class DQNTraining(TrainSettings):
    """DQN."""

    agent: str = "dqn"
    """Learner: dqn."""
    observation: ObservationSettings = field(default_factory=ObservationSettings)
    """What the agent sees."""
    learner: DQNSettings = field(default_factory=DQNSettings)
    """How it is trained."""


@dataclass(frozen=True)
class FittedQTraining(TrainSettings):
    """Fitted Q on full information."""

    agent: str = "fitted-q"
    """Learner: fitted-q."""
    learner: FittedQSettings = field(default_factory=FittedQSettings)
    """How it is trained."""


@dataclass(frozen=True)
class HindsightTraining(TrainSettings):
    """Hindsight learning on full information."""

    agent: str = "hindsight"
    """Learner: hindsight."""
    learner: HindsightSettings = field(default_factory=HindsightSettings)
    """How it is trained."""


LEARNERS: Mapping[str, type[TrainSettings]] = {
    "ppo": PPOTraining,
    "maskable-ppo": PPOTraining,
    "dqn": DQNTraining,
    "fitted-q": FittedQTraining,
    "hindsight": HindsightTraining,
}


@dataclass(frozen=True)
class EvaluateSettings:
    """Agents compared on held-out timelines of scenarios."""

    agents: tuple[str, ...] = ()
    """Names of policies, and folders that topomoe train wrote; none: every built-in policy."""
    scenario: tuple[str, ...] = ()
    """Scenarios, or TOML files of them; none: that of the trained folders, else default."""
    seeds: int = 5
    """Held-out timelines, with seeds 0, 1, ...; trained agents of several seeds take turns."""
    problem: ScenarioSettings = field(default_factory=ScenarioSettings)
    """What changes every scenario."""

    def __post_init__(self) -> None:
        """Check that there is something to evaluate, once each."""
        for name in ("agents", "scenario"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise InputError(f"{name} must not name anything twice, got {','.join(values)}")
        if self.seeds < 1:
            raise InputError(f"seeds must be >= 1, got {self.seeds}")


def train_settings(config: str | None, flags: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a training: the scenario's, then the TOML file's, then the flags'.

    Raises:
        InputError: an agent, scenario, key or value is wrong, or a flag is of another learner.
    """
    written = read_toml(Path(config)) if config is not None else {}

    def chosen(name: str, default: str) -> str:
        value = flags.get(name)
        value = written.get(name, default) if value is None else value
        if not isinstance(value, str):
            raise InputError(f"{config}: {name} must be text, got {value!r}")
        return value

    agent = chosen("agent", DEFAULT_AGENT)
    if agent not in LEARNERS:
        raise unknown("agent", agent, LEARNERS)
    cls = LEARNERS[agent]
    known = leaves(cls)
    for flag, value in flags.items():
        if value is not None and flag not in known:
            raise InputError(f"--{flag.replace('_', '-')} is not a setting of {agent}")
    scenario = chosen("scenario", DEFAULT_SCENARIO)
    defaults = cls(agent=agent, scenario=scenario, problem=load_scenario(scenario))
    return merge(cls, config, flags, defaults)


@dataclass(frozen=True, eq=False)
class EvaluateRequest:
    """What is to be evaluated, before any folder is read.

    ``changes`` are the parsed settings that change every scenario; ``source`` says where from.
    """

    settings: EvaluateSettings
    changes: Mapping[str, Any]
    source: str

    def changed(self, scenario: ScenarioSettings) -> ScenarioSettings:
        """Return a scenario with the changes; InputError where they do not fit it."""
        return apply(scenario, self.changes, f"{self.source}: problem")


def evaluate_request(config: str | None, flags: Mapping[str, Any]) -> EvaluateRequest:
    """Return what a TOML file and, above it, flags ask for; InputError for what is wrong in it."""
    values, source = given(EvaluateSettings, config, flags)
    changes = values.pop("problem", {})
    return EvaluateRequest(apply(EvaluateSettings(), values, source), changes, source)
