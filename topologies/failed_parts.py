"""Which parts of a topology fail: those that are named, and those drawn at random."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from topomoe.topologies.checked import whole
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import BoolArray, IntArray, Topology

_ENDS = re.compile(r"\s*(\d+)\s*(->|-|>)\s*(\d+)\s*")


@dataclass(frozen=True)
class Failures:
    """What has failed: named parts, and further ones drawn at random.

    With the same seed more random failures hold the fewer: a sweep adds them one after another.
    """

    links: tuple[str, ...] = ()
    """Failed links by their nodes: 3-17 both directions, 3>17 one."""
    switches: tuple[int, ...] = ()
    """Failed switches by node number, with all their links."""
    devices: tuple[int, ...] = ()
    """Failed devices, with all their links."""
    circuits: tuple[str, ...] = ()
    """Failed circuits as transmitter>receiver (3-17: each way); named twice, two of them."""
    random_links: int = 0
    """Electrical cables that fail at random, each in both directions."""
    random_switches: int = 0
    """Switches that fail at random."""
    random_devices: int = 0
    """Devices that fail at random."""
    random_circuits: int = 0
    """Circuits that fail at random."""
    failure_seed: int = 0
    """Seed of the random failures."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        for name in ("switches", "devices", "links", "circuits"):
            parts = getattr(self, name)
            if isinstance(parts, str) or not isinstance(parts, Iterable):
                raise InputError(f"{name} must be a tuple of parts, got {parts!r}")
        for name in ("switches", "devices"):
            for node in getattr(self, name):
                whole(node, name, least=0)
        for name in ("links", "circuits"):
            for text in getattr(self, name):
                _ends(text, name)
        for kind in ("links", "switches", "devices", "circuits"):
            whole(getattr(self, f"random_{kind}"), f"random_{kind}", least=0)
        whole(self.failure_seed, "failure_seed", least=0)


def surviving(topology: Topology) -> IntArray:
    """Return the devices that have not failed, in order."""
    failed = topology.parameters.get("failed_devices", ())
    return np.setdiff1d(np.arange(topology.num_devices), failed)


def _ends(text: str, field: str) -> list[tuple[int, int]]:
    """Return the directed pairs that ``3-17`` (both ways) or ``3>17`` names."""
    match = _ENDS.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InputError(f"{field} must name two nodes such as 3-17 or 3>17, got {text!r}")
    a, b = int(match[1]), int(match[3])
    return [(a, b), (b, a)] if match[2] == "-" else [(a, b)]


def _drawn(usable: BoolArray, failures: Failures, kind: str, name: str) -> IntArray:
    """Return the parts of a kind that fail at random, out of the ``usable`` ones.

    The order is drawn over all parts, so that what failed before or beside them cannot bring back
    a part that fails; kinds do not share a stream.
    """
    count = getattr(failures, f"random_{kind}")
    if count and not len(usable):
        raise InputError(f"random_{kind}: {name} has no {kind} that could fail")
    if count > usable.sum():
        raise InputError(f"random_{kind} must be <= {usable.sum()} on {name}, got {count}")
    stream = ("links", "switches", "devices", "circuits").index(kind)
    order = np.random.default_rng([failures.failure_seed, stream]).permutation(len(usable))
    drawn: IntArray = order[usable[order]][:count]
    return drawn


def failed_nodes(topology: Topology, failures: Failures) -> BoolArray:
    """Return whether each node fails now, [V]."""
    devices, nodes = topology.num_devices, topology.num_nodes
    failed = np.zeros(nodes, dtype=np.bool_)
    failed[:devices] = ~np.isin(np.arange(devices), surviving(topology))
    failed[list(topology.parameters.get("failed_switches", ()))] = True
    already = failed.copy()
    ranges = {"devices": (0, devices), "switches": (devices, nodes)}
    for kind, (first, end) in ranges.items():
        for node in getattr(failures, kind):
            if not first <= node < end:
                held = f"{first}..{end - 1}" if end > first else "none: it has no switches"
                raise InputError(f"{kind} of {topology.name} are {held}, got {node}")
            failed[node] = True
        failed[first + _drawn(~failed[first:end], failures, kind, topology.name)] = True
    return failed & ~already


def failed_links(topology: Topology, failures: Failures, gone: BoolArray) -> BoolArray:
    """Return whether each link fails by itself, [L]."""
    failed = np.zeros(topology.num_links, dtype=np.bool_)
    for text in failures.links:
        ends = np.array(_ends(text, "links"))
        known = ends.max() < topology.num_nodes
        ids = topology.link_ids(*ends.T) if known else np.array([-1])
        if (ids < 0).all():
            raise InputError(f"links: {topology.name} has no link {text}")
        failed[ids[ids >= 0]] = True
    cable = np.sort(topology.links, axis=1)
    cables, number = np.unique(cable[~topology.optical], axis=0, return_inverse=True)
    usable = np.ones(len(cables), dtype=np.bool_)
    usable[number.reshape(-1)[(gone | failed)[~topology.optical]]] = False
    drawn = _drawn(usable, failures, "links", topology.name)
    both = np.concatenate([cables[drawn], cables[drawn][:, ::-1]])
    ids = topology.link_ids(*both.T)
    failed[ids[ids >= 0]] = True
    return failed


def failed_circuits(
    topology: Topology, failures: Failures, circuits: IntArray, gone: BoolArray
) -> BoolArray:
    """Return whether each circuit [X] fails by itself."""
    dark = np.zeros(len(circuits), dtype=np.bool_)
    for text in failures.circuits:
        found = [
            np.flatnonzero((circuits == pair).all(axis=1) & ~dark)
            for pair in _ends(text, "circuits")
        ]
        if not any(len(ids) for ids in found):
            raise InputError(f"circuits: {topology.name} has no circuit {text}")
        dark[[ids[0] for ids in found if len(ids)]] = True
    dark[_drawn(~(dark | gone), failures, "circuits", topology.name)] = True
    return dark
