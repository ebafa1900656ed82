"""How many tokens an expert takes, and which of those that chose it."""

from __future__ import annotations

import torch
from torch import Tensor

from topomoe.model import expert_capacity


def capacity(tokens: int, top_k: int, experts: int, capacity_factor: float) -> int:
    """Return ceil(CF T K / E), the tokens that an expert takes, at least 1; CF > 0.

    >>> capacity(128, 2, 32, 1.25)
    10
    """
    return max(expert_capacity(capacity_factor, tokens, top_k, experts), 1)


def places(expert: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Return each pair's place in its expert's queue, int64 [A], and the experts' loads [E].

    First come, first served, in the order of the pairs [A].
    """
    order = torch.argsort(expert, stable=True)
    load = torch.bincount(expert, minlength=experts)
    start = load.cumsum(0) - load
    place = torch.empty_like(expert)
    place[order] = torch.arange(len(expert)) - start[expert[order]]
    return place, load
