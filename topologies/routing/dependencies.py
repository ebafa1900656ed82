"""Channel dependencies: which link a routing may hold while it waits for which other.

Dally and Seitz, "Deadlock-free message routing in multiprocessor interconnection networks" (IEEE
Transactions on Computers 1987): a network with blocking flow control cannot deadlock where the
graph of these dependencies between channels has no cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel
from topomoe.topologies.routing.next_hop import Ids, NextHopRouting
from topomoe.topologies.routing.paths import PathRouting
from topomoe.topologies.topology import BoolArray, IntArray


@dataclass(frozen=True)
class Dependencies:
    """Pairs of entries of a routing's tables that follow each other on some path.

    An entry is a link taken by the traffic of one ``unit``: a destination, or a pair where paths
    are given pair by pair. Sorted by unit.
    """

    unit: IntArray  # [X]
    held: IntArray  # [X] entry of the tables
    wanted: IntArray  # [X] entry of the tables
    link: IntArray | Ids  # [entries]
    remaining: IntArray  # [entries] links on the longest way on, this one included
    used: BoolArray  # [entries] whether some pair's traffic takes it


def table_dependencies(tables: NextHopRouting) -> Dependencies:
    """Return the dependencies of a routing by destination, over what devices send."""
    nodes = tables.topology.num_nodes
    devices = tables.topology.num_devices
    args = (tables.ptr, tables.tail, tables.head, tables.fraction, nodes, devices)
    used = np.zeros(len(tables.link), dtype=np.bool_)
    remaining = np.zeros(len(tables.link), dtype=np.int64)
    empty = np.empty((0, 3), dtype=np.int64)
    count = _follow(*args, used, remaining, empty)
    found = np.empty((count, 3), dtype=np.int64)
    _follow(*args, used, remaining, found)
    return Dependencies(found[:, 0], found[:, 1], found[:, 2], tables.link, remaining, used)


def path_dependencies(paths: PathRouting) -> Dependencies:
    """Return the dependencies of single paths, whose links come in path order."""
    pair = np.repeat(np.arange(len(paths.ptr) - 1), np.diff(paths.ptr))
    held = np.flatnonzero(pair[1:] == pair[:-1]).astype(np.int64)
    remaining = paths.ptr[pair + 1] - np.arange(len(pair))
    used = np.ones(len(pair), dtype=np.bool_)
    return Dependencies(pair[held], held, held + 1, paths.links, remaining, used)


def on_cycles(held: IntArray, wanted: IntArray) -> IntArray:
    """Return the channels that lie on a cycle of the graph of edges held -> wanted."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    channels, ends = np.unique(np.concatenate([held, wanted]), return_inverse=True)
    tail, head = ends[: len(held)], ends[len(held) :]
    graph = csr_array((np.ones(len(tail)), (tail, head)), shape=(len(channels),) * 2)
    parts, part = connected_components(graph, directed=True, connection="strong")
    cyclic = np.bincount(part, minlength=parts)[part] > 1
    cyclic[tail[tail == head]] = True
    return channels[cyclic]


def layers(dependencies: Dependencies, num_links: int, most: int) -> int:
    """Return how many layers hold all units with no cycle in any, or ``most`` if no fewer do.

    First fit in unit order, as LASH does (Skeie et al., 2002): a layer is one virtual channel a
    link, and a unit's traffic stays in its own.
    """
    link = dependencies.link.astype(np.int64)
    held, wanted = link[dependencies.held], link[dependencies.wanted]
    edges, edge = np.unique(held * num_links + wanted, return_inverse=True)
    tail, head = np.divmod(edges, num_links)
    ptr = np.searchsorted(tail, np.arange(num_links + 1)).astype(np.int64)
    starts = np.flatnonzero(np.r_[True, np.diff(dependencies.unit) != 0, True]).astype(np.int64)
    left = np.ones(len(starts) - 1, dtype=np.bool_)
    count = 0
    while left.any() and count < most:
        _fill_layer(ptr, head, starts, edge.reshape(-1).astype(np.int64), left)
        count += 1
    return max(count, 1)


@kernel
def _fill_layer(
    ptr: IntArray, head: IntArray, starts: IntArray, edge: IntArray, left: BoolArray
) -> None:
    """Take each unit that is ``left`` into one layer unless it closes a cycle there.

    Edges lead from link l to head[ptr[l]:ptr[l+1]]; unit u has edge[starts[u]:starts[u+1]].
    """
    links = len(ptr) - 1
    active = np.zeros(len(head), dtype=np.bool_)
    waiting = np.zeros(links, dtype=np.int64)
    ready = np.zeros(links, dtype=np.int64)
    added = np.zeros(len(head), dtype=np.int64)
    for unit in range(len(left)):
        if not left[unit]:
            continue
        new = 0
        for x in range(starts[unit], starts[unit + 1]):
            if not active[edge[x]]:
                active[edge[x]] = True
                added[new] = edge[x]
                new += 1
        left[unit] = False
        if new == 0:
            continue
        # Kahn: a graph without a cycle can be taken apart by what nothing leads to.
        waiting[:] = 0
        for x in range(len(head)):
            if active[x]:
                waiting[head[x]] += 1
        size = 0
        for link in range(links):
            if waiting[link] == 0:
                ready[size] = link
                size += 1
        done = 0
        while done < size:
            link = ready[done]
            done += 1
            for x in range(ptr[link], ptr[link + 1]):
                if active[x]:
                    waiting[head[x]] -= 1
                    if waiting[head[x]] == 0:
                        ready[size] = head[x]
                        size += 1
        if size < links:
            left[unit] = True
            for x in range(new):
                active[added[x]] = False


@kernel
def _follow(
    ptr: IntArray,
    tail: Ids,
    head: Ids,
    fraction: NDArray[Any],
    num_nodes: int,
    devices: int,
    used: BoolArray,
    remaining: IntArray,
    found: IntArray,
) -> int:
    """Fill found with rows (destination, entry, next entry), if it has room; return their number.

    A destination's entries come in order of decreasing distance, those of one tail together.
    """
    first = np.zeros(num_nodes + 1, dtype=np.int64)
    last = np.zeros(num_nodes + 1, dtype=np.int64)
    reached = np.zeros(num_nodes, dtype=np.bool_)
    far = np.zeros(num_nodes, dtype=np.int64)
    count = 0
    for destination in range(devices):
        first[:] = 0
        last[:] = 0
        far[:] = 0
        reached[:] = False
        reached[:devices] = True
        for e in range(ptr[destination], ptr[destination + 1]):
            if last[tail[e]] == 0:
                first[tail[e]] = e
            last[tail[e]] = e + 1
            used[e] = reached[tail[e]] and fraction[e] > 0
            if used[e]:
                reached[head[e]] = True
        for e in range(ptr[destination + 1] - 1, ptr[destination] - 1, -1):
            remaining[e] = far[head[e]] + 1
            if used[e]:
                far[tail[e]] = max(far[tail[e]], remaining[e])
        for e in range(ptr[destination], ptr[destination + 1]):
            if not used[e] or head[e] == destination:
                continue
            for after in range(first[head[e]], last[head[e]]):
                if used[after] and tail[after] == head[e]:
                    if len(found):
                        found[count, 0] = destination
                        found[count, 1] = e
                        found[count, 2] = after
                    count += 1
    return count
