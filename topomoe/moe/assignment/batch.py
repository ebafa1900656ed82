"""What an assignment rule may look at, and the steps that several rules share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """One call: a layer's tokens, its calibration, and what the rule did in this layer before."""

    logits: Tensor
    """The router's logits, [T, E]."""
    top_k: int
    """Experts a token, K."""
    load: NDArray[np.float64]
    """Token-expert pairs at calibration, [E]."""
    assigned: NDArray[np.int64]
    """Token-expert pairs that this rule has assigned in this layer so far, [E]."""
    capacity_factor: float
    """Pairs an expert takes of this batch, over the even share T*K/E; 0: no limit."""
    seed: tuple[int, int, int]
    """Seed, layer, calls of this layer before: the seed of this call's draws."""


def relative_load(load: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the load over its mean, [E]; an idle layer counts as even."""
    mean = load.mean()
    return load / mean if mean > 0 else np.ones_like(load)


def top(scores: Tensor, top_k: int) -> Tensor:
    """Return the K best experts of every token, best first, [T, E] -> int64 [T, K].

    ``topk`` as in the models themselves, so that equal scores (common in bfloat16) fall alike.
    """
    return scores.topk(top_k, dim=-1).indices


def shifted(logits: Tensor, shift: NDArray[np.float64]) -> Tensor:
    """Return logits [T, E] + shift [E], in float32 at least: bfloat16 would round the shift off."""
    import torch

    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return wide + torch.from_numpy(shift).to(wide)
