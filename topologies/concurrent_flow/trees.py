"""The trees that hang on a network's core: what crosses their links is known without a program.

A node with one neighbour has no choice of link and is of no use to others' traffic, so that its
demand moves to the neighbour: the hosts of a fat-tree fold onto its edge switches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topomoe.topologies.topology import FloatArray, IntArray, Topology


@dataclass(frozen=True, eq=False)
class Trees:
    """The nodes to fold, ring by ring from the outside in, and what is left: the core."""

    topology: Topology
    parent: IntArray  # [V] the node that it hangs on; -1 in the core
    rings: tuple[IntArray, ...]
    core_links: IntArray  # link ids

    def fold(self, demand: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return demand [V, V] between core nodes and the bytes [L] on the links of the trees."""
        devices, nodes = self.topology.num_devices, self.topology.num_nodes
        left = np.zeros((nodes, nodes))
        left[:devices, :devices] = demand
        load = np.zeros(self.topology.num_links)
        for ring in self.rings:
            onto = self.parent[ring]
            load[self.topology.link_ids(ring, onto)] = left[ring].sum(axis=1)
            load[self.topology.link_ids(onto, ring)] = left[:, ring].sum(axis=0)
            np.add.at(left, onto, left[ring])
            left[ring] = 0.0
            np.add.at(left.T, onto, left.T[ring])
            left[:, ring] = 0.0
            np.fill_diagonal(left, 0.0)
        return left, load

    def root(self, node: int) -> int:
        """Return the core node that a node hangs on, itself if it is one."""
        while self.parent[node] >= 0:
            node = int(self.parent[node])
        return node

    def chain(self, node: int) -> IntArray:
        """Return the nodes from ``node`` to its root, both included."""
        nodes = [node]
        while self.parent[nodes[-1]] >= 0:
            nodes.append(int(self.parent[nodes[-1]]))
        return np.array(nodes, dtype=np.int64)


def fold_trees(topology: Topology) -> Trees:
    """Return the trees of a topology: nodes joined both ways to one node and to no other."""
    tail, head = topology.links.T
    nodes = topology.num_nodes
    parent = np.full(nodes, -1, dtype=np.int64)
    alive = np.ones(topology.num_links, dtype=np.bool_)
    rings: list[IntArray] = []
    while alive.any():
        leaving, entering = tail[alive], head[alive]
        to, origin = np.full(nodes, -1), np.full(nodes, -1)
        to[leaving] = entering
        origin[entering] = leaving
        leaf = (to == origin) & (to >= 0)
        leaf &= np.bincount(leaving, minlength=nodes) == 1
        leaf &= np.bincount(entering, minlength=nodes) == 1
        # Of two leaves on each other, the one of the smaller number stays.
        leaf &= ~(leaf[to] & (to > np.arange(nodes)))
        ring = np.flatnonzero(leaf).astype(np.int64)
        if len(ring) == 0:
            break
        parent[ring] = to[ring]
        rings.append(ring)
        alive &= ~(leaf[tail] | leaf[head])
    return Trees(topology, parent, tuple(rings), np.flatnonzero(alive).astype(np.int64))
