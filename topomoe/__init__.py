"""Topology and placement co-design for Mixture-of-Experts models.

Importing registers the Gymnasium environments and loads nothing else: the names below, and the
libraries behind them, come when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

if TYPE_CHECKING:
    from topomoe import formats, moe, network, placement, stats, topologies
    from topomoe.demand import dispatch
    from topomoe.model import DEVICES, MODELS, Device, MoEModel
    from topomoe.placement import Placement, place
    from topomoe.simulation import simulate
    from topomoe.synthetic import synthetic_trace
    from topomoe.topologies.errors import InputError
    from topomoe.trace import RoutingTrace, load_trace, save_trace

__version__ = "0.1.0"

__all__ = [
    "DEVICES",
    "MODELS",
    "Device",
    "InputError",
    "MoEModel",
    "Placement",
    "RoutingTrace",
    "dispatch",
    "formats",
    "load_trace",
    "moe",
    "network",
    "place",
    "placement",
    "save_trace",
    "simulate",
    "stats",
    "synthetic_trace",
    "topologies",
]

_HOME = {
    "DEVICES": "model",
    "Device": "model",
    "InputError": "topologies.errors",
    "MODELS": "model",
    "MoEModel": "model",
    "Placement": "placement",
    "RoutingTrace": "trace",
    "dispatch": "demand",
    "load_trace": "trace",
    "place": "placement",
    "save_trace": "trace",
    "simulate": "simulation",
    "synthetic_trace": "synthetic",
}
_MODULES = ("agents", "envs", "formats", "moe", "network", "placement", "stats", "topologies")

register(
    id="topomoe/TopologySwitch-v0",
    entry_point="topomoe.envs.switching:TopologySwitchEnv",
    vector_entry_point="topomoe.envs.vector:TopologySwitchVectorEnv",
)
register(
    id="topomoe/Placement-v0",
    entry_point="topomoe.envs.placement_env:PlacementEnv",
    vector_entry_point="topomoe.envs.codesign_vector:PlacementVectorEnv",
)
register(
    id="topomoe/CoDesign-v0",
    entry_point="topomoe.envs.codesign_env:CoDesignEnv",
    vector_entry_point="topomoe.envs.codesign_vector:CoDesignVectorEnv",
)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
