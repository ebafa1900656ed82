"""What rewiring an optical fabric costs in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.matching.demand import demand_matrix
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


# The switch's own time: PLZT waveguides 10 ns; silicon photonics 7 us; rotor switches 10 us
# (RotorNet, SIGCOMM 2017, and its successors); 3D-MEMS 25 ms. Control of a MEMS switch was measured
# at 41 to 47 ms on a prototype fabric, of which the preset takes the middle, and bringing up the
# links of a commodity NIC at 5.67 s; each of these adds to the parts before it.
_DELAYS = (
    ReconfigurationDelay("plzt", 0.0, 10e-9, 0.0),
    ReconfigurationDelay("siph", 0.0, 7e-6, 0.0),
    ReconfigurationDelay("rotor", 0.0, 10e-6, 0.0),
    ReconfigurationDelay("mems", 0.0, 25e-3, 0.0),
    ReconfigurationDelay("mems-control", 44e-3, 25e-3, 0.0),
    ReconfigurationDelay("nic-bring-up", 44e-3, 25e-3, 5.67),
)
DARK_MODES = ("stall", "base")  # what traffic does while circuits are dark
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
    circuits = [_circuits(wiring) for wiring in wirings]
    return np.array([[(a - b).total() for b in circuits] for a in circuits])


def exposed_time(delay: ReconfigurationDelay, overlap: float) -> float:
    """Return the seconds of a reconfiguration that ``overlap`` seconds of compute do not hide."""
    return max(0.0, delay.total - overlap)


def switch_cost(
    wirings: list[Topology], delay: ReconfigurationDelay, overlap: float = 0.0
) -> FloatArray:
    """Return the exposed seconds from wiring to wiring, [K, K], if any circuit changes.

    Circuits change at the same time, and an all-to-all waits for the dark ones: its traffic stalls.
    ``overlap`` seconds of each reconfiguration are hidden behind compute.
    """
    changed = changed_circuits(wirings)
    either = (changed + changed.T) > 0
    return np.where(either, exposed_time(delay, overlap), 0.0)


def kept(before: Topology, after: Topology) -> Topology:
    """Return what is lit while ``before`` becomes ``after``: the circuits of both, and the base.

    Raises InputError where they are not wirings of one fabric or nothing stays lit.
    """
    held_before, held_after = (_circuits(wiring) for wiring in (before, after))
    base = after.parameters["base"]
    if not _same_base(before.parameters["base"], base) or before.num_nodes != after.num_nodes:
        raise InputError(f"{before.name} and {after.name} are not wirings of one fabric")
    both = held_before & held_after
    of_base = np.zeros(after.num_links)
    if base is not None:
        of_base[after.link_ids(*base.links.T)] = base.capacity
    share = np.array(
        [both[pair] / held_after[pair] if held_after[pair] else 0.0 for pair in _pairs(after.links)]
    )
    capacity = of_base + (after.capacity - of_base) * share
    lit = capacity > 0
    if not lit.any():
        raise InputError(f"{before.name} and {after.name} share no circuit and have no base")
    circuits = np.array(sorted(both.elements()), dtype=np.int64).reshape(-1, 2)
    mixed = len(circuits) > 0 and base is not None
    return Topology(
        name=f"{after.name}-kept",
        num_devices=after.num_devices,
        num_nodes=after.num_nodes,
        links=after.links[lit],
        capacity=capacity[lit],
        latency=after.latency[lit],
        optical=(share > 0)[lit],
        grid=after.grid,
        default_routing="hybrid" if mixed else "ecmp",
        parameters={**after.parameters, "wiring": "kept", "circuits": circuits},
    )


@dataclass(frozen=True)
class SwitchTime:
    """A transfer that a reconfiguration precedes, in seconds."""

    hidden: float  # of the reconfiguration, behind compute
    exposed: float  # of the reconfiguration, after the transfer could have started
    drained: float  # share of the demand sent by the end of it over what stayed lit, 0..1
    total: float  # from when the transfer could start until all of it has arrived


def switch_time(
    demand: ArrayLike,
    before: Topology,
    after: Topology,
    delay: str | ReconfigurationDelay,
    mode: str = "stall",
    overlap: str | float = 0.0,
    policy: str | None = None,
) -> SwitchTime:
    """Return the seconds of sending demand [N, N] bytes after switching between two wirings.

    The reconfiguration starts ``overlap`` seconds before the transfer, which hide that much of it.
    For the exposed rest the traffic waits (``stall``), or the same share of every pair drains over
    the circuits that both wirings hold and the electrical base (``base``); what is left takes the
    new wiring. Between equal wirings nothing is dark. Times are those of the bottleneck model over
    the routing ``policy`` (by default each topology's own). Raises InputError for an unknown mode
    or delay, a bad demand, and ``base`` on a fabric without one.
    """
    from topomoe.topologies.routing import route

    if mode not in DARK_MODES:
        raise unknown("mode of dark circuits", mode, DARK_MODES)
    times = delay_preset(delay)
    ahead = units.seconds(overlap, "overlap")
    matrix = demand_matrix(demand)
    if len(matrix) != after.num_devices:
        raise InputError(f"demand must be of {after.num_devices} devices, is of {len(matrix)}")
    if before.num_devices != after.num_devices:
        raise InputError(
            f"before and after must have the same devices, got {before.num_devices} "
            f"and {after.num_devices}"
        )
    dark = switch_cost([before, after], times)[0, 1] > 0
    exposed = exposed_time(times, ahead) if dark else 0.0
    hidden = times.total - exposed if dark else 0.0
    drained = 0.0
    if mode == "base" and dark:
        if after.parameters["base"] is None:
            raise InputError(f"mode=base needs an electrical base, {after.name} has none")
        lit = kept(before, after)
        over_lit = route(lit, policy if lit.optical.any() else None)
        alone = float(over_lit.transfer_time(matrix[None], over_lit.latency)[0])
        if alone <= exposed:
            return SwitchTime(hidden, exposed, 1.0, alone)
        drained = exposed / float(over_lit.transfer_time(matrix[None])[0])
    over_new = route(after, policy)
    # What path latency keeps in flight at the switch has drained all the same.
    rest = matrix[None] * max(0.0, 1.0 - drained)
    time = float(over_new.transfer_time(rest, over_new.latency)[0])
    return SwitchTime(hidden, exposed, min(drained, 1.0), exposed + time)


def _circuits(wiring: Topology) -> Counter[tuple[int, int]]:
    if wiring.parameters.get("kind") != "optical":
        raise InputError(f"{wiring.name} is not a wiring of an optical fabric")
    return Counter(_pairs(wiring.parameters["circuits"]))


def _pairs(links: IntArray) -> list[tuple[int, int]]:
    return [(a, b) for a, b in links.tolist()]


def _same_base(first: Topology | None, second: Topology | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first.links, second.links) and np.array_equal(
        first.capacity, second.capacity
    )
