"""DQN by Stable-Baselines3, set up for many copies on one core."""

from __future__ import annotations

from typing import Any

from stable_baselines3 import DQN

from topomoe.agents.networks import ActionValue
from topomoe.agents.regret import EpochRegret
from topomoe.agents.settings import DQNSettings


def make_dqn(copies: EpochRegret, settings: DQNSettings, seed: int, policy: dict[str, Any]) -> DQN:
    """Return DQN (Mnih et al. 2015) before its first step."""
    model = DQN(
        ActionValue,
        copies,
        policy_kwargs=policy,
        learning_rate=lambda left: settings.dqn_learning_rate * left,
        buffer_size=settings.dqn_buffer,
        learning_starts=settings.dqn_learning_starts,
        batch_size=settings.dqn_batch_size,
        gamma=settings.dqn_gamma,
        train_freq=settings.dqn_rollout,
        gradient_steps=settings.dqn_gradient_steps,
        target_update_interval=max(settings.dqn_target_every, settings.dqn_copies),
        exploration_fraction=settings.dqn_exploration_share,
        exploration_final_eps=settings.dqn_exploration,
        # The end of an episode is part of the problem: nothing is ever cut short.
        replay_buffer_kwargs={"handle_timeout_termination": False},
        seed=seed,
        device="cpu",
    )
    assert isinstance(model.policy, ActionValue)
    model.policy.prefer_staying(settings.dqn_stay)
    return model
