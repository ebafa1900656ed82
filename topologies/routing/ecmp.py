"""Equal-cost multi-path, fluid: every node splits equally over its next hops on shortest paths."""

from __future__ import annotations

from topomoe.topologies.routing.ecmp_tables import ecmp_next_hop
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.routing.tree import tree_routing
from topomoe.topologies.topology import Topology


def ecmp(topology: Topology) -> Routing:
    """Return fluid ECMP over shortest paths by hop count, as group sums on trees of switches."""
    return tree_routing(topology) or ecmp_next_hop(topology)
