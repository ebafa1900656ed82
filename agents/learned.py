"""A trained policy, and the folder it is kept in: ``agent.json``, ``policy.safetensors``, a curve.

Nothing in the folder is code: loading it reads JSON and plain arrays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from stable_baselines3.common.policies import ActorCriticPolicy

from topomoe.agents.features import FixedLinear
from topomoe.agents.policy import BatchPolicy
from topomoe.agents.settings import PPOSettings
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.switching import make_spaces
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

FORMAT = "topomoe agent 1"
CONFIG, WEIGHTS, CURVE = "agent.json", "policy.safetensors", "learning_curve.csv"


class LearnedPolicy(BatchPolicy):
    """A policy network with what is needed to use it and to tell where it came from.

    Args:
        network: the actor and critic.
        layout: how observations are laid out.
        settings: how it was trained.
        seed: the seed it was trained with.
        names: the configurations it chooses among.
        feature_names: the queue features it knows.
        hypothetical: trained on fabrics that no switch turns into each other.
        curve: (timesteps, mean episode cost relative to never switching) after each update.
    """

    def __init__(
        self,
        network: ActorCriticPolicy,
        layout: ObservationLayout,
        settings: PPOSettings,
        seed: int,
        names: tuple[str, ...],
        feature_names: tuple[str, ...],
        hypothetical: bool,
        curve: tuple[tuple[int, float], ...],
    ) -> None:
        super().__init__(layout)
        self.network = network
        self.settings, self.seed = settings, seed
        self.names, self.feature_names = names, feature_names
        self.hypothetical, self.curve = hypothetical, curve
        network.set_training_mode(False)

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Any,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return the likeliest configurations, or draws when not ``deterministic``."""
        with torch.no_grad():
            actions = self.network(torch.from_numpy(observation), deterministic)[0]
        return actions.numpy().astype(np.int64), state

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

    def save(self, folder: str | Path) -> None:
        """Write the agent's folder."""
        target = Path(folder)
        weights = save(_weights(self.network))
        config = {
            "format": FORMAT,
            "algorithm": "ppo",
            "seed": self.seed,
            "names": self.names,
            "feature_names": self.feature_names,
            "switching": "hypothetical" if self.hypothetical else "reachable",
            "num_demand": self.layout.num_demand,
            "observation": self.layout.sizes,
            "settings": asdict(self.settings),
            "weights_sha256": sha256(weights).hexdigest(),
            "versions": {
                name: version(name) for name in ("topomoe", "torch", "stable-baselines3", "numpy")
            },
        }
        rows = [f"{timesteps},{ratio!r}" for timesteps, ratio in self.curve]
        write_atomic(target / WEIGHTS, weights)
        write_atomic(
            target / CURVE, "\n".join(["timesteps,cost_relative_to_never_switch", *rows]) + "\n"
        )
        write_atomic(target / CONFIG, json.dumps(config, indent=2) + "\n")


def load_agent(folder: str | Path, problem: SwitchingProblem | None = None) -> LearnedPolicy:
    """Read an agent that ``LearnedPolicy.save`` wrote, and check that it fits ``problem``.

    Raises:
        InputError: a file is missing or damaged, or the agent is for another environment.
    """
    source = Path(folder)
    config = _read_config(source / CONFIG)
    try:
        settings = PPOSettings(**config["settings"])
        names, features = tuple(config["names"]), tuple(config["feature_names"])
        layout = ObservationLayout(
            len(names),
            len(features),
            settings.observe,
            settings.queue,
            int(config.get("num_demand", 0)),
        )
        if config["observation"] != layout.sizes:
            raise InputError(f"observation must be {layout.sizes}, got {config['observation']}")
        seed = int(config["seed"])
        hypothetical = {"hypothetical": True, "reachable": False}[config["switching"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source / CONFIG}: not an agent's configuration ({error})") from None
    network = ActorCriticPolicy(
        *make_spaces(layout),
        lr_schedule=lambda left: 0.0,
        net_arch=list(settings.hidden),
        features_extractor_class=FixedLinear,
    )
    _read_weights(source / WEIGHTS, network, str(config.get("weights_sha256")))
    agent = LearnedPolicy(
        network, layout, settings, seed, names, features, hypothetical, _read_curve(source / CURVE)
    )
    if problem is not None:
        try:
            agent.check(problem)
        except InputError as error:
            raise InputError(f"{source}: {error}") from None
    return agent


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{path}: format must be {FORMAT!r}")
    return config


def _read_weights(path: Path, network: ActorCriticPolicy, digest: str) -> None:
    try:
        content = path.read_bytes()
        weights = load(content)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from None
    wanted = _weights(network)
    if weights.keys() != wanted.keys():
        odd = sorted(weights.keys() ^ wanted.keys())
        raise InputError(f"{path}: weights of another network: {odd[0]} is missing or extra")
    for key, value in weights.items():
        if value.shape != wanted[key].shape or value.dtype != wanted[key].dtype:
            raise InputError(
                f"{path}: {key} must have shape {list(wanted[key].shape)}, got {list(value.shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            raise InputError(f"{path}: {key} must be finite, got NaN or infinity")
    if sha256(content).hexdigest() != digest:
        raise InputError(f"{path}: the contents are not those that {CONFIG} names by SHA-256")
    network.load_state_dict(weights, strict=False)


def _weights(network: ActorCriticPolicy) -> dict[str, torch.Tensor]:
    # Actor and critic share one feature extractor, which the network lists under three names.
    return {
        key: value.contiguous()
        for key, value in network.state_dict().items()
        if not key.startswith(("pi_features_extractor.", "vf_features_extractor."))
    }


def _read_curve(path: Path) -> tuple[tuple[int, float], ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        return tuple((int(a), float(b)) for a, b in (line.split(",") for line in lines))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_one_line(error)})") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
