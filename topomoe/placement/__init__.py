"""Placements: which slots hold which expert, and with which share.

`place` runs a method by name and `methods` lists them; `certificate` and `lower_bound` say how far
a placement is from the best possible. A method's module is imported when it is first used.
"""

from topomoe.placement.bounds import Certificate, certificate, gap, lower_bound
from topomoe.placement.placement import LayerPlacement, Placement
from topomoe.placement.registry import methods, place
from topomoe.placement.store import load_placement, save_placement

__all__ = [
    "Certificate",
    "LayerPlacement",
    "Placement",
    "certificate",
    "gap",
    "load_placement",
    "lower_bound",
    "methods",
    "place",
    "save_placement",
]
