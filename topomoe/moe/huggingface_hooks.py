"""Hooks on the routers of a Hugging Face model: they record the chosen experts, or change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from topomoe.moe.huggingface_families import family, routers, routing
from topomoe.moe.language_model import Assigner
from topomoe.topologies.errors import InputError


class Capture:
    """The experts chosen in every forward pass since the capture began."""

    def __init__(self, num_layers: int, num_experts: int) -> None:
        self.num_experts = num_experts
        self._layers: list[list[NDArray[np.int64]]] = [[] for _ in range(num_layers)]

    def record(self, layer: int, experts: Tensor) -> None:
        """Keep the experts [T, K] of one forward pass through an MoE layer."""
        self._layers[layer].append(experts.detach().to("cpu", torch.int64).numpy())

    def experts(self) -> NDArray[np.int64]:
        """Return the experts [positions, M, K], layers in the model's order.

        Positions are those of one forward pass after another; a pass over tokens [B, L] has its
        B sequences one after another.

        Raises InputError where no pass was made, or a router took part in fewer passes than others
        (a fused kernel that does not call it, or a pass that was broken off).
        """
        calls = [len(passes) for passes in self._layers]
        if not max(calls):
            raise InputError("no router was called: no forward pass, or fused kernels do its work")
        if min(calls) != max(calls):
            raise InputError(
                f"the router of MoE layer {calls.index(min(calls))} was called {min(calls)} times, "
                f"that of layer {calls.index(max(calls))} {max(calls)}"
            )
        return np.stack([np.concatenate(passes) for passes in self._layers], axis=1)


@contextmanager
def capture(model: nn.Module) -> Iterator[Capture]:
    """Record the routed experts of every forward pass of ``model`` in the context.

    What is recorded is what the model's experts compute, so with ``reassign`` the changed choice,
    whichever of the two was entered first.

    Raises InputError for a family that is not known and a model without MoE layers.
    """
    gates = routers(model)
    captured = Capture(len(gates), int(gates[0].num_experts))

    def hook(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            captured.record(layer, routing(layer, output)[2])

        return record

    with ExitStack() as hooks:
        for layer, gate in enumerate(gates):
            hooks.enter_context(_removed(gate.register_forward_hook(hook(layer))))
        yield captured


@contextmanager
def reassign(model: nn.Module, assigner: Assigner) -> Iterator[None]:
    """Let ``assigner`` choose the experts of every forward pass of ``model`` in the context.

    ``assigner(layer, scores [T, E], K)`` returns experts [T, K] for the T tokens of the pass, each
    row's distinct; layers count the MoE layers from 0. The K largest scores are the model's own
    choice: the router's logits, but DeepSeek-V3's sigmoids with their correction bias, and -inf
    outside a token's groups where a model limits them. The weights are those of the family's own
    rule, from the router's own logits at these experts, so what changes is the choice alone.

    Raises InputError as ``capture`` does, and in the forward pass for experts of another shape, out
    of range, or twice in a row.
    """
    rules = family(model)

    def hook(layer: int) -> Callable[[nn.Module, Any, Any], Any]:
        def change(module: Any, inputs: Any, output: Any) -> tuple[Tensor, Tensor, Tensor]:
            logits, weights, own = routing(layer, output)
            chosen: Any = assigner(layer, rules.score(module, logits), own.shape[1])
            chosen = torch.as_tensor(chosen, device=own.device)
            _check(layer, chosen, logits.shape[0], own.shape[1], logits.shape[1])
            experts = chosen.to(own.dtype)
            return logits, rules.weigh(module, logits, experts).to(weights.dtype), experts

        return change

    with ExitStack() as hooks:
        for layer, gate in enumerate(routers(model)):
            # First of the router's hooks: whoever records sees what the experts are given.
            handle = gate.register_forward_hook(hook(layer), prepend=True)
            hooks.enter_context(_removed(handle))
        yield


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _check(layer: int, chosen: Tensor, tokens: int, top_k: int, experts: int) -> None:
    where = f"the assigner's experts of MoE layer {layer}"
    if chosen.is_floating_point() or tuple(chosen.shape) != (tokens, top_k):
        raise InputError(
            f"{where} must be whole numbers [{tokens}, {top_k}], "
            f"got {chosen.dtype} {list(chosen.shape)}"
        )
    if tokens and not 0 <= int(chosen.min()) <= int(chosen.max()) < experts:
        raise InputError(
            f"{where} must be in 0..{experts - 1}, got {int(chosen.min())}..{int(chosen.max())}"
        )
    ordered = chosen.sort(dim=-1).values
    if bool((ordered[:, 1:] == ordered[:, :-1]).any()):
        raise InputError(f"{where} must be distinct for each token")
