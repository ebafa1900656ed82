"""The step as a Gymnasium decision problem.

``CoDesignEnv`` and ``PlacementEnv``, whose placements move freely, are loaded when asked for by
name: they need the compiler, which ``import *`` is to spare.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from topomoe.envs.cluster import CoDesignProblem
from topomoe.envs.codesign_layout import CoDesignLayout
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.envs.transition import Outcome, State, begin, observe, step
from topomoe.envs.vector import TopologySwitchVectorEnv

if TYPE_CHECKING:
    from topomoe.envs.codesign_env import CoDesignEnv as CoDesignEnv
    from topomoe.envs.placement_env import PlacementEnv as PlacementEnv

__all__ = [
    "CoDesignLayout",
    "CoDesignProblem",
    "ObservationLayout",
    "Outcome",
    "State",
    "SwitchingProblem",
    "TopologySwitchEnv",
    "TopologySwitchVectorEnv",
    "begin",
    "observe",
    "phase_problem",
    "step",
]

_HOME = {"CoDesignEnv": "codesign_env", "PlacementEnv": "placement_env"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
