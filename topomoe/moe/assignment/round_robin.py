"""Experts dealt in turn, whatever the logits: even loads, and what ignoring the router costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topomoe.moe.assignment.batch import Batch

if TYPE_CHECKING:
    from torch import Tensor


def assign(batch: Batch) -> Tensor:
    """Return experts n, n + 1, ... mod E for the layer's n-th pair on, over all calls.

    K <= E pairs in a row are distinct, and the loads of a layer never differ by more than 1.
    """
    import torch

    tokens, experts = batch.logits.shape
    pair = torch.arange(tokens * batch.top_k) + int(batch.assigned.sum())
    return (pair % experts).reshape(tokens, batch.top_k)
