"""Where a learned value policy comes from: what ``agent.json`` says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from topomoe.agents.value_settings import (
    Choice,
    FittedQSettings,
    FullInformationSettings,
    HindsightSettings,
)
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.checked import whole
from topomoe.topologies.errors import InputError, unknown

FORMAT = "topomoe agent 1"
SETTINGS: dict[str, type[FullInformationSettings]] = {
    "fitted-q": FittedQSettings,
    "hindsight": HindsightSettings,
}


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a policy comes from: what is kept in ``agent.json`` beside the weights.

    Attributes:
        algorithm: fitted-q or hindsight.
        settings: how it was trained.
        choice: what validation chose of what the settings try.
        switches: False: nothing gained on the validation episodes, so it never switches.
        seed: of the random features.
        episode_length: epochs an episode has.
        names, feature_names, demand_names: of the problem it was trained on.
        placements: P.
        hypothetical: trained on fabrics that no switch turns into each other.
        curve: (horizon, validation cost relative to never switching).
    """

    algorithm: str
    settings: FullInformationSettings
    choice: Choice
    switches: bool
    seed: int
    episode_length: int
    names: tuple[str, ...]
    feature_names: tuple[str, ...]
    demand_names: tuple[str, ...]
    placements: int
    hypothetical: bool
    curve: tuple[tuple[int, float], ...] = ()

    @property
    def layout(self) -> ObservationLayout:
        """How observations are laid out."""
        return ObservationLayout(
            len(self.names),
            len(self.feature_names),
            self.settings.observe,
            self.settings.queue,
            len(self.demand_names),
        )

    def check(self, problem: SwitchingProblem) -> None:
        """Raise InputError unless the problem has the agent's configurations and features."""
        for kind in ("names", "feature_names", "demand_names"):
            own, other = getattr(self, kind), getattr(problem, kind)
            if own != other and not (kind == "feature_names" and not self.settings.queue):
                raise InputError(
                    f"the agent was trained on another environment: {kind} {list(own)}, "
                    f"not {list(other)}"
                )
        if problem.num_placements != self.placements:
            raise InputError(
                f"the agent was trained on another environment: {self.placements} "
                f"placements, not {problem.num_placements}"
            )

    def as_config(self) -> dict[str, object]:
        """Return what ``agent.json`` says of it."""
        return {
            "format": FORMAT,
            "algorithm": self.algorithm,
            "seed": self.seed,
            "names": self.names,
            "feature_names": self.feature_names,
            "demand_names": self.demand_names,
            "placements": self.placements,
            "switching": "hypothetical" if self.hypothetical else "reachable",
            "num_demand": len(self.demand_names),
            "observation": self.layout.sizes,
            "episode_length": self.episode_length,
            "settings": asdict(self.settings),
            "choice": asdict(self.choice),
            "switches": self.switches,
        }


def read_origin(config: Mapping[str, Any], curve: tuple[tuple[int, float], ...]) -> Origin:
    """Return the origin that a config written by ``as_config`` holds.

    Raises:
        InputError, KeyError, TypeError, ValueError, AttributeError: it is not one.
    """
    algorithm = config["algorithm"]
    if algorithm not in SETTINGS:
        raise unknown("algorithm", algorithm, SETTINGS)
    names = {
        key: tuple(str(name) for name in config[key])
        for key in ("names", "feature_names", "demand_names")
    }
    count, placements = len(names["names"]), whole(config["placements"], "placements", 1)
    if not count or count % placements:
        raise InputError(f"placements must divide the {count} configurations, got {placements}")
    length = whole(config["episode_length"], "episode_length", 1)
    switches = config["switches"]
    if not isinstance(switches, bool):
        raise InputError(f"switches must be true or false, got {switches!r}")
    origin = Origin(
        algorithm=algorithm,
        settings=SETTINGS[algorithm](**config["settings"]),
        choice=Choice(**config["choice"]),
        switches=switches,
        seed=whole(config["seed"], "seed"),
        episode_length=length,
        placements=placements,
        hypothetical={"hypothetical": True, "reachable": False}[config["switching"]],
        curve=curve,
        **names,
    )
    if config["observation"] != origin.layout.sizes:
        raise InputError(f"observation must be {origin.layout.sizes}, got {config['observation']}")
    return origin
