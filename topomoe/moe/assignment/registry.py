"""The assignment rules by name, and the object that applies one layer by layer."""

from __future__ import annotations

from importlib import import_module
from math import isfinite
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.moe.assignment.batch import Batch
from topomoe.topologies.checked import numbers, whole
from topomoe.topologies.errors import InputError, unknown

if TYPE_CHECKING:
    from torch import Tensor

# Each module has `assign(batch) -> experts int64 [T, K]`; it is imported when first used.
_MODULES = {
    "original": "topomoe.moe.assignment.original",
    "balanced": "topomoe.moe.assignment.balanced",
    "round-robin": "topomoe.moe.assignment.round_robin",
    "random": "topomoe.moe.assignment.shuffled",
    "filtered": "topomoe.moe.assignment.filtered",
    "load-aware": "topomoe.moe.assignment.load_aware",
    "reroute": "topomoe.moe.assignment.reroute",
}


class _Rule(Protocol):
    def assign(self, batch: Batch) -> Tensor: ...


def names() -> tuple[str, ...]:
    """Return the names that ``make`` takes."""
    return tuple(_MODULES)


def make(name: str, load: ArrayLike, capacity_factor: float = 0.0, seed: int = 0) -> Assigner:
    """Return the assignment rule ``name`` for layers whose calibration load is ``load`` [M, E].

    ``load`` counts the token-expert pairs of each layer and expert under the router's own choice,
    on text other than what is evaluated; a layer without any counts as even. ``capacity_factor``
    is read by ``reroute`` alone, 0: no limit. The experts that the n-th call of a layer returns
    depend on the arguments here, on ``n`` and on that layer's logits so far, on nothing else.

    Raises InputError for an unknown name, loads that are not finite numbers >= 0 of shape [M, E],
    a capacity factor that is not finite and >= 0 and a seed below 0.

    >>> import torch
    >>> rule = make("balanced", load=[[6, 1, 1]])
    >>> rule(0, torch.tensor([[2.0, 1.0, 0.0]]), top_k=1)
    tensor([[1]])
    """
    if name not in _MODULES:
        raise unknown("assignment", name, _MODULES)
    counts = numbers(load, "load")
    if counts.ndim != 2 or counts.size == 0:
        raise InputError(f"load must be [layers, experts], got shape {counts.shape}")
    if not (np.isfinite(counts) & (counts >= 0)).all():
        raise InputError("load must be finite and >= 0")
    if not (isfinite(capacity_factor) and capacity_factor >= 0):
        raise InputError(f"capacity_factor must be finite and >= 0, got {capacity_factor}")
    return Assigner(name, counts.copy(), float(capacity_factor), whole(seed, "seed", least=0))


class Assigner:
    """One assignment rule and what it has assigned so far; build it with ``make``."""

    def __init__(
        self, name: str, load: NDArray[np.float64], capacity_factor: float, seed: int
    ) -> None:
        self.name = name
        self.load = load
        self.assigned = np.zeros(load.shape, dtype=np.int64)
        """Token-expert pairs that this object has assigned, [M, E]."""
        self._capacity_factor = capacity_factor
        self._seed = seed
        self._calls = np.zeros(len(load), dtype=np.int64)
        self._rule = cast(_Rule, import_module(_MODULES[name]))

    def __call__(self, layer: int, logits: Tensor, top_k: int) -> Tensor:
        """Return the experts of every token, int64 [T, K] distinct in a row, from logits [T, E].

        The result lies on the device of ``logits`` and carries no gradient. Raises InputError for
        a layer or experts other than those of the calibration load, and for K outside 1..E.
        """
        layers, experts = self.load.shape
        if not 0 <= layer < layers:
            raise InputError(f"layer must be in 0..{layers - 1}, got {layer}")
        if logits.ndim != 2 or logits.shape[1] != experts:
            raise InputError(f"logits must be [tokens, {experts}], got {list(logits.shape)}")
        if not 1 <= top_k <= experts:
            raise InputError(f"top_k must be in 1..{experts}, got {top_k}")
        batch = Batch(
            logits=logits.detach(),
            top_k=top_k,
            load=self.load[layer],
            assigned=self.assigned[layer].copy(),
            capacity_factor=self._capacity_factor,
            seed=(self._seed, layer, int(self._calls[layer])),
        )
        chosen = self._rule.assign(batch).to(logits.device)
        self._calls[layer] += 1
        self.assigned[layer] += chosen.flatten().bincount(minlength=experts).cpu().numpy()
        return chosen
