"""The least loaded of a token's best 2K experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from topomoe.moe.assignment.batch import Batch, relative_load, top
from topomoe.topologies.kernel import exact_kernel

if TYPE_CHECKING:
    from torch import Tensor

CANDIDATES = 2  # a chosen expert


def assign(batch: Batch) -> Tensor:
    """Return for every token the K least loaded of its min(2K, E) experts of largest logit.

    Tokens come in order. An expert's load is the pairs that this rule has given it, up to the token
    before, plus its calibration load scaled to a mean of one pair an expert: calibration decides
    between experts at first, what really happened soon outweighs it. Equal loads go to the larger
    logit; a row lists its experts by falling logit.
    """
    import torch

    candidates = top(batch.logits, min(CANDIDATES * batch.top_k, batch.logits.shape[1]))
    prior, count = relative_load(batch.load), batch.assigned.copy()
    return torch.from_numpy(_least_loaded(candidates.cpu().numpy(), prior, count, batch.top_k))


@exact_kernel
def _least_loaded(
    candidates: NDArray[np.int64],
    prior: NDArray[np.float64],
    count: NDArray[np.int64],
    top_k: int,
) -> NDArray[np.int64]:
    """Return the K of least prior [E] + count [E] in each row of candidates [T, C].

    ``count`` is counted up; kept apart from ``prior``, so that one call rounds as two halves do.
    """
    tokens, width = candidates.shape
    chosen = np.empty((tokens, top_k), dtype=np.int64)
    for t in range(tokens):
        taken = np.zeros(width, dtype=np.bool_)
        for _ in range(top_k):
            best, least = -1, np.inf
            for c in range(width):
                expert = candidates[t, c]
                if not taken[c] and prior[expert] + count[expert] < least:
                    best, least = c, prior[expert] + count[expert]
            taken[best] = True
        k = 0
        for c in range(width):
            if taken[c]:
                chosen[t, k] = candidates[t, c]
                count[candidates[t, c]] += 1
                k += 1
    return chosen
