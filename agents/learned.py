"""A trained policy, and the folder it is kept in: ``agent.json``, ``policy.safetensors``, a curve.

Nothing in the folder is code: loading it reads JSON and plain arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from topomoe.agents import value_policy
from topomoe.agents.features import FixedLinear, feature_size
from topomoe.agents.networks import ActionValue, ActorCritic, MaskableActorCritic, Network
from topomoe.agents.policy import BatchPolicy
from topomoe.agents.settings import DQNSettings, PPOSettings
from topomoe.agents.value_policy import QPolicy
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.switching import make_spaces
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.files import write_atomic

FORMAT = "topomoe agent 1"
CONFIG, WEIGHTS, CURVE = "agent.json", "policy.safetensors", "learning_curve.csv"
VERSIONS = ("topomoe", "torch", "stable-baselines3", "sb3-contrib", "numpy")
FULL_INFORMATION = ("fitted-q", "hindsight")
Settings = PPOSettings | DQNSettings
ALGORITHMS: Mapping[str, tuple[type[Settings], type[Network]]] = {
    "ppo": (PPOSettings, ActorCritic),
    "maskable-ppo": (PPOSettings, MaskableActorCritic),
    "dqn": (DQNSettings, ActionValue),
}


class LearnedPolicy(BatchPolicy):
    """A policy network with what is needed to use it and to tell where it came from.

    It moves to the configuration with the highest score (logit, or value) where that exceeds the
    score of the one that is set by more than ``margin``.

    Args:
        network: the network, of PPO, MaskablePPO or DQN.
        layout: how observations are laid out.
        algorithm: what trained it: ppo, maskable-ppo or dqn.
        settings: how it was trained.
        seed: the seed it was trained with.
        names: the configurations it chooses among.
        feature_names: the queue features it knows.
        hypothetical: trained on fabrics that no switch turns into each other.
        curve: (timesteps, mean episode cost relative to never switching) after each update.
        margin: by how much a score must be higher, >= 0; infinity: it never switches.
        selected: after how many timesteps validation chose the network.
    """

    def __init__(
        self,
        network: Network,
        layout: ObservationLayout,
        algorithm: str,
        settings: Settings,
        seed: int,
        names: tuple[str, ...],
        feature_names: tuple[str, ...],
        hypothetical: bool,
        curve: tuple[tuple[int, float], ...],
        margin: float = 0.0,
        selected: int = 0,
    ) -> None:
        super().__init__(layout)
        self.network, self.algorithm = network, algorithm
        self.settings, self.seed = settings, seed
        self.names, self.feature_names = names, feature_names
        self.hypothetical, self.curve = hypothetical, curve
        self.margin, self.selected = margin, selected
        network.set_training_mode(False)

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Any,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return the best configurations; draws of the network when not ``deterministic``."""
        with torch.no_grad():
            given = torch.from_numpy(observation)
            if not deterministic and not isinstance(self.network, ActionValue):
                drawn: NDArray[np.int64] = self.network(given)[0].numpy().astype(np.int64)
                return drawn, state
            scores = self.network.scores(given).numpy()
        copies = np.arange(len(scores))
        current = self.current(observation)
        best = scores.argmax(axis=1)
        moves = scores[copies, best] - scores[copies, current] > self.margin
        return np.where(moves, best, current).astype(np.int64), state

    def check(self, problem: SwitchingProblem) -> None:
        """Raise InputError unless the problem has the agent's configurations and features."""
        for kind, own, other in (
            ("names", self.names, problem.names),
            ("feature_names", self.feature_names, problem.feature_names),
        ):
            if own != other and not (kind == "feature_names" and not self.layout.queue):
                raise InputError(
                    f"the agent was trained on another environment: {kind} {list(own)}, "
                    f"not {list(other)}"
                )
        if self.layout.num_demand != len(problem.demand_names):
            raise InputError(
                "the agent was trained on another environment: "
                f"{self.layout.num_demand} statistics of the demand, "
                f"not {len(problem.demand_names)}"
            )

    def save(self, folder: str | Path) -> None:
        """Write the agent's folder; ``agent.json`` last, so that where it is all is there."""
        target = Path(folder)
        weights = save(_weights(self.network))
        config = {
            "format": FORMAT,
            "algorithm": self.algorithm,
            "seed": self.seed,
            "names": self.names,
            "feature_names": self.feature_names,
            "switching": "hypothetical" if self.hypothetical else "reachable",
            "observe": self.layout.observe,
            "queue": self.layout.queue,
            "num_demand": self.layout.num_demand,
            "observation": self.layout.sizes,
            "margin": None if self.margin == inf else self.margin,
            "selected": self.selected,
            "settings": asdict(self.settings),
            "weights_sha256": sha256(weights).hexdigest(),
            "versions": {name: version(name) for name in VERSIONS},
        }
        rows = [f"{timesteps},{ratio!r}" for timesteps, ratio in self.curve]
        write_atomic(target / WEIGHTS, weights)
        write_atomic(
            target / CURVE, "\n".join(["timesteps,cost_relative_to_never_switch", *rows]) + "\n"
        )
        write_atomic(target / CONFIG, json.dumps(config, indent=2) + "\n")


def load_agent(
    folder: str | Path, problem: SwitchingProblem | None = None
) -> LearnedPolicy | QPolicy:
    """Read the agent in a folder, whatever learned it, and check that it fits ``problem``.

    Raises:
        InputError: a file is missing or damaged, or the agent is for another environment.
    """
    source = Path(folder)
    config = read_config(source / CONFIG)
    agent: LearnedPolicy | QPolicy
    if config.get("algorithm") in FULL_INFORMATION:
        agent = value_policy.load(source, config)
    else:
        agent = _build(source, config)
    if problem is not None:
        try:
            agent.check(problem)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    return agent


def read_config(path: Path) -> Mapping[str, Any]:
    """Return what an agent's JSON file says; InputError where it is no such file."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path}: format must be {FORMAT!r}")
    return config


def _build(source: Path, config: Mapping[str, Any]) -> LearnedPolicy:
    try:
        algorithm = config["algorithm"]
        if algorithm not in ALGORITHMS:
            raise unknown("algorithm", str(algorithm), (*ALGORITHMS, *FULL_INFORMATION))
        kind, network_kind = ALGORITHMS[algorithm]
        settings = kind(**config["settings"])
        names = tuple(str(name) for name in config["names"])
        features = tuple(str(name) for name in config["feature_names"])
        demand = int(config["num_demand"])
        layout = ObservationLayout(
            len(names), len(features), config["observe"], bool(config["queue"]), demand
        )
        if config["observation"] != layout.sizes or not names or demand < 0:
            raise InputError(f"observation must be {layout.sizes}, got {config['observation']}")
        seed, selected = int(config["seed"]), int(config["selected"])
        margin = inf if config["margin"] is None else float(config["margin"])
        if not margin >= 0:
            raise InputError(f"margin must be >= 0, got {margin}")
        hypothetical = {"hypothetical": True, "reachable": False}[config["switching"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{source / CONFIG}: not an agent's configuration ({error})") from None
    weights, digest = _read_weights(source / WEIGHTS, layout)
    hidden = settings.hidden if isinstance(settings, PPOSettings) else settings.dqn_hidden
    network = make_network(network_kind, layout, hidden)
    _fill(source / WEIGHTS, network, weights)
    if digest != config.get("weights_sha256"):
        raise InputError(
            f"{source / WEIGHTS}: the contents are not those that {CONFIG} names by SHA-256"
        )
    curve = _read_curve(source / CURVE)
    return LearnedPolicy(
        network,
        layout,
        algorithm,
        settings,
        seed,
        names,
        features,
        hypothetical,
        curve,
        margin,
        selected,
    )


def make_network(
    kind: type[Network], layout: ObservationLayout, hidden: tuple[int, ...]
) -> Network:
    """Return a network of one kind for a layout's observations."""
    observations, actions = make_spaces(layout)
    return kind(
        observations,
        actions,
        lr_schedule=lambda left: 0.0,
        net_arch=list(hidden),
        features_extractor_class=FixedLinear,
        features_extractor_kwargs={"size": feature_size(layout)},
    )


def _read_weights(path: Path, layout: ObservationLayout) -> tuple[dict[str, torch.Tensor], str]:
    try:
        content = path.read_bytes()
        weights = load(content)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from None
    # Before a network of that size is made: what is claimed must be there.
    for key, value in weights.items():
        size = [layout.size, feature_size(layout)]
        if key.endswith("features_extractor.weight") and list(value.shape) != size:
            raise InputError(f"{path}: {key} must have shape {size}, got {list(value.shape)}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{path}: {key} must be finite, got NaN or infinity")
    if not any(key.endswith("features_extractor.weight") for key in weights):
        raise InputError(f"{path}: weights of another network: features_extractor is missing")
    return weights, sha256(content).hexdigest()


def _fill(path: Path, network: Network, weights: dict[str, torch.Tensor]) -> None:
    wanted = _weights(network)
    if weights.keys() != wanted.keys():
        odd = sorted(weights.keys() ^ wanted.keys())
        raise InputError(f"{path}: weights of another network: {odd[0]} is missing or extra")
    for key, value in weights.items():
        if value.shape != wanted[key].shape or value.dtype != wanted[key].dtype:
            raise InputError(
                f"{path}: {key} must have shape {list(wanted[key].shape)}, got {list(value.shape)}"
            )
    network.load_state_dict(weights, strict=False)


def _weights(network: Network) -> dict[str, torch.Tensor]:
    # Actor and critic share one feature extractor, which the network lists under three names;
    # DQN's target network is of use in training alone.
    left_out = ("pi_features_extractor.", "vf_features_extractor.", "q_net_target.")
    return {
        key: value.contiguous()
        for key, value in network.state_dict().items()
        if not key.startswith(left_out)
    }


def _read_curve(path: Path) -> tuple[tuple[int, float], ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        return tuple((int(a), float(b)) for a, b in (line.split(",") for line in lines))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
