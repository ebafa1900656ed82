"""D-mod-k: in a fat-tree or leaf-spine the destination's number picks every way up.

Zahavi et al., "Optimized InfiniBand fat-tree routing for shift all-to-all communication patterns"
(2010): at tier h the port is floor(destination / product of lower tiers' ports) mod ports.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.shortest_paths import next_hops
from topomoe.topologies.routing.tree import TreeRouting, tiers_of
from topomoe.topologies.topology import IntArray, Topology


def d_mod_k(topology: Topology) -> DModKRouting:
    """Return d-mod-k routing: on a leaf-spine, spine = destination mod spines."""
    tiers = tiers_of(topology)
    if tiers is None:
        raise InputError(
            f"d-mod-k needs a whole fat-tree or leaf-spine topology, got {topology.name}"
        )
    device = np.arange(topology.num_devices)
    ports = tiers[1].up.shape[1]  # of the lowest switch; a fat-tree's next ones have as many
    choice = [np.zeros_like(device), device % ports]
    if len(tiers) == 3:  # a pod's links to the core, aggregation switch by aggregation switch
        choice.append(choice[1] * ports + device // ports % ports)
    return DModKRouting(topology, "d-mod-k", tiers, np.stack(choice))


class DModKRouting(TreeRouting):
    """Single paths up and down the tree, by destination."""

    @cached_property
    def tables(self) -> NextHopRouting:
        """The same routing by destination, picked from all shortest paths."""
        topology = self.topology
        divisor: IntArray = np.ones(topology.num_nodes, dtype=np.int64)
        if len(self.tiers) == 3:
            divisor[topology.parameters["first_aggregation"] :] = self.tiers[1].up.shape[1]
        hops = next_hops(topology)
        # Entries of a group are in link order, and links are in the order of the switches above.
        count = np.bincount(hops.group)[hops.group]
        start = np.searchsorted(hops.group, hops.group)
        rank = np.arange(len(hops.group)) - start
        tail = topology.links[hops.link, 0]
        kept = rank == (hops.destination // divisor[tail]) % count
        ptr = hops.ptr(topology.num_devices, kept)
        return NextHopRouting(
            topology, self.name, ptr, hops.link[kept], np.ones(int(kept.sum())), hops.reachable
        )
