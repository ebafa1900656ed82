"""The router's own choice: the K largest logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topomoe.moe.assignment.batch import Batch, top

if TYPE_CHECKING:
    from torch import Tensor


def assign(batch: Batch) -> Tensor:
    """Return the K experts of largest logit, best first."""
    return top(batch.logits, batch.top_k)
