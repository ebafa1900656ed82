"""PPO by Stable-Baselines3, and MaskablePPO by sb3-contrib, set up for many copies on one core."""

from __future__ import annotations

from typing import Any

from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from topomoe.agents.networks import ActorCritic, MaskableActorCritic
from topomoe.agents.regret import EpochRegret
from topomoe.agents.settings import PPOSettings


def make_ppo(copies: EpochRegret, settings: PPOSettings, seed: int, policy: dict[str, Any]) -> PPO:
    """Return PPO (Schulman et al. 2017) before its first step."""
    model = PPO(ActorCritic, copies, policy_kwargs=policy, **_arguments(settings, seed))
    assert isinstance(model.policy, ActorCritic)
    model.policy.prefer_staying(settings.stay)
    return model


def make_maskable_ppo(
    copies: EpochRegret, settings: PPOSettings, seed: int, policy: dict[str, Any]
) -> MaskablePPO:
    """Return MaskablePPO (Huang, Ontanon 2022), which asks the copies what may be chosen."""
    model = MaskablePPO(
        MaskableActorCritic, copies, policy_kwargs=policy, **_arguments(settings, seed)
    )
    assert isinstance(model.policy, MaskableActorCritic)
    model.policy.prefer_staying(settings.stay)
    return model


def _arguments(settings: PPOSettings, seed: int) -> dict[str, Any]:
    return {
        "learning_rate": lambda left: settings.learning_rate * left,
        "n_steps": settings.rollout,
        "batch_size": min(settings.batch_size, settings.copies * settings.rollout),
        "n_epochs": settings.passes,
        "gamma": settings.gamma,
        "gae_lambda": settings.gae_lambda,
        "clip_range": settings.clip_range,
        "ent_coef": settings.entropy,
        "seed": seed,
        "device": "cpu",
    }
