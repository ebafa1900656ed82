"""The settings of low-rank adapters beside a frozen model's experts."""

from __future__ import annotations

from dataclasses import dataclass

from topomoe.topologies.errors import InputError, unknown

VARIANTS = ("routed", "embedded", "dense", "shared")


@dataclass(frozen=True)
class AdapterSettings:
    """Low-rank adapters in every expert layer, in the spirit of PERFT (Liu et al. 2024)."""

    variant: str = "routed"
    """``routed``: adapters with a router of their own (PERFT-R); ``embedded``: one beside each
    expert, following the model's router (PERFT-E); ``dense``: several that serve every token
    (PERFT-D); ``shared``: one that serves every token (PERFT-S)."""
    rank: int = 4
    """Width inside an adapter."""
    adapters: int = 4
    """Adapters a layer, of ``routed`` and ``dense``; ``embedded`` has one an expert."""
    top_k: int = 1
    """Adapters a token, of ``routed``."""

    def __post_init__(self) -> None:
        """Check every field; InputError names it."""
        if self.variant not in VARIANTS:
            raise unknown("adapter variant", self.variant, VARIANTS)
        for name in ("rank", "adapters", "top_k"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.variant == "routed" and self.top_k > self.adapters:
            raise InputError(f"top_k must be <= adapters, got {self.top_k} of {self.adapters}")

    def count(self, experts: int) -> int:
        """Return the adapters of a layer with ``experts`` experts."""
        return {"embedded": experts, "shared": 1}.get(self.variant, self.adapters)

    def trained_parameters(self, layers: int, hidden: int, experts: int) -> int:
        """Return 2 d r parameters an adapter, and d for its row of the router in ``routed``.

        >>> AdapterSettings("routed", rank=4, adapters=8).trained_parameters(4, 128, 32)
        36864
        """
        router_row = hidden if self.variant == "routed" else 0
        return layers * self.count(experts) * (2 * hidden * self.rank + router_row)
