"""ASTRA-sim's analytical network file: one entry a dimension, innermost first.

The format (astra-network-analytical): ``topology`` Ring, FullyConnected or Switch; ``npus_count``;
``bandwidth`` of a link and direction in GB/s, by which the backend means 2^30 bytes/s; ``latency``
of a link in ns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import BoolArray, Topology

_GIB = 2.0**30  # the backend's GB


def files(topology: Topology, routing: Routing | None, demand: ArrayLike | None) -> dict[str, str]:
    """Return ``NAME.yml``; InputError for a topology that the format cannot hold."""
    whole = "failed_links" not in topology.parameters
    kind = topology.parameters.get("kind") if whole else "degraded"
    notes: list[str] = []
    if kind in ("torus", "torus-3d", "hypercube") and not topology.parameters.get("twist"):
        sizes = topology.parameters.get("dimensions", topology.grid)
        # The last dimension's neighbours have consecutive numbers.
        dimensions = [_ring(topology, size) for size in reversed(sizes) if size > 1]
    elif kind == "leaf-spine" and topology.grid is not None:
        dimensions, notes = _leaf_spine(topology, *topology.grid)
    elif kind == "rails":
        dimensions, notes = _rails(topology)
    elif topology.num_nodes == topology.num_devices + 1 and _all_at(topology, topology.num_devices):
        dimensions = [("Switch", topology.num_devices, _alike(topology))]
    elif topology.num_links == topology.num_devices * (topology.num_devices - 1) and (
        topology.num_nodes == topology.num_devices
    ):
        dimensions = [("FullyConnected", topology.num_devices, _alike(topology))]
    else:
        raise InputError(
            f"astra-sim's analytical network has Ring, FullyConnected and Switch dimensions: "
            f"{topology.name} has no counterpart"
        )
    lines = [f"# {note}" for note in (f"{topology.name}, innermost dimension first", *notes)]
    columns = {
        "topology": [name for name, _, _ in dimensions],
        "npus_count": [str(size) for _, size, _ in dimensions],
        "bandwidth": [repr(capacity / _GIB) for _, _, (capacity, _) in dimensions],
        "latency": [repr(round(latency * 1e9, 6)) for _, _, (_, latency) in dimensions],
    }
    units = {"bandwidth": "  # GB/s of 2^30 bytes, a link and direction", "latency": "  # ns"}
    lines += [f"{key}: [ {', '.join(v)} ]{units.get(key, '')}" for key, v in columns.items()]
    return {f"{topology.name}.yml": "\n".join(lines) + "\n"}


Dimension = tuple[str, int, tuple[float, float]]  # name, NPUs, (bytes/s, s) of a link


def _alike(topology: Topology, of: BoolArray | None = None) -> tuple[float, float]:
    """Return capacity and latency of the links; InputError unless they are all alike."""
    chosen = np.ones(topology.num_links, dtype=np.bool_) if of is None else of
    capacity, latency = topology.capacity[chosen], topology.latency[chosen]
    if np.ptp(capacity) or np.ptp(latency):
        raise InputError(
            f"astra-sim needs links of one capacity and latency a dimension, {topology.name} has "
            "several"
        )
    return float(capacity[0]), float(latency[0])


def _all_at(topology: Topology, node: int) -> bool:
    return bool((topology.links == node).any(axis=1).all())


def _ring(topology: Topology, size: int) -> Dimension:
    """Return a ring; of two devices, whose one link each way Ring would count twice, a pair."""
    return ("Ring" if size > 2 else "FullyConnected", size, _alike(topology))


def _leaf_spine(
    topology: Topology, leaves: int, per_leaf: int
) -> tuple[list[Dimension], list[str]]:
    host = np.asarray((topology.links < topology.num_devices).any(axis=1))
    inside = _alike(topology, host)
    # What a device can send through the spines is its share of the leaf's uplinks.
    uplink, latency = _alike(topology, ~host)
    share = uplink * topology.parameters["spines"] / per_leaf
    notes = [
        "under a leaf: Switch; over the spines: Switch of a device's share of its leaf's uplinks",
        "lost: a device's one host link is there in both dimensions, single spines and collisions "
        "on them, and direct ways to devices at another place under another leaf",
    ]
    between = (share, inside[1] + latency)  # the backend counts two hops through a Switch
    return _switches(("Switch", per_leaf, inside), ("Switch", leaves, between)), notes


def _rails(topology: Topology) -> tuple[list[Dimension], list[str]]:
    size = topology.parameters["node_size"]
    first_node, first_rail, first_spine, _ = topology.parameters["switches"]
    links = topology.links
    inside = np.asarray(((links >= first_node) & (links < first_rail)).any(axis=1))
    host, rail = links < topology.num_devices, (links >= first_rail) & (links < first_spine)
    nic = np.asarray(host.any(axis=1) & rail.any(axis=1))
    notes = ["inside a node: Switch; devices of one rank over their rail: Switch"]
    if topology.parameters["spines"]:
        notes.append("lost: the spines; traffic between rails changes rail inside a node")
    return _switches(
        ("Switch", size, _alike(topology, inside)),
        ("Switch", topology.num_devices // size, _alike(topology, nic)),
    ), notes


def _switches(*dimensions: Dimension) -> list[Dimension]:
    """Return the dimensions that hold more than one."""
    return [dimension for dimension in dimensions if dimension[1] > 1]
