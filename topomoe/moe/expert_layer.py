"""The experts of a layer: tokens gathered by expert, two matrix products, scattered back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from topomoe.moe.capacity import capacity, places
from topomoe.moe.routers import make_router
from topomoe.moe.routers.router import Assignment
from topomoe.moe.routers.selection import Selection
from topomoe.moe.settings import LanguageModelSettings


@dataclass(frozen=True, eq=False)
class LayerRouting:
    """What a layer's router chose, and which of its pairs found room."""

    selection: Selection
    kept: Tensor  # bool [A]


class ExpertLayer(nn.Module):
    """y = sum over the kept pairs of weight x expert(x); an expert is relu(x W_in) W_out."""

    def __init__(self, settings: LanguageModelSettings, vocabulary: int) -> None:
        super().__init__()
        self.top_k, self.experts = settings.top_k, settings.experts
        # Expert-choice fills its seats itself.
        own = settings.router == "expert-choice"
        self.capacity_factor = 0.0 if own else settings.capacity_factor
        self.router = make_router(
            settings.router,
            settings.hidden,
            settings.experts,
            settings.top_k,
            settings.capacity_factor,
            vocabulary,
        )
        shape = settings.experts, settings.hidden, settings.expert_hidden
        self.w_in = nn.Parameter(torch.empty(shape))
        self.w_out = nn.Parameter(torch.empty(shape[0], shape[2], shape[1]))

    def draw(self, generator: torch.Generator, depth: int) -> None:
        """Draw the weights of one of ``depth`` layers."""
        self.router.draw(generator)
        nn.init.normal_(self.w_in, std=self.w_in.shape[1] ** -0.5, generator=generator)
        deviation = (2 * depth * self.w_out.shape[1]) ** -0.5
        nn.init.normal_(self.w_out, std=deviation, generator=generator)

    def forward(
        self,
        hidden: Tensor,
        token_ids: Tensor,
        assignment: Assignment | None = None,
        positions: int = 0,
    ) -> tuple[Tensor, LayerRouting]:
        """Return the layer's output [T, d] and its routing; arguments as of ``Router.forward``."""
        selection = self.router(hidden, token_ids, assignment, positions)
        place, load = places(selection.expert, self.experts)
        seats = max(int(load.max()), 1)
        kept = torch.ones_like(place, dtype=torch.bool)
        if self.capacity_factor:
            seats = min(
                seats, capacity(len(hidden), self.top_k, self.experts, self.capacity_factor)
            )
            kept = place < seats
        pair = kept.nonzero()[:, 0]
        token, expert = selection.token[pair], selection.expert[pair]
        seat = expert * seats + place[pair]
        buffer = hidden.new_zeros(self.experts * seats, hidden.shape[1])
        buffer = buffer.index_copy(0, seat, hidden.index_select(0, token))
        output = self.run(buffer.view(self.experts, seats, -1)).view(self.experts * seats, -1)
        weighted = output.index_select(0, seat) * selection.weight[pair, None]
        result = torch.zeros_like(hidden).index_add(0, token, weighted)
        return result, LayerRouting(selection, kept)

    def run(self, buffer: Tensor) -> Tensor:
        """Return the experts' outputs [E, seats, d] for their inputs."""
        return torch.bmm(functional.relu(torch.bmm(buffer, self.w_in)), self.w_out)
