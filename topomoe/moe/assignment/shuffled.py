"""Experts drawn at random, whatever the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.moe.assignment.batch import Batch, top

if TYPE_CHECKING:
    from torch import Tensor


def assign(batch: Batch) -> Tensor:
    """Return K distinct experts for every token, every ordered choice of K equally likely."""
    import torch

    rng = np.random.default_rng(batch.seed)
    return top(torch.from_numpy(rng.random(tuple(batch.logits.shape))), batch.top_k)
