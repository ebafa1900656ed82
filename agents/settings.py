"""The settings of the trainings by reinforcement learning, as documented dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from topomoe.envs.layout import OBSERVE
from topomoe.topologies.errors import InputError, unknown

MOST_UNITS, MOST_LAYERS = 4096, 8
TEACHERS = ("fitted-q", "hindsight")


@dataclass(frozen=True)
class ObservationSettings:
    """What a learner sees.

    Raises:
        InputError: ``observe`` is neither ``before`` nor ``after``.
    """

    observe: str = "before"
    """Whether the coming epoch's costs are observed: before (no) or after (yes)."""

    queue: bool = True
    """Whether the queue features of the coming epoch are observed."""

    def __post_init__(self) -> None:
        if self.observe not in OBSERVE:
            raise unknown("observe", self.observe, OBSERVE)


@dataclass(frozen=True)
class PPOSettings:
    """How PPO (Schulman et al. 2017) is trained, and MaskablePPO (Huang, Ontanon 2022) alike.

    Raises:
        InputError: a setting is out of range; the message names it.
    """

    timesteps: int = 1_048_576
    """Epochs of experience in all, over all copies; rounded up to whole rollouts."""

    copies: int = 256
    """Environments stepped side by side."""

    rollout: int = 32
    """Epochs each copy runs between two updates."""

    batch_size: int = 2048
    """Experiences a gradient step uses."""

    passes: int = 4
    """Times an update goes through its experience."""

    learning_rate: float = 1e-3
    """Adam's step size at the start; it falls linearly to zero."""

    weight_decay: float = 0.0
    """Share of the weights, times the step size, that each gradient step takes away."""

    gamma: float = 0.95
    """Discount an epoch."""

    gae_lambda: float = 0.9
    """Decay of generalised advantage estimation (Schulman et al. 2016)."""

    clip_range: float = 0.2
    """How far from 1 the probability ratio may move."""

    entropy: float = 0.003
    """Weight of the entropy bonus."""

    stay: float = 3.0
    """How much likelier (in logits) it is at first to stay than to switch to any one."""

    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers, of the policy and of the value network alike."""

    warm_start: str = ""
    """Learner whose choices the policy imitates first: fitted-q, hindsight, or none if empty."""

    candidates: int = 8
    """Policies of the training's second half among which validation chooses."""

    checkpoint_every: int = 4
    """Updates between two checkpoints."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(units) for units in self.hidden))
        counts = ("timesteps", "copies", "rollout", "batch_size", "passes", "candidates")
        _at_least_one(self, (*counts, "checkpoint_every"))
        _shares(self, ("gamma", "gae_lambda"))
        _finite(self, ("learning_rate", "clip_range"), above_zero=True)
        _finite(self, ("entropy", "stay", "weight_decay"), above_zero=False)
        _layers("hidden", self.hidden)
        experience = self.copies * self.rollout
        if experience < 2 or experience % min(self.batch_size, experience):
            raise InputError(
                "batch_size must divide copies * rollout (>= 2), "
                f"got batch_size={self.batch_size}, copies={self.copies}, rollout={self.rollout}"
            )
        if self.warm_start and self.warm_start not in TEACHERS:
            raise unknown("warm_start", self.warm_start, TEACHERS)


@dataclass(frozen=True)
class DQNSettings:
    """How DQN (Mnih et al. 2015) is trained, on many copies side by side.

    Raises:
        InputError: a setting is out of range; the message names it.
    """

    dqn_timesteps: int = 524_288
    """Epochs of experience in all, over all copies; rounded up to whole rounds."""

    dqn_copies: int = 128
    """Environments stepped side by side."""

    dqn_rollout: int = 8
    """Epochs each copy runs between two rounds of gradient steps."""

    dqn_gradient_steps: int = 12
    """Gradient steps a round."""

    dqn_batch_size: int = 512
    """Experiences a gradient step draws from the replay buffer."""

    dqn_buffer: int = 131_072
    """Experiences the replay buffer holds."""

    dqn_learning_starts: int = 8_192
    """Experiences gathered before the first gradient step."""

    dqn_learning_rate: float = 1e-3
    """Adam's step size at the start; it falls linearly to zero."""

    dqn_weight_decay: float = 0.0
    """Share of the weights, times the step size, that each gradient step takes away."""

    dqn_gamma: float = 0.95
    """Discount an epoch."""

    dqn_target_every: int = 4_096
    """Experiences between two copies of the network to the target network."""

    dqn_exploration: float = 0.05
    """Share of random choices once exploration has fallen."""

    dqn_exploration_share: float = 0.3
    """Share of the training over which random choices fall from all to that."""

    dqn_stay: float = 1.0
    """How much better, in units of the mean regret an epoch, staying is taken to be at first."""

    dqn_hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers."""

    dqn_candidates: int = 8
    """Policies of the training's second half among which validation chooses."""

    dqn_checkpoint_every: int = 64
    """Rounds between two checkpoints, which hold the replay buffer too."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dqn_hidden", tuple(int(units) for units in self.dqn_hidden))
        names = (
            "timesteps copies rollout gradient_steps batch_size buffer learning_starts "
            "target_every candidates checkpoint_every"
        )
        _at_least_one(self, [f"dqn_{name}" for name in names.split()])
        _shares(self, ("dqn_gamma", "dqn_exploration", "dqn_exploration_share"))
        _finite(self, ("dqn_learning_rate",), above_zero=True)
        _finite(self, ("dqn_stay", "dqn_weight_decay"), above_zero=False)
        _layers("dqn_hidden", self.dqn_hidden)
        if self.dqn_buffer < self.dqn_copies:
            raise InputError(
                "dqn_buffer must be >= dqn_copies, "
                f"got dqn_buffer={self.dqn_buffer}, dqn_copies={self.dqn_copies}"
            )


def _at_least_one(settings: object, names: Sequence[str]) -> None:
    for name in names:
        if getattr(settings, name) < 1:
            raise InputError(f"{name} must be >= 1, got {getattr(settings, name)}")


def _shares(settings: object, names: Sequence[str]) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise InputError(f"{name} must be 0..1, got {getattr(settings, name)}")


def _finite(settings: object, names: Sequence[str], above_zero: bool) -> None:
    for name in names:
        value = getattr(settings, name)
        if not isfinite(value) or value < 0 or (above_zero and value == 0):
            relation = "> 0" if above_zero else ">= 0"
            raise InputError(f"{name} must be {relation} and finite, got {value}")


def _layers(name: str, hidden: tuple[int, ...]) -> None:
    if len(hidden) > MOST_LAYERS or any(not 1 <= units <= MOST_UNITS for units in hidden):
        raise InputError(
            f"{name} must be at most {MOST_LAYERS} layers of 1..{MOST_UNITS} units, "
            f"got {list(hidden)}"
        )
