"""From a solver's flow, right to a tolerance, to forwarding tables that deliver every byte.

Flow that runs in a circle is taken out, nodes that the solver gave (next to) no way on get their
shortest paths, and the demand is sent through the resulting fractions: the loads are those of a
routing, so that the time they give is attained and not only promised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topomoe.topologies.concurrent_flow.program import Network
from topomoe.topologies.kernel import kernel
from topomoe.topologies.topology import BoolArray, FloatArray, IntArray

LEAST_SHARE = 1e-10  # of what passes a node: less is residue, and a pair would wait for its way
NOISE = 1e-11  # of the demand of a destination's mean source: solver's residue, not flow


@dataclass(frozen=True, eq=False)
class Tables:
    """Entries by destination, tails in topological order, and what the demand puts on each link."""

    ptr: IntArray  # [K + 1]
    link: IntArray  # [X]
    fraction: FloatArray  # [X]
    flow: FloatArray  # [X] bytes
    load: FloatArray  # [L] bytes

    @staticmethod
    def empty(links: int) -> Tables:
        """Return the tables where nothing has anywhere to go."""
        none = np.zeros(0, dtype=np.int64)
        return Tables(np.zeros(1, dtype=np.int64), none, np.zeros(0), np.zeros(0), np.zeros(links))


def forwarding_tables(network: Network, hops: FloatArray, flow: FloatArray) -> Tables:
    """Return the tables of ``flow`` [K, L] bytes; hops [K, V] are the links to the destination."""
    tail, head = network.links.T
    byte = network.demand.sum() / np.count_nonzero(network.demand)
    flow = np.where(flow > NOISE * byte, flow, 0.0)
    with np.errstate(invalid="ignore"):
        shortest = hops[:, tail] == hops[:, head] + 1
    to, link = np.nonzero((flow > 0) | (shortest & np.isfinite(hops[:, tail])))
    order = np.lexsort((link, tail[link], to))
    to, link = to[order], link[order]
    ptr = np.searchsorted(to, np.arange(len(hops) + 1)).astype(np.int64)
    entries = len(link)
    out_link, out_ptr = np.empty(entries, dtype=np.int64), np.zeros_like(ptr)
    out_fraction, out_flow = np.empty(entries), np.empty(entries)
    load = np.zeros(len(network.links))
    used = _tables(
        ptr,
        link,
        np.ascontiguousarray(tail),
        np.ascontiguousarray(head),
        flow[to, link],
        shortest[to, link],
        hops,
        network.demand,
        network.destination,
        out_ptr,
        out_link,
        out_fraction,
        out_flow,
        load,
    )
    return Tables(out_ptr, out_link[:used], out_fraction[:used], out_flow[:used], load)


@kernel
def _tables(
    ptr: IntArray,
    link: IntArray,
    tail: IntArray,
    head: IntArray,
    flow: FloatArray,
    shortest: BoolArray,
    hops: FloatArray,
    demand: FloatArray,
    destination: IntArray,
    out_ptr: IntArray,
    out_link: IntArray,
    out_fraction: FloatArray,
    out_flow: FloatArray,
    load: FloatArray,
) -> int:
    nodes = hops.shape[1]
    first = np.zeros(nodes + 1, dtype=np.int64)
    finished = np.empty(nodes, dtype=np.int64)
    order = np.empty(nodes, dtype=np.int64)
    carries = np.zeros(nodes, dtype=np.bool_)
    used = 0
    for k in range(len(destination)):
        goal = destination[k]
        first[:] = 0
        for e in range(ptr[k], ptr[k + 1]):
            first[tail[link[e]] + 1] += 1
        first[0] = ptr[k]
        for v in range(nodes):
            first[v + 1] += first[v]
        _cancel_circles(first, link, head, flow, finished)

        # A node carries flow if one that carries it, or the goal, is next: heads finish first.
        carries[:] = False
        carries[goal] = True
        for node in finished:
            for e in range(first[node], first[node + 1]):
                if not carries[head[link[e]]]:
                    flow[e] = 0.0
                elif flow[e] > 0:
                    carries[node] = True

        # Nodes that carry none come first, farthest first: their shortest paths end in the goal or
        # in a node that carries flow, and no flow leaves those that do. So no entry leads back.
        place = 0
        for node in np.argsort(-hops[k]):
            if not carries[node]:
                order[place] = node
                place += 1
        for node in finished[::-1]:
            if carries[node]:
                order[place] = node
                place += 1
        passing = demand[k].copy()
        out_ptr[k] = used
        for node in order:
            if node == goal:
                continue
            total = 0.0
            for e in range(first[node], first[node + 1]):
                if not carries[node]:
                    flow[e] = 1.0 if shortest[e] else 0.0
                total += flow[e]
            kept = 0.0
            for e in range(first[node], first[node + 1]):
                if flow[e] < LEAST_SHARE * total:
                    flow[e] = 0.0
                kept += flow[e]
            total = kept
            for e in range(first[node], first[node + 1]):
                if flow[e] > 0:
                    share = flow[e] / total
                    moved = passing[node] * share
                    out_link[used] = link[e]
                    out_fraction[used] = share
                    out_flow[used] = moved
                    load[link[e]] += moved
                    passing[head[link[e]]] += moved
                    used += 1
    out_ptr[len(destination)] = used
    return used


@kernel
def _cancel_circles(
    first: IntArray, link: IntArray, head: IntArray, flow: FloatArray, finished: IntArray
) -> None:
    """Take circular flow out of the entries, and list the nodes so that heads come before tails.

    Depth-first search: an entry that leads to a node on the stack closes a circle; the least flow
    on it is subtracted all round, and the search goes on from the first entry that this emptied.
    """
    nodes = len(first) - 1
    state = np.zeros(nodes, dtype=np.int64)  # 0 new, 1 on the stack, 2 finished
    at = first[:nodes].copy()
    stack = np.empty(nodes, dtype=np.int64)
    done = 0
    for start in range(nodes):
        if state[start] != 0:
            continue
        depth = 0
        stack[0] = start
        state[start] = 1
        while depth >= 0:
            v = stack[depth]
            if at[v] == first[v + 1]:
                state[v] = 2
                finished[done] = v
                done += 1
                depth -= 1
                continue
            w = head[link[at[v]]]
            if flow[at[v]] <= 0 or state[w] == 2:
                at[v] += 1
            elif state[w] == 0:
                depth += 1
                stack[depth] = w
                state[w] = 1
            else:
                begin = depth
                while stack[begin] != w:
                    begin -= 1
                least = flow[at[v]]
                for i in range(begin, depth):
                    least = min(least, flow[at[stack[i]]])
                keep = depth
                for i in range(depth, begin - 1, -1):
                    e = at[stack[i]]
                    flow[e] -= least
                    if flow[e] <= 0:
                        flow[e] = 0.0
                        keep = i
                for i in range(keep + 1, depth + 1):
                    state[stack[i]] = 0
                depth = keep
