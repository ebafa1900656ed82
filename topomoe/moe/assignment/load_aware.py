"""Flattened logits less the relative calibration load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topomoe.moe.assignment.batch import Batch, relative_load, shifted, top

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 2.0


def assign(batch: Batch) -> Tensor:
    """Return the K experts of largest logit_e / T - (load_e - mean) / mean, with T = 2.

    The penalty is linear in the load: an expert at twice the mean needs a logit larger by T.
    """
    penalty = relative_load(batch.load) - 1.0
    return top(shifted(batch.logits / TEMPERATURE, -penalty), batch.top_k)
