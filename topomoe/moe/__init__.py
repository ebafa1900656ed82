"""The router's side: small Mixture-of-Experts language models, trained and traced.

How the router is built and trained decides who talks to whom. The models here are small enough to
be trained on a CPU in minutes; what their routers choose is captured as a routing trace, and that
is placed and priced like any other.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topomoe.moe import assignment, routers, text

__all__ = ["assignment", "routers", "text"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
