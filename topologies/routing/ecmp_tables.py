"""Fluid ECMP as next-hop tables, on any topology."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.shortest_paths import next_hops
from topomoe.topologies.topology import BoolArray, Topology


def ecmp_next_hop(topology: Topology, usable: BoolArray | None = None) -> NextHopRouting:
    """Return fluid ECMP as next-hop tables, on any topology; ``usable`` [L] leaves links out."""
    hops = next_hops(topology, usable)
    share = 1.0 / np.bincount(hops.group)[hops.group] if len(hops.group) else np.empty(0)
    return NextHopRouting(
        topology, "ecmp", hops.ptr(topology.num_devices), hops.link, share, hops.reachable
    )
