"""The optimal routing of one demand: the splits of its maximum concurrent flow."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies.concurrent_flow import solve
from topomoe.topologies.concurrent_flow.trees import fold_trees
from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.shortest_paths import next_hops
from topomoe.topologies.topology import IntArray, Topology


def optimal(topology: Topology, demand: ArrayLike, cache: bool = True) -> NextHopRouting:
    """Return the routing that moves ``demand`` [N, N] bytes soonest; it carries any other too.

    At latency 0 its bottleneck time for ``demand`` is ``concurrent_flow.solve``'s, which also says
    what is raised and what ``cache`` does. Where that flow leaves a node without a way to a
    destination, traffic takes the shortest paths, split equally, until it meets the flow.
    """
    flow = solve(topology, demand, cache=cache)
    trees = fold_trees(topology)
    hops = next_hops(topology)
    where = {int(node): k for k, node in enumerate(flow.destination)}
    starts = hops.ptr(topology.num_devices)
    ptr, link, fraction = [0], [], []
    for device in range(topology.num_devices):
        mine = slice(starts[device], starts[device + 1])
        group = hops.group[mine] - (hops.group[starts[device]] if mine.start < mine.stop else 0)
        entries = hops.link[mine]
        share = 1.0 / np.bincount(group)[group] if len(group) else np.empty(0)
        chain = trees.chain(device)
        k = where.get(int(chain[-1]))
        if k is not None:
            # The flow's own entries replace those of the core. Before them go the trees, from which
            # every byte must climb, and after them the way down to the device.
            table = slice(flow.ptr[k], flow.ptr[k + 1])
            tail = topology.links[entries, 0]
            down = np.isin(tail, chain)
            up = (trees.parent[tail] >= 0) & ~down
            entries = np.concatenate([entries[up], flow.link[table], entries[down]])
            share = np.concatenate([share[up], flow.fraction[table], share[down]])
        link.append(entries)
        fraction.append(share)
        ptr.append(ptr[-1] + len(entries))
    joined: IntArray = np.concatenate(link)
    return NextHopRouting(
        topology,
        "optimal",
        np.array(ptr, dtype=np.int64),
        joined,
        np.concatenate(fraction),
        hops.reachable,
    )
