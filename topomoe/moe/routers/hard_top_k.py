"""topk-hard: the K largest logits, all weighted alike; gradients pass straight through."""

from __future__ import annotations

from torch import Tensor

from topomoe.moe.routers.router import TokenChoice


class HardTopK(TokenChoice):
    """K experts a token, each weighted 1/K; the gradient is that of the probabilities.

    The straight-through estimator of Bengio, Leonard, Courville (2013): forwards w_i = 1/K,
    backwards dw_i = dp_i, so that the gate learns although the weights are constants.
    """

    def weigh(self, logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
        """Return 1/K everywhere, [T, K], with the gradient of the chosen probabilities."""
        p = probabilities.gather(1, chosen)
        return (p - p.detach()) + 1.0 / self.top_k
