"""Routers: which experts a token goes to. One a file; ``names()`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from topomoe.topologies.errors import unknown

if TYPE_CHECKING:
    from topomoe.moe.routers.router import Router

_HOME: Mapping[str, tuple[str, str]] = {
    "top1": ("top_one", "TopOne"),
    "softk": ("soft_top_k", "SoftTopK"),
    "topk-hard": ("hard_top_k", "HardTopK"),
    "hash": ("token_hash", "TokenHash"),
    "expert-choice": ("expert_choice", "ExpertChoice"),
    "bias-balanced": ("bias_balanced", "BiasBalanced"),
}


def names() -> tuple[str, ...]:
    """Return the names of the routers."""
    return tuple(_HOME)


def make_router(
    name: str, hidden: int, experts: int, top_k: int, capacity_factor: float, vocabulary: int
) -> Router:
    """Return a router with weights that are still to be drawn; InputError for an unknown name.

    Args:
        name: one of ``names()``.
        hidden: width of a token, d.
        experts: experts, E.
        top_k: experts a token, K.
        capacity_factor: what an expert takes over T K / E; only expert-choice reads it.
        vocabulary: different token ids; only hash reads it.
    """
    if name not in _HOME:
        raise unknown("router", name, names())
    module, kind = _HOME[name]
    made = getattr(import_module(f"{__name__}.{module}"), kind)
    router: Router = made(hidden, experts, top_k, capacity_factor, vocabulary)
    return router
