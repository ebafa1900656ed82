"""PXN: traffic for another rail changes rail inside its own node, then takes that rail."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.ecmp_tables import ecmp_next_hop
from topomoe.topologies.routing.mixture import MixtureRouting
from topomoe.topologies.routing.paths import PathRouting
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology


def pxn(topology: Topology) -> Routing:
    """Return single paths on ``rails``: scale-up inside a node, the destination's rail outside.

    A pair on different rails goes over the node's switch to the peer on the destination's rail and
    leaves by that peer's NIC, as NCCL has done since 2.12 ("PXN", PCI x NVLink): spines carry
    nothing. A pair whose path lacks a link takes fluid ECMP over what is left. Raises InputError
    for any other topology.
    """
    if topology.parameters.get("kind") != "rails":
        raise InputError(f"pxn needs rails, got {topology.name}")
    size = topology.parameters["node_size"]
    first_node, first_rail, _, _ = topology.parameters["switches"]
    devices = topology.num_devices
    source, destination = np.divmod(np.arange(devices * devices), devices)
    node = source // size
    relay = node * size + destination % size
    inside = node == destination // size
    # A path is up to two hops inside the node, then two over the rail; absent hops are dropped.
    hops = np.stack(
        [
            topology.link_ids(source, first_node + node),
            topology.link_ids(first_node + node, relay),
            topology.link_ids(relay, first_rail + relay % size),
            topology.link_ids(first_rail + relay % size, destination),
        ],
        axis=-1,
    )  # [N*N, 4]
    moves, leaves = (source != relay), ~inside
    used = np.stack([moves, moves, leaves, leaves], axis=-1)
    broken = np.asarray((used & (hops < 0)).any(axis=1))
    used &= ~broken[:, None]
    links = hops[used]
    ptr = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    paths = PathRouting(topology, "pxn", ptr, links, np.ones(len(links)))
    if not broken.any():
        return paths
    detour = broken.reshape(devices, devices).astype(np.float64)
    return MixtureRouting("pxn", [(paths, 1.0 - detour), (ecmp_next_hop(topology), detour)])
