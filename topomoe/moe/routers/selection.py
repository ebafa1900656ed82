"""What a router chose for a batch of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Selection:
    """A pairs of a token and an expert, tokens in order, for T tokens and E experts."""

    logits: Tensor | None  # [T, E] of the gate; None: there is none
    probabilities: Tensor  # [T, E] of the gate, each token's sum to 1
    token: Tensor  # int64 [A]
    expert: Tensor  # int64 [A]
    weight: Tensor  # [A] of the expert's output in the token's

    def load(self) -> Tensor:
        """Return the pairs of each expert, int64 [E]."""
        return torch.bincount(self.expert, minlength=self.probabilities.shape[1])

    def entropy(self) -> Tensor:
        """Return the mean entropy of the gate's probabilities over ln E: 0 sure, 1 even."""
        number = self.probabilities.shape[1]
        if number == 1:
            return self.probabilities.new_zeros(())
        nats: Tensor = torch.special.entr(self.probabilities).sum(dim=1).mean()
        return nats / torch.log(torch.tensor(float(number)))
