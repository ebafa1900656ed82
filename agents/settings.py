"""The settings of a PPO training, as one documented dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from topomoe.envs.layout import OBSERVE
from topomoe.topologies.errors import InputError, unknown

MOST_UNITS = 4096


@dataclass(frozen=True)
class PPOSettings:
    """How PPO (Schulman et al. 2017) is trained.

    Raises:
        InputError: a setting is out of range; the message names it.
    """

    timesteps: int = 262_144
    """Epochs of experience in all, over all copies; rounded up to whole rollouts."""

    copies: int = 64
    """Environments stepped side by side."""

    rollout: int = 32
    """Epochs each copy runs between two updates."""

    batch_size: int = 512
    """Experiences a gradient step uses."""

    passes: int = 8
    """Times an update goes through its experience."""

    learning_rate: float = 1e-3
    """Adam's step size at the start; it falls linearly to zero."""

    gamma: float = 0.95
    """Discount an epoch."""

    gae_lambda: float = 0.9
    """Decay of generalised advantage estimation (Schulman et al. 2016)."""

    clip_range: float = 0.2
    """How far from 1 the probability ratio may move."""

    entropy: float = 0.003
    """Weight of the entropy bonus."""

    hidden: tuple[int, ...] = (128, 128)
    """Units of the hidden layers, of the policy and of the value network alike."""

    observe: str = "before"
    """Whether the coming epoch's costs are observed: before (no) or after (yes)."""

    queue: bool = True
    """Whether the queue features of the coming epoch are observed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(units) for units in self.hidden))
        for name in ("timesteps", "copies", "rollout", "batch_size", "passes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be 0..1, got {getattr(self, name)}")
        if not (
            0 < self.learning_rate < inf and 0 < self.clip_range < inf and 0 <= self.entropy < inf
        ):
            raise InputError(
                "learning_rate and clip_range must be > 0, entropy >= 0, and all of them finite, "
                f"got {self.learning_rate}, {self.clip_range}, {self.entropy}"
            )
        if any(not 1 <= units <= MOST_UNITS for units in self.hidden):
            raise InputError(
                f"hidden layers must have 1..{MOST_UNITS} units, got {list(self.hidden)}"
            )
        experience = self.copies * self.rollout
        if experience < 2 or experience % min(self.batch_size, experience):
            raise InputError(
                "batch_size must divide copies * rollout (>= 2), "
                f"got batch_size={self.batch_size}, copies={self.copies}, rollout={self.rollout}"
            )
        if self.observe not in OBSERVE:
            raise unknown("observe", self.observe, OBSERVE)
