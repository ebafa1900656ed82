"""csg-htsim's files: a fat-tree topology (.topo) and a connection matrix (.cm).

Both as its loaders read them (fat_tree_topology.cpp, connection_matrix.cpp): speeds in whole Gbit/s
(or whole ns of latency, at least one), sizes in whole bytes below 2^31, start times in ps. A
``Tier`` names the switches and the links below them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies.checked import numbers
from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import BoolArray, Topology

_LARGEST = 2**31 - 1  # bytes of a connection: its loader reads an int


def files(topology: Topology, routing: Routing | None, demand: ArrayLike | None) -> dict[str, str]:
    """Return ``NAME.topo`` and, with ``demand`` [N, N] bytes, ``NAME.cm``.

    Any topology has a connection matrix, only leaf-spine and full fat-trees a ``.topo``: without
    demand others raise InputError. htsim routes by itself.
    """
    kind = topology.parameters.get("kind")
    made = {}
    if kind in ("leaf-spine", "fat-tree"):
        lines = _leaf_spine(topology) if kind == "leaf-spine" else _fat_tree(topology)
        made[f"{topology.name}.topo"] = "\n".join(lines) + "\n"
    elif demand is None:
        raise InputError(f"htsim's .topo needs a leaf-spine or fat-tree, got {topology.name}")
    if demand is not None:
        made[f"{topology.name}.cm"] = _connections(topology, demand)
    return made


def _connections(topology: Topology, demand: ArrayLike) -> str:
    """Return the connection matrix: a line a pair with bytes, rounded up, all at time 0."""
    devices = topology.num_devices
    given = numbers(demand, "demand")
    if given.shape != (devices, devices) or not (given >= 0).all():
        raise InputError(f"demand must be [{devices}, {devices}] bytes >= 0")
    size = np.ceil(given) * (1.0 - np.eye(devices))
    if not (size <= _LARGEST).all():
        raise InputError(f"htsim reads at most {_LARGEST} bytes a connection, demand has more")
    source, destination = np.nonzero(size)
    lines = [f"Nodes {devices}", f"Connections {len(source)}"]
    lines += [
        f"{a}->{b} id {number} start 0 size {int(size[a, b])}"
        for number, (a, b) in enumerate(
            zip(source.tolist(), destination.tolist(), strict=True), start=1
        )
    ]
    return "\n".join(lines) + "\n"


def _tier(topology: Topology, of: BoolArray, number: int, *radices: tuple[str, int]) -> list[str]:
    """Return a tier's lines; ``of`` [L] are the links below it."""
    capacity, latency = topology.capacity[of], topology.latency[of]
    speed, delay = capacity[0] * 8e-9, latency[0] * 1e9
    if np.ptp(capacity) or np.ptp(latency):
        raise InputError(f"htsim needs links of one capacity and latency a tier, {topology.name}")
    if speed != round(speed) or delay < 1 or abs(delay - round(delay)) > 1e-6:
        raise InputError(
            f"htsim needs whole Gbit/s and whole ns >= 1 a link, {topology.name} has "
            f"{speed:g} Gbit/s and {delay:g} ns"
        )
    return [
        "",
        f"Tier {number}",
        f"Downlink_speed_Gbps {round(speed)}",
        *(f"{name} {value}" for name, value in radices),
        f"Downlink_Latency_ns {round(delay)}",
        "Switch_Latency_ns 0",
    ]


def _leaf_spine(topology: Topology) -> list[str]:
    leaves, per_leaf = topology.grid or (1, topology.num_devices)
    spines = topology.parameters["spines"]
    host = np.asarray((topology.links < topology.num_devices).any(axis=1))
    ratio = per_leaf * topology.capacity[host][0] / (spines * topology.capacity[~host][0])
    if ratio < 1 or abs(ratio - round(ratio)) > 1e-9:
        raise InputError(f"htsim needs a whole oversubscription, {topology.name} has {ratio:g}")
    return [
        f"# {leaves} leaves of {per_leaf} devices, {spines} spines",
        f"Nodes {topology.num_devices}",
        "Tiers 2",
        f"Podsize {topology.num_devices}",
        *_tier(
            topology,
            host,
            0,
            ("Radix_Down", per_leaf),
            ("Radix_Up", spines),
            ("Oversubscribed", round(ratio)),
        ),
        *_tier(topology, ~host, 1, ("Radix_Down", leaves)),
    ]


def _fat_tree(topology: Topology) -> list[str]:
    half = topology.parameters["k"] // 2
    first = topology.parameters["first_aggregation"]
    pods, rest = divmod(topology.num_devices, half * half)
    if rest or not pods:
        raise InputError(
            f"htsim needs full pods of {half * half} devices, {topology.name} has "
            f"{topology.num_devices} devices"
        )
    core = first + pods * half
    host = np.asarray((topology.links < topology.num_devices).any(axis=1))
    top = np.asarray((topology.links >= core).any(axis=1))
    return [
        f"# {2 * half}-ary fat-tree, {pods} of {2 * half} pods",
        f"Nodes {topology.num_devices}",
        "Tiers 3",
        f"Podsize {half * half}",
        *_tier(topology, host, 0, ("Radix_Down", half), ("Radix_Up", half)),
        *_tier(topology, ~(host | top), 1, ("Radix_Down", half), ("Radix_Up", half)),
        *_tier(topology, top, 2, ("Radix_Down", pods)),
    ]
