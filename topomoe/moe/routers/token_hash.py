"""hash: experts by a fixed random table of the token's id; nothing is learned."""

from __future__ import annotations

import torch
from torch import Tensor

from topomoe.moe.routers.router import Assignment, Router
from topomoe.moe.routers.selection import Selection
from topomoe.topologies.errors import InputError


class TokenHash(Router):
    """K different experts for each token id, drawn once, each weighted 1/K.

    Roller et al., "Hash Layers for Large Sparse Models" (2021), section 3: a random hash of the
    token itself, so the same word goes to the same experts wherever it stands.
    """

    balances_itself = True
    table: Tensor

    def __init__(
        self, hidden: int, experts: int, top_k: int, capacity_factor: float, vocabulary: int
    ) -> None:
        super().__init__(hidden, experts, top_k, capacity_factor, vocabulary)
        self.register_buffer("table", torch.zeros(vocabulary, top_k, dtype=torch.int64))

    def draw(self, generator: torch.Generator) -> None:
        """Draw the table [vocabulary, K]."""
        order = torch.rand(len(self.table), self.experts, generator=generator)
        self.table.copy_(order.argsort(dim=1)[:, : self.top_k])

    def forward(
        self,
        hidden: Tensor,
        token_ids: Tensor,
        assignment: Assignment | None = None,
        positions: int = 0,
    ) -> Selection:
        """Look the experts up; see ``Router.forward``. InputError for an assignment: no gate."""
        if assignment is not None:
            raise InputError("router hash has no logits that an assignment could start from")
        chosen = self.table[token_ids]
        weight = hidden.new_full(chosen.shape, 1.0 / self.top_k)
        probabilities = hidden.new_zeros(len(hidden), self.experts).scatter(1, chosen, weight)
        token = torch.arange(len(hidden)).repeat_interleave(self.top_k)
        return Selection(None, probabilities, token, chosen.reshape(-1), weight.reshape(-1))
