"""An algorithm's whole state as a checkpoint, and an algorithm put where its checkpoint was."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from topomoe.checkpoint_file import Arrays, Checkpoint
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.topologies.errors import InputError

FORMAT = "topomoe training 1"
CHECKPOINT = "checkpoint.safetensors"
# What an algorithm counts beside its weights; those that it lacks are left out.
COUNTERS = (
    "num_timesteps",
    "_n_updates",
    "_n_calls",
    "_episode_num",
    "_current_progress_remaining",
    "exploration_rate",
)
STORED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def capture(model: BaseAlgorithm, copies: SB3VecEnv) -> Checkpoint:
    """Return the state of a model between two rollouts: weights, Adam, buffer, draws, episodes."""
    arrays: Arrays = {f"network.{k}": v.numpy() for k, v in model.policy.state_dict().items()}
    for index, moments in model.policy.optimizer.state_dict()["state"].items():
        arrays |= {f"adam.{index}.{name}": value.numpy() for name, value in moments.items()}
    arrays["last.observation"] = np.asarray(model._last_obs)
    arrays["last.start"] = np.asarray(model._last_episode_starts)
    arrays["random.torch"] = torch.get_rng_state().numpy()
    name, keys, *position = np.random.get_state()  # noqa: NPY002 (Stable-Baselines3 draws from it)
    arrays["random.numpy"] = np.asarray(keys)
    buffer = _buffer(model)
    if buffer is not None:
        full = len(buffer.rewards) if buffer.full else buffer.pos
        arrays |= {f"buffer.{part}": getattr(buffer, part)[:full] for part in STORED}
    arrays |= {f"environment.{name}": array for name, array in copies.state_dict().items()}
    values = {
        "counters": {key: getattr(model, key) for key in COUNTERS if hasattr(model, key)},
        "position": None if buffer is None else [buffer.pos, buffer.full],
        "numpy": [name, *position],
        "python": random.getstate(),
        "actions": _spaces(model).bit_generator.state,
    }
    return Checkpoint(arrays, values)


def restore(checkpoint: Checkpoint, model: BaseAlgorithm, copies: SB3VecEnv) -> None:
    """Put a model and its copies, freshly made, where ``capture`` found them.

    Raises:
        InputError: the checkpoint is not one of such a model.
    """
    arrays, values = checkpoint.arrays, checkpoint.values
    try:
        weights = _named(arrays, "network.")
        model.policy.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in weights.items()})
        _restore_adam(model.policy.optimizer, _named(arrays, "adam."))
        model._last_obs = arrays["last.observation"].copy()
        model._last_episode_starts = arrays["last.start"].copy()
        buffer = _buffer(model)
        if buffer is not None:
            buffer.pos, buffer.full = values["position"]
            for part in STORED:
                stored = arrays[f"buffer.{part}"]
                getattr(buffer, part)[: len(stored)] = stored
        for key, value in values["counters"].items():
            if key not in COUNTERS:
                raise KeyError(key)
            setattr(model, key, value)
        copies.load_state_dict(_named(arrays, "environment."))
        _spaces(model).bit_generator.state = values["actions"]
        version, internal, gauss = values["python"]
        random.setstate((version, tuple(internal), gauss))
        name, *position = values["numpy"]
        np.random.set_state((name, arrays["random.numpy"], *position))  # noqa: NPY002
        torch.set_rng_state(torch.from_numpy(arrays["random.torch"].copy()))
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        # An InputError about the copies' state is a ValueError too.
        why = " ".join(str(error).split())[:200]
        raise InputError(f"{CHECKPOINT}: not a checkpoint of this training ({why})") from None


def _restore_adam(optimizer: torch.optim.Optimizer, stored: Mapping[str, NDArray[Any]]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for path, value in stored.items():
        index, name = path.split(".")
        state.setdefault(int(index), {})[name] = torch.from_numpy(value.copy())
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _buffer(model: BaseAlgorithm) -> ReplayBuffer | None:
    return model.replay_buffer if isinstance(model, OffPolicyAlgorithm) else None


def _spaces(model: BaseAlgorithm) -> np.random.Generator:
    return model.action_space.np_random
