"""Low-rank adapters beside the experts of a frozen language model, and which tokens they serve.

Liu et al., "PERFT: Parameter-Efficient Routed Fine-Tuning for Mixture-of-Expert Model" (2024): the
layer's output gains sum over n of g_n(h) U_n D_n h, where D_n maps the token h to r numbers and U_n
maps them back. The variants differ in the gate g alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from topomoe.moe.adapter_settings import AdapterSettings
from topomoe.moe.expert_layer import ExpertLayer, LayerRouting
from topomoe.moe.language_model import LanguageModel
from topomoe.topologies.errors import InputError


class Adapters(nn.Module):
    """A layer's adapters; their output is 0 until ``up`` has been trained."""

    def __init__(
        self, settings: AdapterSettings, hidden: int, experts: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.settings = settings
        shape = settings.count(experts), settings.rank
        deviation = hidden**-0.5
        self.down = nn.Parameter(torch.empty(*shape, hidden))
        self.up = nn.Parameter(torch.zeros(*shape, hidden))
        nn.init.normal_(self.down, std=deviation, generator=generator)
        if settings.variant == "routed":
            self.gate = nn.Parameter(torch.empty(shape[0], hidden))
            nn.init.normal_(self.gate, std=deviation, generator=generator)

    def forward(self, hidden: Tensor, routing: LayerRouting) -> Tensor:
        """Return what is added to the layer's output [T, d], for its input and its routing.

        Every adapter is computed for every token and then weighted: the few columns of all
        adapters together are one matrix product, narrower than the experts of most models.
        """
        inner = torch.einsum("td,nrd->tnr", hidden, self.down)
        weight = self.weights(hidden, routing)
        if weight is not None:
            inner = inner * weight[:, :, None]
        return torch.einsum("tnr,nrd->td", inner, self.up)

    def weights(self, hidden: Tensor, routing: LayerRouting) -> Tensor | None:
        """Return g [T, N]; None: 1 everywhere.

        ``routed`` keeps the K largest of a softmax over all adapters as they are, not rescaled to
        sum to 1, so that the router learns with K = 1 as well. ``embedded`` has the weights of the
        model's own pairs, 0 where a pair found no room.
        """
        if self.settings.variant == "routed":
            probabilities = torch.softmax(hidden @ self.gate.T, dim=1)
            best = probabilities.topk(self.settings.top_k, dim=1)
            return torch.zeros_like(probabilities).scatter(1, best.indices, best.values)
        if self.settings.variant == "embedded":
            selection, kept = routing.selection, routing.kept
            pair = selection.token[kept], selection.expert[kept]
            return torch.zeros_like(selection.probabilities).index_put(pair, selection.weight[kept])
        return None


def attach(model: LanguageModel, settings: AdapterSettings, seed: int) -> list[nn.Parameter]:
    """Freeze ``model``, add adapters to every expert layer and return their parameters.

    The model's outputs are what they were, to the bit, until the parameters have been trained. The
    adapters are part of its ``state_dict``, under ``layers.N.experts.adapters``. Raises InputError
    if the model has adapters.
    """
    if any(hasattr(layer, "adapters") for layer in model.expert_layers):
        raise InputError("the model has adapters already")
    model.requires_grad_(requires_grad=False)
    generator = torch.Generator().manual_seed(seed)
    parameters: list[nn.Parameter] = []
    for layer in model.expert_layers:
        adapters = Adapters(settings, layer.w_in.shape[1], layer.experts, generator)
        layer.add_module("adapters", adapters)
        layer.register_forward_hook(_add)
        parameters += adapters.parameters()
    return parameters


def _add(
    layer: ExpertLayer, arguments: tuple[Any, ...], output: tuple[Tensor, LayerRouting]
) -> tuple[Tensor, LayerRouting]:
    """Add the adapters' output to the layer's; a plain function, so that a model can be copied."""
    result, routing = output
    return result + layer.adapters(arguments[0], routing), routing  # type: ignore[operator]
