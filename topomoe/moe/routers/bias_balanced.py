"""bias-balanced: the K largest scores plus a bias that evens out the load, no auxiliary loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from topomoe.moe.routers.router import TokenChoice


class BiasBalanced(TokenChoice):
    """K experts a token by sigmoid score + bias; the bias is for choosing only.

    DeepSeek-AI, "DeepSeek-V3 Technical Report" (2024), equations 12 to 16: scores are sigmoids,
    weights the chosen scores over their sum; after each step the bias of an expert with more than
    the mean load falls by a constant, of one with less it rises.
    """

    balances_itself = True
    bias: Tensor

    def __init__(
        self, hidden: int, experts: int, top_k: int, capacity_factor: float, vocabulary: int
    ) -> None:
        super().__init__(hidden, experts, top_k, capacity_factor, vocabulary)
        self.register_buffer("bias", torch.zeros(experts))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the scores over their sum, [T, E]."""
        # A softmax of log scores: no 0 / 0 where every score is tiny.
        return torch.softmax(functional.logsigmoid(logits), dim=1)

    def score(self, logits: Tensor) -> Tensor:
        """Return score + bias, [T, E]."""
        return torch.sigmoid(logits) + self.bias

    def weigh(self, logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
        """Return the chosen scores over their sum, [T, K]."""
        return torch.softmax(functional.logsigmoid(logits.gather(1, chosen)), dim=1)

    def after_step(self, load: Tensor, step: float) -> None:
        """Move every bias by ``step`` against its expert's part of the load, unless frozen."""
        if self.gate.requires_grad:
            self.bias += step * torch.sign(load.float().mean() - load.float())
