"""A warm start: actor and critic learn a teacher's choices and returns before PPO goes on."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from topomoe.agents.networks import ActorCritic, MaskableActorCritic
from topomoe.agents.policy import Policy
from topomoe.agents.settings import PPOSettings
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import begin, observe, step
from topomoe.topologies.errors import InputError

COPIES, EXPERIENCE, PASSES, BATCH, ASTRAY = 256, 32_768, 12, 1024, 0.1


class Teacher(Policy, Protocol):
    """A policy that says how much it prefers each configuration."""

    def action_logits(self, observation: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the logits of the configurations, [n, K], for observations [n, size]."""


def imitate(
    network: ActorCritic | MaskableActorCritic,
    teacher: Teacher,
    training: SwitchingProblem,
    unit: float,
    settings: PPOSettings,
    seed: int,
) -> None:
    """Fit the actor to the teacher's choices and the critic to the returns they bring.

    Behaviour cloning on training episodes in which one choice in ten is random, so that the actor
    also learns what to do where the teacher would not go (as in DAgger: Ross et al. 2011).

    Args:
        network: changed in place.
        teacher: must see the same observations as the network.
        training: the problem; episodes begin at random epochs of it.
        unit: mean regret, what rewards are measured in.
        settings: discount and step size.
        seed: of the episodes and of the order in which they are gone through.

    Raises:
        InputError: the teacher sees other observations.
    """
    random = np.random.default_rng([seed, 1])
    seen, logits, returns = _lessons(teacher, training, unit, settings.gamma, random)
    if seen.shape[1] != network.observation_space.shape[0]:  # type: ignore[index]
        raise InputError(
            f"the warm start's teacher must see {network.observation_space.shape[0]} numbers, "  # type: ignore[index]
            f"not {seen.shape[1]}"
        )
    wanted = torch.from_numpy(logits).softmax(dim=1)
    given, value = torch.from_numpy(seen), torch.from_numpy(returns)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, eps=1e-5)
    batches = -(-len(seen) // BATCH)
    for _ in range(PASSES):
        order = torch.from_numpy(random.permutation(len(seen)))
        for part in order.chunk(batches):
            features = network.extract_features(given[part])
            actor, critic = network.mlp_extractor(features)
            cloned = functional.cross_entropy(network.action_net(actor), wanted[part])
            missed = functional.mse_loss(network.value_net(critic).flatten(), value[part])
            optimizer.zero_grad()
            (cloned + 0.5 * missed).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()


def _lessons(
    teacher: Teacher,
    training: SwitchingProblem,
    unit: float,
    gamma: float,
    random: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return observations [n, size], the teacher's logits [n, K] and discounted returns [n]."""
    length = training.episode_length
    copies = max(1, min(COPIES, EXPERIENCE // length))
    last = training.num_epochs - length
    cheapest = (training.cost / training.scale).min(axis=1)
    parts: list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]] = []
    for _ in range(max(1, EXPERIENCE // (copies * length))):
        state = begin(training, random.integers(last + 1, size=copies))
        seen, logits, rewards = [], [], []
        for _ in range(length):
            epoch = state.start + state.done
            observation = observe(training, state, teacher.layout)
            preferred = np.asarray(teacher.action_logits(observation), dtype=np.float32)
            action = np.where(
                random.random(copies) < ASTRAY,
                random.integers(training.num_configurations, size=copies),
                preferred.argmax(axis=1),
            )
            state, reward, _ = step(training, state, action)
            seen.append(observation)
            logits.append(preferred)
            rewards.append((reward + cheapest[epoch]) / unit)
        value = np.zeros(copies)
        returns = []
        for reward in reversed(rewards):
            value = reward + gamma * value
            returns.append(value)
        parts.append((np.concatenate(seen), np.concatenate(logits), np.concatenate(returns[::-1])))
    observations, preferences, values = zip(*parts, strict=True)
    return (
        np.concatenate(observations),
        np.concatenate(preferences),
        np.concatenate(values).astype(np.float32),
    )
