"""What rewiring an optical fabric costs in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.topology import FloatArray, IntArray, Topology


@dataclass(frozen=True)
class ReconfigurationDelay:
    """The parts of a rewiring, one after another, in seconds."""

    name: str
    control: float  # deciding and programming the switch
    settle: float  # the switch's own time
    bring_up: float  # until the links at both ends carry traffic

    @property
    def total(self) -> float:
        """Seconds during which the changed circuits are dark."""
        return self.control + self.settle + self.bring_up


# Switching times as published for each technology: PLZT waveguides, silicon photonics, rotor
# switches (RotorNet, SIGCOMM 2017), 3D-MEMS; NIC bring-up is that of a commodity NIC.
_DELAYS = (
    ReconfigurationDelay("plzt", 0.0, 10e-9, 0.0),
    ReconfigurationDelay("siph", 0.0, 7e-6, 0.0),
    ReconfigurationDelay("rotor", 0.0, 10e-6, 0.0),
    ReconfigurationDelay("mems", 0.0, 25e-3, 0.0),
    ReconfigurationDelay("mems-control", 44e-3, 25e-3, 0.0),
    ReconfigurationDelay("nic-bring-up", 44e-3, 25e-3, 5.67),
)
DELAYS: Mapping[str, ReconfigurationDelay] = {delay.name: delay for delay in _DELAYS}


def delay_preset(delay: str | ReconfigurationDelay) -> ReconfigurationDelay:
    """Return the preset of that name, or the delay itself."""
    if isinstance(delay, ReconfigurationDelay):
        return delay
    if delay not in DELAYS:
        raise unknown("reconfiguration delay", delay, DELAYS)
    return DELAYS[delay]


def changed_circuits(wirings: list[Topology]) -> IntArray:
    """Return how many circuits go dark from one wiring (row) to another (column), [K, K].

    A circuit that both wirings hold stays lit. Raises InputError for a topology without circuits.
    """
    circuits: list[Counter[tuple[int, int]]] = []
    for wiring in wirings:
        if wiring.parameters.get("kind") != "optical":
            raise InputError(f"{wiring.name} is not a wiring of an optical fabric")
        circuits.append(Counter((a, b) for a, b in wiring.parameters["circuits"].tolist()))
    return np.array([[(a - b).total() for b in circuits] for a in circuits])


def switch_cost(wirings: list[Topology], delay: ReconfigurationDelay) -> FloatArray:
    """Return the seconds from wiring to wiring, [K, K]: the whole delay if any circuit changes.

    Circuits change at the same time, and an all-to-all waits for the dark ones: its traffic stalls.
    """
    changed = changed_circuits(wirings)
    either = (changed + changed.T) > 0
    return np.where(either, delay.total, 0.0)
