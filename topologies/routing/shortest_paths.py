"""All shortest paths to every device, as next-hop entries that policies choose from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel
from topomoe.topologies.topology import BoolArray, IntArray, Topology

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class NextHops:
    """Every (destination, link) with the link on a shortest path there.

    Sorted by destination, decreasing distance of the link's tail, tail, link id; ``group`` numbers
    the runs of equal (destination, tail).
    """

    destination: Ids  # [X]
    link: Ids  # [X]
    group: Ids  # [X]
    reachable: BoolArray  # [N, N]

    def ptr(self, num_devices: int, kept: NDArray[np.bool_] | None = None) -> IntArray:
        """Return where each destination's entries (those ``kept``) start, [N+1]."""
        chosen = self.destination if kept is None else self.destination[kept]
        at = np.arange(num_devices + 1, dtype=chosen.dtype)
        return np.searchsorted(chosen, at).astype(np.int64)


def next_hops(topology: Topology, usable: BoolArray | None = None) -> NextHops:
    """Return the next hops of all shortest paths by hop count over the ``usable`` links [L]."""
    devices, nodes = topology.num_devices, topology.num_nodes
    ids = np.arange(topology.num_links) if usable is None else np.flatnonzero(usable)
    ids = ids[np.argsort(topology.links[ids, 0], kind="stable")]  # by tail, then id
    tail, head = topology.links[ids].T.astype(np.int32)
    out_ptr = np.searchsorted(tail, np.arange(nodes + 1))
    by_head = np.argsort(head, kind="stable")
    in_ptr = np.searchsorted(head[by_head], np.arange(nodes + 1))
    distance = np.full((devices, nodes), -1, dtype=np.int32)
    entries = _distances(in_ptr, tail[by_head], tail, head, distance)
    destination, link, group = (np.empty(entries, dtype=np.int32) for _ in range(3))
    _entries(out_ptr, head, ids.astype(np.int32), distance, destination, link, group)
    return NextHops(destination, link, group, (distance[:, :devices] >= 0).T)


@kernel
def _distances(in_ptr: IntArray, from_node: Ids, tail: Ids, head: Ids, distance: Ids) -> int:
    """Fill distance [N, V] with the hops to each device, breadth first; return the table entries.

    ``from_node[in_ptr[v]:in_ptr[v+1]]`` are the nodes with a link to v.
    """
    queue = np.zeros(distance.shape[1], dtype=np.int32)
    entries = 0
    for destination in range(len(distance)):
        row = distance[destination]
        row[destination] = 0
        queue[0] = destination
        size, done = 1, 0
        while done < size:
            node = queue[done]
            done += 1
            for x in range(in_ptr[node], in_ptr[node + 1]):
                near = from_node[x]
                if row[near] < 0:
                    row[near] = row[node] + 1
                    queue[size] = near
                    size += 1
        for x in range(len(tail)):
            if row[head[x]] >= 0 and row[tail[x]] == row[head[x]] + 1:
                entries += 1
    return entries


@kernel
def _entries(
    out_ptr: IntArray,
    head: Ids,
    ids: Ids,
    distance: Ids,
    destinations: Ids,
    link: Ids,
    group: Ids,
) -> None:
    """Fill the tables, for the links ``ids[out_ptr[v]:out_ptr[v+1]]`` out of each node v."""
    nodes = distance.shape[1]
    count = np.zeros(nodes + 2, dtype=np.int64)
    ordered = np.zeros(nodes, dtype=np.int32)
    at, groups = 0, -1
    for destination in range(len(distance)):
        row = distance[destination]
        # Nodes by decreasing distance, then number: a counting sort, the unreachable left out.
        count[:] = 0
        farthest = row.max()
        for node in range(nodes):
            if row[node] > 0:
                count[farthest - row[node] + 1] += 1
        for far in range(farthest + 1):
            count[far + 1] += count[far]
        size = count[farthest]
        for node in range(nodes):
            if row[node] > 0:
                place = farthest - row[node]
                ordered[count[place]] = node
                count[place] += 1
        for n in range(size):
            node = ordered[n]
            groups += 1
            for x in range(out_ptr[node], out_ptr[node + 1]):
                if row[head[x]] >= 0 and row[node] == row[head[x]] + 1:
                    destinations[at] = destination
                    link[at] = ids[x]
                    group[at] = groups
                    at += 1
