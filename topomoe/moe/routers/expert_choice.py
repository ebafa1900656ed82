"""expert-choice: every expert picks its tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from topomoe.moe.capacity import capacity
from topomoe.moe.routers.router import Assignment, GatedRouter
from topomoe.moe.routers.selection import Selection
from topomoe.topologies.errors import InputError


class ExpertChoice(GatedRouter):
    """Each expert takes the ceil(CF T K / E) tokens that give it most probability.

    Zhou et al., "Mixture-of-Experts with Expert Choice Routing" (2022), section 3.2: the softmax is
    over experts, the top is over tokens, the weight is the probability. A token may get any number
    of experts, none too. In a language model the choice lets later tokens decide over earlier ones:
    its perplexity is not that of a causal model unless tokens compete position by position.
    """

    balances_itself = True

    def __init__(
        self, hidden: int, experts: int, top_k: int, capacity_factor: float, vocabulary: int
    ) -> None:
        super().__init__(hidden, experts, top_k, capacity_factor, vocabulary)
        self.capacity_factor = capacity_factor

    def forward(
        self,
        hidden: Tensor,
        token_ids: Tensor,
        assignment: Assignment | None = None,
        positions: int = 0,
    ) -> Selection:
        """Let experts pick; see ``Router.forward``. InputError for an assignment."""
        if assignment is not None:
            raise InputError("router expert-choice: tokens do not choose, nothing can be assigned")
        logits = hidden @ self.gate.T
        probabilities = torch.softmax(logits, dim=1)
        groups = positions or 1  # tokens of a position are ``positions`` apart
        offered = probabilities.reshape(-1, groups, self.experts).permute(1, 2, 0)  # [G, E, T/G]
        rivals = offered.shape[2]
        seats = min(capacity(rivals, self.top_k, self.experts, self.capacity_factor), rivals)
        picked = offered.detach().topk(seats, dim=2).indices  # [G, E, seats]
        group = torch.arange(groups)[:, None, None]
        token = (picked * groups + group).reshape(-1)
        expert = torch.arange(self.experts)[None, :, None].expand_as(picked).reshape(-1)
        order = torch.argsort(token, stable=True)
        token, expert = token[order], expert[order]
        return Selection(logits, probabilities, token, expert, probabilities[token, expert])
