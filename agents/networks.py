"""The networks of learned policies: hidden layers, and beside them one rule for all configurations.

The rule scores every configuration alike from what is known of it: whether it is set, its last and
its average cost, the forecasts of its cost, and the price of switching to it. Being the same for
all, it is learned from a few thousand epochs even where configurations are many; the hidden layers
learn what is left.
"""

from __future__ import annotations

from typing import cast

import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.dqn.policies import DQNPolicy, QNetwork
from torch import nn

GAIN = 10.0  # lets the few weights of the rule move as fast as the many of the layers


class SharedRule(nn.Module):
    """One linear rule for all K configurations: features [n, F] -> scores [n, K].

    A score is the sum over what is known of a configuration, each with two weights: one as it is,
    one times the share of the episode that is left. Features are laid out as ``features.fit`` has
    them: current, last, average, ..., left, forecast, later forecast, price.
    """

    def __init__(self, size: int, count: int) -> None:
        super().__init__()
        self.count, self.left = count, size - 3 * count - 1
        self.starts = (0, count, 2 * count, *(size - back * count for back in (3, 2, 1)))
        self.weight = nn.Parameter(torch.zeros(2, len(self.starts)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        known = torch.stack([features[:, at : at + self.count] for at in self.starts], dim=1)
        left = features[:, self.left : self.left + 1]
        weight = GAIN * (self.weight[0] + left * self.weight[1])
        return torch.bmm(weight[:, None], known)[:, 0]


class Beside(nn.Module):
    """Hidden layers [n, size] -> [n, units], with the rule's scores appended: [n, units + K]."""

    def __init__(self, size: int, hidden: list[int], count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*create_mlp(size, 0, hidden, nn.ReLU))
        self.rule = SharedRule(size, count)
        self.units = hidden[-1] if hidden else 0
        self.size = self.units + count

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the last hidden layer and the rule's scores, side by side."""
        scores = self.rule(features)
        return torch.cat([self.layers(features), scores], dim=1) if self.units else scores


class ActorAndCritic(nn.Module):
    """The two networks up to their last layers, as Stable-Baselines3's ``MlpExtractor``."""

    def __init__(self, size: int, hidden: list[int], count: int) -> None:
        super().__init__()
        self.policy_net = Beside(size, hidden, count)
        self.value_net = nn.Sequential(*create_mlp(size, 0, hidden, nn.ReLU))
        self.latent_dim_pi = self.policy_net.size
        self.latent_dim_vf = hidden[-1] if hidden else size

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what actor and critic make of the features."""
        return self.policy_net(features), self.value_net(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the actor makes of the features."""
        return self.policy_net(features)  # type: ignore[no-any-return]

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the critic makes of the features."""
        return self.value_net(features)  # type: ignore[no-any-return]


class _WithRule:
    action_net: nn.Module
    mlp_extractor: ActorAndCritic
    action_space: spaces.Discrete
    features_dim: int
    net_arch: list[int]

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = ActorAndCritic(
            self.features_dim, list(self.net_arch), int(self.action_space.n)
        )

    def scores(self, observation: torch.Tensor) -> torch.Tensor:
        """Return the logits [n, K] of the configurations."""
        features = cast(ActorCriticPolicy, self).extract_features(observation)
        assert isinstance(features, torch.Tensor)
        return self.action_net(self.mlp_extractor.forward_actor(features))  # type: ignore[no-any-return]

    def prefer_staying(self, amount: float) -> None:
        """Start with logits that prefer the configuration that is set by ``amount``."""
        _prefer_staying(self.mlp_extractor.policy_net, self.action_net, amount)


class ActorCritic(_WithRule, ActorCriticPolicy):  # type: ignore[misc]
    """The policy of PPO."""


class MaskableActorCritic(_WithRule, MaskableActorCriticPolicy):  # type: ignore[misc]
    """The policy of MaskablePPO."""


class _ActionValue(QNetwork):
    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        assert isinstance(self.action_space, spaces.Discrete)
        count = int(self.action_space.n)
        beside = Beside(self.features_dim, self.net_arch, count)
        self.q_net = nn.Sequential(beside, nn.Linear(beside.size, count))


class ActionValue(DQNPolicy):
    """The network of DQN, and its target."""

    def make_q_net(self) -> QNetwork:
        """Return one action-value network."""
        given = self._update_features_extractor(self.net_args, features_extractor=None)
        return _ActionValue(**given).to(self.device)

    def scores(self, observation: torch.Tensor) -> torch.Tensor:
        """Return the values [n, K] of the configurations."""
        return self.q_net(observation)  # type: ignore[no-any-return]

    def prefer_staying(self, amount: float) -> None:
        """Start with staying worth ``amount`` more than any switch, and all else equal."""
        beside, last = self.q_net.q_net
        assert isinstance(beside, Beside)
        _prefer_staying(beside, last, amount)
        self.q_net_target.load_state_dict(self.q_net.state_dict())


Network = ActorCritic | MaskableActorCritic | ActionValue


def _prefer_staying(beside: Beside, last: nn.Module, amount: float) -> None:
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight *= 0.01 / max(float(last.weight.abs().max()), 1e-12)
        last.bias.zero_()
        last.weight[:, beside.units :] += torch.eye(last.out_features)
        beside.rule.weight[0, 0] = amount / GAIN
