"""Equal-cost multi-path, fluid: every node splits equally over its next hops on shortest paths."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.routing.shortest_paths import next_hops
from topomoe.topologies.routing.tree import tree_routing
from topomoe.topologies.topology import BoolArray, Topology


def ecmp(topology: Topology) -> Routing:
    """Return fluid ECMP over shortest paths by hop count, as group sums on trees of switches."""
    return tree_routing(topology) or ecmp_next_hop(topology)


def ecmp_next_hop(topology: Topology, usable: BoolArray | None = None) -> NextHopRouting:
    """Return fluid ECMP as next-hop tables, on any topology; ``usable`` [L] leaves links out."""
    hops = next_hops(topology, usable)
    share = 1.0 / np.bincount(hops.group)[hops.group] if len(hops.group) else np.empty(0)
    return NextHopRouting(
        topology, "ecmp", hops.ptr(topology.num_devices), hops.link, share, hops.reachable
    )
