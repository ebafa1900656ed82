"""The settings of ``topomoe train`` and ``topomoe evaluate``."""

from __future__ import annotations

from dataclasses import dataclass, field

from topomoe.agents.settings import PPOSettings
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.topologies.errors import InputError, unknown

AGENTS = ("ppo",)
SCENARIOS = ("default",)


@dataclass(frozen=True)
class TrainSettings:
    """A learned agent on one scenario."""

    agent: str = "ppo"
    """Learner: ppo."""
    scenario: str = "default"
    """Scenario: default; every part of it is a flag below or a key of a TOML file."""
    seeds: int = 1
    """Trainings, with seeds 0, 1, ..."""
    problem: ScenarioSettings = field(default_factory=ScenarioSettings)
    """The fabric, its traffic over time, and what rewiring costs."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """How PPO is trained."""

    def __post_init__(self) -> None:
        """Check what no other part checks; InputError names the field."""
        if self.agent not in AGENTS:
            raise unknown("agent", self.agent, AGENTS)
        if self.scenario not in SCENARIOS:
            raise unknown("scenario", self.scenario, SCENARIOS)
        if self.seeds < 1:
            raise InputError(f"seeds must be >= 1, got {self.seeds}")


@dataclass(frozen=True)
class EvaluateSettings:
    """Agents compared on one scenario's held-out episodes."""

    agents: tuple[str, ...] = (
        "never-switch",
        "static-best",
        "random",
        "rotor",
        "greedy",
        "hysteresis",
        "clairvoyant",
    )
    """Names of policies, and folders that topomoe train wrote."""
    problem: ScenarioSettings = field(default_factory=ScenarioSettings)
    """The scenario; where a trained folder is among the agents, that folder's holds instead."""

    def __post_init__(self) -> None:
        """Check that there is something to evaluate, once each."""
        if not self.agents or len(set(self.agents)) != len(self.agents):
            raise InputError("agents must name one or more different agents")
