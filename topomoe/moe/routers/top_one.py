"""top1: the expert with the largest probability, weighted by it."""

from __future__ import annotations

from torch import Tensor

from topomoe.moe.routers.router import TokenChoice


class TopOne(TokenChoice):
    """One expert a token, y = p_i E_i(x) with p the softmax of all logits.

    Fedus, Zoph, Shazeer, "Switch Transformers" (2021), equations 1 and 2. The weight is the
    probability itself: that is how the gate gets a gradient.
    """

    def weigh(self, logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
        """Return the probabilities [T, 1] of the chosen experts."""
        return probabilities.gather(1, chosen)
