"""What routers have in common, and those in which each token chooses by a linear gate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from topomoe.moe.routers.selection import Selection

Assignment = Callable[[Tensor, int], Tensor]  # (scores [T, E], K) -> experts [T, K]


class Router(nn.Module, ABC):
    """Maps T tokens to pairs of a token and an expert."""

    balances_itself = False  # such a router needs no balance loss

    def __init__(
        self, hidden: int, experts: int, top_k: int, capacity_factor: float, vocabulary: int
    ) -> None:
        super().__init__()
        self.experts = experts
        self.top_k = top_k

    @abstractmethod
    def draw(self, generator: torch.Generator) -> None:
        """Draw the weights."""

    @abstractmethod
    def forward(
        self,
        hidden: Tensor,
        token_ids: Tensor,
        assignment: Assignment | None = None,
        positions: int = 0,
    ) -> Selection:
        """Choose experts.

        Args:
            hidden: tokens [T, d], sequence after sequence.
            token_ids: their ids, int64 [T].
            assignment: chooses the experts instead, where tokens choose; weights stay the
                router's own at those experts.
            positions: of expert-choice, where > 0: tokens of one of so many positions compete only
                with one another, so that no token's experts depend on later tokens.
        """

    def after_step(self, load: Tensor, step: float) -> None:
        """Take note of a training step's ``load`` [E]; only bias-balanced has anything to do."""


class GatedRouter(Router):
    """A router with a linear gate: logits are tokens [T, d] times ``gate`` [E, d]."""

    def __init__(
        self, hidden: int, experts: int, top_k: int, capacity_factor: float, vocabulary: int
    ) -> None:
        super().__init__(hidden, experts, top_k, capacity_factor, vocabulary)
        self.gate = nn.Parameter(torch.empty(experts, hidden))

    def draw(self, generator: torch.Generator) -> None:
        """Draw the gate, with a deviation of d^-1/2."""
        nn.init.normal_(self.gate, std=self.gate.shape[1] ** -0.5, generator=generator)


class TokenChoice(GatedRouter):
    """Every token chooses K experts by the logits of the gate."""

    def forward(
        self,
        hidden: Tensor,
        token_ids: Tensor,
        assignment: Assignment | None = None,
        positions: int = 0,
    ) -> Selection:
        """Choose K experts a token; see ``Router.forward``."""
        logits = hidden @ self.gate.T
        probabilities = self.probabilities(logits)
        score = self.score(logits)
        if assignment is None:
            chosen = score.detach().topk(self.top_k, dim=1).indices
        else:
            chosen = assignment(score.detach(), self.top_k)
        weight = self.weigh(logits, probabilities, chosen)
        token = torch.arange(len(hidden)).repeat_interleave(self.top_k)
        return Selection(logits, probabilities, token, chosen.reshape(-1), weight.reshape(-1))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the gate's probabilities [T, E]."""
        return torch.softmax(logits, dim=1)

    def score(self, logits: Tensor) -> Tensor:
        """Return what the K largest are chosen by, [T, E]."""
        return logits

    @abstractmethod
    def weigh(self, logits: Tensor, probabilities: Tensor, chosen: Tensor) -> Tensor:
        """Return the weights [T, K] of the chosen experts [T, K]."""
