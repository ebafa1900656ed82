"""Placements: which slots hold which expert, and with which share.

`place` runs a method by name and `methods` lists them; `certificate` and `lower_bound` say how far
a placement is from the best possible. A method's module is imported when it is first used.
"""

from topomoe.placement.bounds import Certificate, certificate, gap, lower_bound
from topomoe.placement.eplb_interface import (
    logical_count,
    logical_to_physical,
    physical_to_logical,
    rebalance_experts,
)
from topomoe.placement.options import MethodOptions, PlacementOptions
from topomoe.placement.placement import LayerPlacement, Placement
from topomoe.placement.registry import methods, place
from topomoe.placement.store import load_placement, save_placement

__all__ = [
    "Certificate",
    "LayerPlacement",
    "MethodOptions",
    "Placement",
    "PlacementOptions",
    "certificate",
    "gap",
    "load_placement",
    "logical_count",
    "logical_to_physical",
    "lower_bound",
    "methods",
    "physical_to_logical",
    "place",
    "rebalance_experts",
    "save_placement",
]
