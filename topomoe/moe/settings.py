"""The settings of a small language model and of its training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

from topomoe.moe import balance_loss
from topomoe.moe.routers import names
from topomoe.topologies.errors import InputError, unknown

BALANCE_LOSSES = ("none", *balance_loss.names())


@dataclass(frozen=True)
class LanguageModelSettings:
    """The shape of a decoder all of whose layers have routed experts."""

    layers: int = 4
    """Layers, each of attention and routed experts."""
    hidden: int = 128
    """Width of a token."""
    heads: int = 4
    """Attention heads."""
    expert_hidden: int = 128
    """Width inside an expert."""
    experts: int = 32
    """Experts a layer."""
    top_k: int = 2
    """Experts a token; of expert-choice, on average at capacity factor 1."""
    router: str = "softk"
    """How experts are chosen."""
    capacity_factor: float = 1.25
    """Tokens an expert takes, over tokens x top_k / experts; 0: as many as come."""

    def __post_init__(self) -> None:
        """Check every field; InputError names it."""
        for name in ("layers", "hidden", "heads", "expert_hidden", "experts", "top_k"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.hidden % (2 * self.heads):
            raise InputError(
                "hidden must be an even multiple of heads, "
                f"got hidden={self.hidden} and heads={self.heads}"
            )
        if self.top_k > self.experts:
            raise InputError(f"top_k must be <= experts, got {self.top_k} of {self.experts}")
        if self.router not in names():
            raise unknown("router", self.router, names())
        if self.router == "top1" and self.top_k != 1:
            raise InputError(f"router top1 has top_k 1, got {self.top_k}")
        if self.router in ("softk", "bias-balanced") and self.top_k == 1:
            raise InputError(
                f"router {self.router} needs top_k >= 2: the weight of a single expert would be 1 "
                "whatever its gate says, which would then learn nothing; top1 is for one expert"
            )
        if not 0 <= self.capacity_factor < inf:
            raise InputError(f"capacity_factor must be >= 0 and finite, got {self.capacity_factor}")
        if self.router == "expert-choice" and not self.capacity_factor:
            raise InputError("router expert-choice needs a capacity_factor > 0")


@dataclass(frozen=True)
class TrainingSettings:
    """How a language model is trained."""

    steps: int = 240
    """Optimiser steps."""
    batch_sequences: int = 16
    """Sequences a step."""
    context: int = 128
    """Tokens a sequence."""
    learning_rate: float = 8e-3
    """Peak learning rate of AdamW; it falls along a cosine to a tenth."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.1
    """AdamW's weight decay, of matrices."""
    clip_norm: float = 1.0
    """Largest norm of a step's gradient."""
    balance_loss: str = "switch"
    """Loss that evens out the load of routers with a gate: none, switch, gini, variance, cv,
    entropy. The routers hash, expert-choice and bias-balanced take none."""
    balance_weight: float = 0.1
    """Weight of the balance loss, a layer's mean."""
    z_weight: float = 1e-3
    """Weight of the z-loss, a layer's mean, of the routers that take a balance loss."""
    bias_update: float = 1e-2
    """Step of bias-balanced's bias, in units of its sigmoid scores."""
    curve_points: int = 15
    """Points of the training curve, each with a validation perplexity."""
    validation_sequences: int = 32
    """Validation sequences behind a point of the curve."""
    checkpoint_steps: int = 50
    """Steps between two checkpoints."""

    def __post_init__(self) -> None:
        """Check every field; InputError names it."""
        whole = ("steps", "batch_sequences", "context", "validation_sequences", "checkpoint_steps")
        for name in (*whole, "curve_points"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < inf:
                raise InputError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "balance_weight", "z_weight", "bias_update"):
            if not 0 <= getattr(self, name) < inf:
                raise InputError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if self.balance_loss not in BALANCE_LOSSES:
            raise unknown("balance_loss", self.balance_loss, BALANCE_LOSSES)

    def shortened(self, steps: int) -> TrainingSettings:
        """Return a training of other steps, whose curve is no concern."""
        warmup = min(self.warmup_steps, steps // 2)
        return replace(self, steps=steps, warmup_steps=warmup, curve_points=1)
