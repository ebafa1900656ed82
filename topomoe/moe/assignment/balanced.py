"""Logits less the log of the calibration load: hot experts need larger logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.moe.assignment.batch import Batch, shifted, top

if TYPE_CHECKING:
    from torch import Tensor


def assign(batch: Batch) -> Tensor:
    """Return the K experts of largest logit_e - ln(load_e / mean load).

    In softmax terms the gate probabilities are divided by the experts' load shares. A load changes
    faster than that where logits spread little, so that hot experts may come out cold. An expert
    that calibration never saw counts as one pair, or as the least load seen if that is below one.
    """
    seen = batch.load[batch.load > 0]
    least = min(1.0, seen.min()) if seen.size else 1.0
    load = np.where(batch.load > 0, batch.load, least)
    # The mean is over the counts as given, so that a floor for one expert shifts no other.
    scale = batch.load.mean() if seen.size else 1.0
    return top(shifted(batch.logits, -np.log(load / scale)), batch.top_k)
