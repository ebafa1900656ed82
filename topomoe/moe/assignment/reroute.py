"""The router's own choice up to a capacity per expert; beyond it, the next best with room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from topomoe.moe.assignment.batch import Batch, top
from topomoe.moe.capacity import capacity
from topomoe.topologies.kernel import exact_kernel

if TYPE_CHECKING:
    from torch import Tensor


def assign(batch: Batch) -> Tensor:
    """Return every token's best K experts, re-routed where an expert has taken its capacity.

    Pairs come in order: tokens as in the batch, the experts of a token by falling logit. An expert
    is full once it has ceil(CF*T*K/E) pairs of this batch (CF = 0: never). A pair whose expert is
    full goes to the token's expert of next largest logit that has room and is not among its own K;
    where there is none, it stays with its own, over capacity.
    """
    import torch

    own = top(batch.logits, batch.top_k)
    tokens, experts = batch.logits.shape
    if batch.capacity_factor == 0:
        return own
    most = capacity(tokens, batch.top_k, experts, batch.capacity_factor)
    # float64 holds every logit of a narrower type exactly: one compiled kernel, the same order.
    logits = batch.logits.to(torch.float64).cpu().contiguous().numpy()
    return torch.from_numpy(_with_room(own.cpu().numpy(), logits, most))


@exact_kernel
def _with_room(own: NDArray[np.int64], logits: NDArray[np.float64], most: int) -> NDArray[np.int64]:
    """Return the experts [T, K] of own choices [T, K], none beyond its capacity if avoidable."""
    tokens, top_k = own.shape
    experts = logits.shape[1]
    chosen = own.copy()
    count = np.zeros(experts, dtype=np.int64)
    has = np.zeros(experts, dtype=np.bool_)
    for t in range(tokens):
        has[:] = False
        for k in range(top_k):
            has[own[t, k]] = True
        for k in range(top_k):
            if count[own[t, k]] >= most:
                best = -np.inf
                for e in range(experts):
                    if count[e] < most and not has[e] and logits[t, e] > best:
                        best = logits[t, e]
                        chosen[t, k] = e
                has[chosen[t, k]] = True
            count[chosen[t, k]] += 1
    return chosen
