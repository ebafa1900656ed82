"""All shortest paths to every device, as next-hop entries that policies choose from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.topology import BoolArray, FloatArray, IntArray, Topology


@dataclass(frozen=True)
class NextHops:
    """Every (destination, link) with the link on a shortest path there.

    Sorted by destination, decreasing distance of the link's tail, tail, link id; ``group`` numbers
    the runs of equal (destination, tail).
    """

    destination: IntArray  # [X]
    link: IntArray  # [X]
    group: IntArray  # [X]
    reachable: BoolArray  # [N, N]

    def ptr(self, num_devices: int, kept: NDArray[np.bool_] | None = None) -> IntArray:
        """Return where each destination's entries (those ``kept``) start, [N+1]."""
        chosen = self.destination if kept is None else self.destination[kept]
        return np.searchsorted(chosen, np.arange(num_devices + 1)).astype(np.int64)


def next_hops(topology: Topology, usable: BoolArray | None = None) -> NextHops:
    """Return the next hops of all shortest paths by hop count over the ``usable`` links [L]."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    devices, nodes = topology.num_devices, topology.num_nodes
    ids = np.arange(topology.num_links) if usable is None else np.flatnonzero(usable)
    tail, head = topology.links[ids].T
    reverse = csr_array((np.ones(len(ids)), (head, tail)), shape=(nodes, nodes))
    distance: FloatArray = dijkstra(reverse, unweighted=True, indices=np.arange(devices))  # [N, V]
    on_path = distance[:, tail] == distance[:, head] + 1
    on_path &= np.isfinite(distance[:, tail])
    destination, at = np.nonzero(on_path)
    order = np.lexsort((ids[at], tail[at], -distance[destination, tail[at]], destination))
    destination, link = destination[order], ids[at][order]
    tails = topology.links[link, 0]
    new = np.ones(len(link), dtype=np.bool_)
    new[1:] = (destination[1:] != destination[:-1]) | (tails[1:] != tails[:-1])
    return NextHops(
        destination=destination.astype(np.int64),
        link=link.astype(np.int64),
        group=np.cumsum(new) - 1,
        reachable=np.isfinite(distance[:, :devices]).T,
    )
