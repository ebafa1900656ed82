"""Routings by destination: at each node, the share of the traffic for a device on each link out.

Loads are swept from the farthest node to the destination, for 16 demands at a time: the work for a
demand grows with the entries of the next-hop tables, not with the number of pairs times hops.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import BoolArray, FloatArray, IntArray, Topology

if TYPE_CHECKING:
    from scipy.sparse import csr_array

LANES = 16  # demands swept together: one cache line of float32


class NextHopRouting(Routing):
    """Next-hop tables: ptr [N+1] into entries (tail, link, head, fraction), one block a destination.

    The entries of a destination are ordered by decreasing distance of their tail, so that a sweep
    in order finds each node's inflow complete.
    """

    def __init__(
        self,
        topology: Topology,
        name: str,
        ptr: IntArray,
        link: IntArray,
        fraction: FloatArray,
        reachable: BoolArray,
    ) -> None:
        """Keep the tables; tail and head follow from ``link``."""
        super().__init__(topology, name)
        self.ptr = ptr
        self.link = link
        self.tail = np.ascontiguousarray(topology.links[link, 0])
        self.head = np.ascontiguousarray(topology.links[link, 1])
        self.fraction = fraction
        self._reachable = reachable

    @cached_property
    def reachable(self) -> BoolArray:
        """Whether a pair has a path, [N, N]."""
        return self._reachable

    def _tables(self, dtype: Any) -> tuple[Any, ...]:
        return self.ptr, self.tail, self.link, self.head, self.fraction.astype(dtype)

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        unused = np.zeros((0, 0), dtype=demand.dtype)
        inverse = np.zeros(0, dtype=demand.dtype)
        time = np.zeros(0)
        _sweep(
            *self._tables(demand.dtype), self.topology.num_nodes, demand, load, inverse, unused, time
        )
        return load

    def transfer_time(
        self, demand: NDArray[Any], offset: FloatArray | None = None
    ) -> NDArray[np.float64]:
        """Return seconds [B]; see ``Routing.transfer_time``."""
        dtype = demand.dtype
        load = np.zeros((0, self.topology.num_links), dtype=dtype)
        inverse = (1.0 / self.topology.capacity).astype(dtype)
        add = np.zeros((0, 0), dtype=dtype) if offset is None else offset.astype(dtype)
        time = np.zeros(len(demand))
        _sweep(*self._tables(dtype), self.topology.num_nodes, demand, load, inverse, add, time)
        return time

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over a pair's links, [N, N]; 0 on the diagonal."""
        out = np.zeros((self.topology.num_devices,) * 2, dtype=value.dtype)
        _path_max(self.ptr, self.tail, self.link, self.head, self.topology.num_nodes, value, out)
        return out

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum over a pair's links, [N, N]."""
        out = np.zeros((self.topology.num_devices,) * 2)
        _path_sum(*self._tables(np.float64), self.topology.num_nodes, value, out)
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
def _sweep(
    ptr: IntArray,
    tail: IntArray,
    link: IntArray,
    head: IntArray,
    fraction: NDArray[Any],
    num_nodes: int,
    demand: NDArray[Any],
    load: NDArray[Any],
    inverse: NDArray[Any],
    offset: NDArray[Any],
    time: FloatArray,
) -> None:
    """Fill load [B, L] where ``inverse`` is empty, else time [B]."""
    batches, devices = demand.shape[0], demand.shape[1]
    links = load.shape[1]
    flow = np.zeros((num_nodes, LANES), dtype=demand.dtype)
    block = np.zeros((links, LANES), dtype=demand.dtype)
    lanes = np.zeros((devices, devices, LANES), dtype=demand.dtype)
    best = np.zeros(LANES, dtype=demand.dtype)
    for first in range(0, batches, LANES):
        width = min(LANES, batches - first)
        for source in range(devices):
            for lane in range(width):
                for destination in range(devices):
                    lanes[destination, source, lane] = demand[first + lane, source, destination]
        block[:] = 0
        for destination in range(devices):
            flow[:] = 0
            flow[:devices] = lanes[destination]
            flow[destination] = 0
            for e in range(ptr[destination], ptr[destination + 1]):
                a, ab, b, share = tail[e], link[e], head[e], fraction[e]
                for lane in range(LANES):
                    moved = flow[a, lane] * share
                    block[ab, lane] += moved
                    flow[b, lane] += moved
        if len(inverse) == 0:
            for ab in range(links):
                for lane in range(width):
                    load[first + lane, ab] = block[ab, lane]
            continue
        best[:] = 0
        for ab in range(links):
            for lane in range(LANES):
                block[ab, lane] *= inverse[ab]
                best[lane] = max(best[lane], block[ab, lane])
        if len(offset):
            best[:] = 0
            for destination in range(devices):
                flow[:] = 0
                for e in range(ptr[destination + 1] - 1, ptr[destination] - 1, -1):
                    a, ab, b = tail[e], link[e], head[e]
                    for lane in range(LANES):
                        use = max(block[ab, lane], flow[b, lane])
                        flow[a, lane] = max(flow[a, lane], use)
                for source in range(devices):
                    if source == destination:
                        continue
                    add = offset[source, destination]
                    for lane in range(LANES):
                        if lanes[destination, source, lane] > 0:
                            best[lane] = max(best[lane], flow[source, lane] + add)
        for lane in range(width):
            time[first + lane] = best[lane]


@nan_free_kernel
def _path_max(
    ptr: IntArray,
    tail: IntArray,
    link: IntArray,
    head: IntArray,
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
    tail: IntArray,
    link: IntArray,
    head: IntArray,
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
    tail: IntArray,
    link: IntArray,
    head: IntArray,
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
