"""A small decoder whose every layer has attention and routed experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from topomoe.moe.expert_layer import ExpertLayer, LayerRouting
from topomoe.moe.settings import LanguageModelSettings

ROTARY_BASE = 10_000.0
HEAD_DEVIATION = 0.02  # of the first weights of the output
# (layer, scores [T, E], K) -> experts [T, K], distinct in each row.
Assigner = Callable[[int, Tensor, int], Tensor]


@dataclass(frozen=True, eq=False)
class Output:
    """Next-token logits and every layer's routing."""

    logits: Tensor  # [B, L, V]
    layers: tuple[LayerRouting, ...]


class Attention(nn.Module):
    """Causal self-attention with rotary positions (Su et al. 2021)."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.w_in = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.w_out = nn.Parameter(torch.empty(hidden, hidden))

    def draw(self, generator: torch.Generator, depth: int) -> None:
        """Draw the weights of one of ``depth`` layers."""
        deviation = self.w_out.shape[0] ** -0.5
        nn.init.normal_(self.w_in, std=deviation, generator=generator)
        nn.init.normal_(self.w_out, std=deviation * (2 * depth) ** -0.5, generator=generator)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Return the layer's output [B, L, d]; cosine and sine are [L, d / heads / 2]."""
        batch, length, hidden = x.shape
        parts = functional.linear(x, self.w_in).view(batch, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = (_rotate(part, cosine, sine) for part in (query, key))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return functional.linear(mixed.transpose(1, 2).reshape(batch, length, hidden), self.w_out)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class Layer(nn.Module):
    """x + attention(norm x), then x + experts(norm x)."""

    def __init__(self, settings: LanguageModelSettings, vocabulary: int) -> None:
        super().__init__()
        self.attention = Attention(settings.hidden, settings.heads)
        self.experts = ExpertLayer(settings, vocabulary)
        self.attention_norm = nn.RMSNorm(settings.hidden, eps=1e-6)
        self.expert_norm = nn.RMSNorm(settings.hidden, eps=1e-6)


class LanguageModel(nn.Module):
    """Predicts the next token, at first nearly all alike.

    Args:
        settings: the shape.
        vocabulary: different token ids, V.
        seed: of the initial weights.
    """

    def __init__(self, settings: LanguageModelSettings, vocabulary: int, seed: int = 0) -> None:
        super().__init__()
        self.settings, self.vocabulary = settings, vocabulary
        self.embedding = nn.Parameter(torch.empty(vocabulary, settings.hidden))
        self.layers = nn.ModuleList(Layer(settings, vocabulary) for _ in range(settings.layers))
        self.norm = nn.RMSNorm(settings.hidden, eps=1e-6)
        self.head = nn.Parameter(torch.empty(vocabulary, settings.hidden))
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.embedding, generator=generator)
        nn.init.normal_(self.head, std=HEAD_DEVIATION, generator=generator)
        for layer in self.layers:
            layer.attention.draw(generator, settings.layers)  # type: ignore[operator, union-attr]
            layer.experts.draw(generator, settings.layers)  # type: ignore[operator, union-attr]

    @property
    def expert_layers(self) -> tuple[ExpertLayer, ...]:
        """The layers' experts, first to last."""
        return tuple(layer.experts for layer in self.layers)  # type: ignore[misc]

    def forward(
        self, tokens: Tensor, assignment: Assigner | None = None, causal: bool = False
    ) -> Output:
        """Return logits and routing of token ids [B, L].

        Args:
            tokens: int64 [B, L].
            assignment: chooses the experts of every layer instead of the router.
            causal: expert-choice picks among tokens of the same position only.
        """
        batch, length = tokens.shape
        cosine, sine = self._angles(length)
        ids = tokens.reshape(-1)
        # Not embedding[tokens]: threads would add up its gradient in an order that differs by run.
        x = functional.embedding(tokens, self.embedding)
        routings = []
        for number, layer in enumerate(self.layers):
            x = x + layer.attention(layer.attention_norm(x), cosine, sine)  # type: ignore[operator]
            flat = layer.expert_norm(x).view(batch * length, -1)  # type: ignore[operator]
            assign = None if assignment is None else _of_layer(assignment, number)
            mixed, routing = layer.experts(flat, ids, assign, length if causal else 0)  # type: ignore[operator]
            x = x + mixed.view_as(x)
            routings.append(routing)
        return Output(functional.linear(self.norm(x), self.head), tuple(routings))

    def _angles(self, length: int) -> tuple[Tensor, Tensor]:
        half = self.settings.hidden // self.settings.heads // 2
        speed = ROTARY_BASE ** (-torch.arange(half) / half)
        angle = torch.arange(length)[:, None] * speed
        return angle.cos(), angle.sin()

    def parameter_counts(self) -> tuple[int, int]:
        """Return all learned parameters, and those that a token of average load runs through."""
        everything = sum(p.numel() for p in self.parameters())
        experts = sum(e.w_in.numel() + e.w_out.numel() for e in self.expert_layers)
        share = self.settings.top_k / self.settings.experts
        return everything, everything - experts + round(experts * share)


def _of_layer(assignment: Assigner, layer: int) -> Callable[[Tensor, int], Tensor]:
    return lambda scores, top_k: assignment(layer, scores, top_k)
