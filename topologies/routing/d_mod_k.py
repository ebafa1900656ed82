"""D-mod-k: in a fat-tree or leaf-spine the destination's number picks every way up.

Zahavi et al., "Optimized InfiniBand fat-tree routing for shift all-to-all communication patterns"
(2010): at tier h the port is floor(destination / product of lower tiers' ports) mod ports.
"""

from __future__ import annotations

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.shortest_paths import next_hops
from topomoe.topologies.topology import Topology


def d_mod_k(topology: Topology) -> NextHopRouting:
    """Return d-mod-k routing: on a leaf-spine, spine = destination mod spines."""
    kind = topology.parameters.get("kind")
    divisor = np.ones(topology.num_nodes, dtype=np.int64)
    if kind == "fat-tree":
        divisor[topology.parameters["first_aggregation"] :] = topology.parameters["k"] // 2
    elif kind != "leaf-spine":
        raise InputError(f"d-mod-k needs a fat-tree or leaf-spine topology, got {topology.name}")
    hops = next_hops(topology)
    # Entries of a group are in link order, and links are in the order of the switches they reach.
    count = np.bincount(hops.group)[hops.group]
    start = np.searchsorted(hops.group, hops.group)
    rank = np.arange(len(hops.group)) - start
    tail = topology.links[hops.link, 0]
    kept = rank == (hops.destination // divisor[tail]) % count
    ptr = hops.ptr(topology.num_devices, kept)
    return NextHopRouting(
        topology, "d-mod-k", ptr, hops.link[kept], np.ones(int(kept.sum())), hops.reachable
    )
