"""Routings by destination: at each node, the share of the traffic for a device on each link out.

Loads are swept from the farthest node to the destination, for up to 16 demands at a time: the work
for a demand grows with the entries of the next-hop tables, not with the number of pairs times hops.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel
from topomoe.topologies.routing.lanes import Lanes, lane_rows, lanes_for, source_lanes
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import BoolArray, FloatArray, IntArray, Topology

Ids = NDArray[np.int32]

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class NextHopRouting(Routing):
    """Next-hop tables: ptr [N+1] into entries (tail, link, head, fraction), by destination.

    The entries of a destination are ordered by decreasing distance of their tail, so that a sweep
    in order finds each node's inflow complete.
    """

    def __init__(
        self,
        topology: Topology,
        name: str,
        ptr: IntArray,
        link: Ids | IntArray,
        fraction: FloatArray,
        reachable: BoolArray,
    ) -> None:
        """Keep the tables; tail and head follow from ``link``."""
        super().__init__(topology, name)
        self.ptr = ptr
        self.link = link.astype(np.int32, copy=False)
        tail, head = topology.links.T.astype(np.int32)
        self.tail, self.head = tail[link], head[link]
        self.fraction = fraction
        self._reachable = reachable

    @cached_property
    def reachable(self) -> BoolArray:
        """Whether a pair has a path, [N, N]."""
        return self._reachable

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        share = self.fraction.astype(demand.dtype)
        nodes = self.topology.num_nodes
        side = lanes_for(demand)
        _load(self.ptr, self.tail, self.link, self.head, share, nodes, demand, side, load)
        return load

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the worst pair's seconds, [B]; see ``Routing.worst_pair``."""
        worst = np.zeros(len(demand), dtype=demand.dtype)
        nodes = self.topology.num_nodes
        side = lanes_for(demand)
        args = (self.ptr, self.tail, self.link, self.head, nodes, use)
        _worst(*args, demand, side, offset, worst)
        return worst

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over a pair's links, [N, N]; 0 on the diagonal."""
        out = np.zeros((self.topology.num_devices,) * 2, dtype=value.dtype)
        _path_max(self.ptr, self.tail, self.link, self.head, self.topology.num_nodes, value, out)
        return out

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum over a pair's links, [N, N]."""
        out = np.zeros((self.topology.num_devices,) * 2)
        nodes = self.topology.num_nodes
        _path_sum(self.ptr, self.tail, self.link, self.head, self.fraction, nodes, value, out)
        return out

    @cached_property
    def matrix(self) -> csr_array[Any, Any]:
        """The fractions as a sparse matrix [L, N*N]."""
        from scipy.sparse import csr_array, hstack

        devices = self.topology.num_devices
        blocks = []
        for destination in range(devices):
            block = np.zeros((self.topology.num_links, devices))
            part = slice(self.ptr[destination], self.ptr[destination + 1])
            _fractions_to(
                self.tail[part],
                self.link[part],
                self.head[part],
                self.fraction[part],
                self.topology.num_nodes,
                destination,
                block,
            )
            blocks.append(csr_array(block))
        by_destination = hstack(blocks).tocsc()
        order = np.arange(devices * devices).reshape(devices, devices).T.reshape(-1)
        return csr_array(by_destination[:, order])


@nan_free_kernel
def _fill_lanes(
    demand: NDArray[Any], first: int, width: int, rows: NDArray[Any], lanes: NDArray[Any]
) -> None:
    """Copy demand [B, N, N] from ``first`` on into lanes [N destinations, N sources, lanes]."""
    for source in range(demand.shape[1]):
        source_lanes(demand, first, width, source, rows, lanes[:, source])


@nan_free_kernel
def _load(
    ptr: IntArray,
    tail: Ids,
    link: Ids,
    head: Ids,
    fraction: NDArray[Any],
    num_nodes: int,
    demand: NDArray[Any],
    side: Lanes,
    load: NDArray[Any],
) -> None:
    batches, devices = demand.shape[0], demand.shape[1]
    flow = np.zeros((num_nodes, len(side)), dtype=demand.dtype)
    block = np.zeros((load.shape[1], len(side)), dtype=demand.dtype)
    lanes = np.zeros((devices, devices, len(side)), dtype=demand.dtype)
    rows = lane_rows(demand, side)
    for first in range(0, batches, len(side)):
        width = min(len(side), batches - first)
        _fill_lanes(demand, first, width, rows, lanes)
        block[:] = 0
        for destination in range(devices):
            flow[:] = 0
            flow[:devices] = lanes[destination]
            flow[destination] = 0
            for e in range(ptr[destination], ptr[destination + 1]):
                a, ab, b, share = tail[e], link[e], head[e], fraction[e]
                for lane in range(len(side)):
                    moved = flow[a, lane] * share
                    block[ab, lane] += moved
                    flow[b, lane] += moved
        for ab in range(load.shape[1]):
            for lane in range(width):
                load[first + lane, ab] = block[ab, lane]


@nan_free_kernel
def _worst(
    ptr: IntArray,
    tail: Ids,
    link: Ids,
    head: Ids,
    num_nodes: int,
    use: NDArray[Any],
    demand: NDArray[Any],
    side: Lanes,
    offset: NDArray[Any],
    worst: NDArray[Any],
) -> None:
    batches, devices = demand.shape[0], demand.shape[1]
    busiest = np.zeros((num_nodes, len(side)), dtype=demand.dtype)
    block = np.zeros((use.shape[1], len(side)), dtype=demand.dtype)
    lanes = np.zeros((devices, devices, len(side)), dtype=demand.dtype)
    rows = lane_rows(demand, side)
    best = np.zeros(len(side), dtype=demand.dtype)
    for first in range(0, batches, len(side)):
        width = min(len(side), batches - first)
        _fill_lanes(demand, first, width, rows, lanes)
        for ab in range(use.shape[1]):
            for lane in range(width):
                block[ab, lane] = use[first + lane, ab]
        best[:] = 0
        for destination in range(devices):
            busiest[:] = 0
            for e in range(ptr[destination + 1] - 1, ptr[destination] - 1, -1):
                a, ab, b = tail[e], link[e], head[e]
                for lane in range(len(side)):
                    further = max(block[ab, lane], busiest[b, lane])
                    busiest[a, lane] = max(busiest[a, lane], further)
            for source in range(devices):
                if source == destination:
                    continue
                add = offset[source, destination]
                for lane in range(len(side)):
                    if lanes[destination, source, lane] > 0:
                        best[lane] = max(best[lane], busiest[source, lane] + add)
        for lane in range(width):
            worst[first + lane] = best[lane]


@nan_free_kernel
def _path_max(
    ptr: IntArray,
    tail: Ids,
    link: Ids,
    head: Ids,
    num_nodes: int,
    value: NDArray[Any],
    out: NDArray[Any],
) -> None:
    devices = out.shape[0]
    worst = np.zeros(num_nodes, dtype=value.dtype)
    for destination in range(devices):
        worst[:] = 0
        for e in range(ptr[destination + 1] - 1, ptr[destination] - 1, -1):
            worst[tail[e]] = max(worst[tail[e]], max(value[link[e]], worst[head[e]]))
        out[:, destination] = worst[:devices]


@nan_free_kernel
def _path_sum(
    ptr: IntArray,
    tail: Ids,
    link: Ids,
    head: Ids,
    fraction: FloatArray,
    num_nodes: int,
    value: FloatArray,
    out: FloatArray,
) -> None:
    devices = out.shape[0]
    total = np.zeros(num_nodes)
    for destination in range(devices):
        total[:] = 0
        for e in range(ptr[destination + 1] - 1, ptr[destination] - 1, -1):
            total[tail[e]] += fraction[e] * (value[link[e]] + total[head[e]])
        out[:, destination] = total[:devices]


@nan_free_kernel
def _fractions_to(
    tail: Ids,
    link: Ids,
    head: Ids,
    fraction: FloatArray,
    num_nodes: int,
    destination: int,
    block: FloatArray,
) -> None:
    devices = block.shape[1]
    flow = np.zeros((num_nodes, devices))
    for source in range(devices):
        if source != destination:
            flow[source, source] = 1.0
    for e in range(len(tail)):
        for source in range(devices):
            moved = flow[tail[e], source] * fraction[e]
            block[link[e], source] += moved
            flow[head[e], source] += moved
