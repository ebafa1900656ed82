"""Stable-Baselines3's own file of a learned policy, for those who ask for it.

The file is a zip that holds pickled Python objects, and loading it runs code. So it is written only
on request, and nothing in this project reads one: that is for Stable-Baselines3 to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from topomoe.agents.features import FixedLinear, feature_size
from topomoe.agents.learned import LearnedPolicy
from topomoe.agents.settings import PPOSettings
from topomoe.envs.switching import make_spaces
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import check_target

ALGORITHMS: Mapping[str, Callable[..., BaseAlgorithm]] = {
    "ppo": PPO,
    "maskable-ppo": MaskablePPO,
    "dqn": DQN,
}


def export_sb3(agent: LearnedPolicy, path: str | Path) -> Path:
    """Write ``agent`` as Stable-Baselines3 saves one, and return the path, which ends in .zip.

    ``PPO.load(path)`` (or MaskablePPO, DQN) reads it where topomoe is installed. It holds the
    network alone: its ``predict`` takes the best score, without the agent's margin.

    Raises:
        InputError: the agent is not of PPO, MaskablePPO or DQN, or the file cannot be written.
    """
    if not isinstance(agent, LearnedPolicy):
        raise InputError("only agents of ppo, maskable-ppo and dqn are Stable-Baselines3's")
    target = Path(path).with_suffix(".zip")
    check_target(target, "export_sb3")
    settings = agent.settings
    hidden = settings.hidden if isinstance(settings, PPOSettings) else settings.dqn_hidden
    gamma = settings.gamma if isinstance(settings, PPOSettings) else settings.dqn_gamma
    # Rollout and replay buffers are of no use to a policy that is done: the smallest there are.
    small: dict[str, Any] = {"buffer_size": 1} if agent.algorithm == "dqn" else {"n_steps": 2}
    model = ALGORITHMS[agent.algorithm](
        type(agent.network),
        None,
        gamma=gamma,
        seed=agent.seed,
        device="cpu",
        policy_kwargs={
            "net_arch": list(hidden),
            "features_extractor_class": FixedLinear,
            "features_extractor_kwargs": {"size": feature_size(agent.layout)},
        },
        _init_setup_model=False,
        **small,
    )
    model.observation_space, model.action_space = make_spaces(agent.layout)
    model.n_envs = 1
    model._setup_model()
    model.policy.load_state_dict(agent.network.state_dict())
    target.parent.mkdir(parents=True, exist_ok=True)
    model.save(target)
    return target
