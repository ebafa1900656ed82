"""softk: the K largest logits, weighted by their softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from topomoe.moe.routers.router import TokenChoice


class SoftTopK(TokenChoice):
    """K experts a token, weighted by the softmax over the K chosen logits.

    Shazeer et al., "Outrageously Large Neural Networks" (2017), equations 3 and 5, without noise;
    Mixtral's rule.
    """

    def weigh(self, logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
        """Return the softmax over the chosen logits, [T, K]."""
        return torch.softmax(logits.gather(1, chosen), dim=1)
