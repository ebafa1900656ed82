"""One shortest path a pair: at every node the next hop with the lowest node number."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.shortest_paths import next_hops
from topomoe.topologies.topology import Topology


def shortest(topology: Topology) -> NextHopRouting:
    """Return single shortest paths by hop count, ties to the lowest next node."""
    hops = next_hops(topology)
    order = np.lexsort((topology.links[hops.link, 1], hops.group))
    first = order[np.searchsorted(hops.group, np.arange(hops.group.max(initial=-1) + 1))]
    kept = np.zeros(len(hops.link), dtype=np.bool_)
    kept[first] = True
    ptr = hops.ptr(topology.num_devices, kept)
    return NextHopRouting(
        topology, "shortest", ptr, hops.link[kept], np.ones(int(kept.sum())), hops.reachable
    )
