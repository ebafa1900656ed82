"""A topology: devices, switches and directed links with capacity and latency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import networkx as nx

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Topology:
    """An immutable link-level graph; devices are nodes 0..N-1, switches follow.

    A link is directed and there is at most one from a node to another: parallel links are one link
    of their summed capacity. Raises InputError where an array contradicts another or a capacity or
    latency is not a finite number of the right sign.
    """

    name: str
    num_devices: int
    num_nodes: int
    links: IntArray  # [L, 2] from node, to node
    capacity: FloatArray  # [L] bytes/s
    latency: FloatArray  # [L] seconds
    optical: BoolArray  # [L] a circuit of an optical switch, else electrical
    grid: tuple[int, int] | None = None  # rows, columns; device id = row * columns + column
    default_routing: str = "ecmp"
    parameters: Mapping[str, Any] = field(default_factory=dict)  # what it was made from

    def __post_init__(self) -> None:
        """Check the arrays against each other and make them read-only."""
        count = len(self.links)
        if self.links.shape != (count, 2) or count == 0:
            raise InputError(f"{self.name}: links must have shape [L, 2] with L >= 1")
        for label, array in (("capacity", self.capacity), ("latency", self.latency)):
            if array.shape != (count,):
                raise InputError(f"{self.name}: {label} must have one entry a link ({count})")
            wrong = ~np.isfinite(array) | (array <= 0 if label == "capacity" else array < 0)
            if wrong.any():
                at = int(np.argmax(wrong))
                tail, head = self.links[at]
                relation = "> 0" if label == "capacity" else ">= 0"
                raise InputError(
                    f"{self.name}: {label} must be finite and {relation}, "
                    f"link {tail}->{head} has {array[at]:g}"
                )
        if self.links.min() < 0 or self.links.max() >= self.num_nodes:
            raise InputError(f"{self.name}: links must join nodes 0..{self.num_nodes - 1}")
        if (self.links[:, 0] == self.links[:, 1]).any():
            raise InputError(f"{self.name}: a link must join two different nodes")
        if not 1 <= self.num_devices <= self.num_nodes:
            raise InputError(
                f"{self.name}: devices must be in 1..{self.num_nodes}, got {self.num_devices}"
            )
        for name in ("links", "capacity", "latency", "optical"):
            getattr(self, name).setflags(write=False)

    @property
    def num_links(self) -> int:
        """Number of directed links, L."""
        return len(self.links)

    @cached_property
    def graph(self) -> nx.DiGraph[int]:
        """The graph, with ``capacity`` (bytes/s), ``latency`` (s) and ``medium`` on each edge."""
        import networkx as nx

        graph: nx.DiGraph[int] = nx.DiGraph(name=self.name)
        for node in range(self.num_nodes):
            graph.add_node(node, kind="device" if node < self.num_devices else "switch")
        for (tail, head), capacity, latency, optical in zip(
            self.links.tolist(),
            self.capacity.tolist(),
            self.latency.tolist(),
            self.optical.tolist(),
            strict=True,
        ):
            graph.add_edge(
                tail,
                head,
                capacity=capacity,
                latency=latency,
                medium="optical" if optical else "electrical",
            )
        frozen: nx.DiGraph[int] = nx.freeze(graph)
        return frozen

    @cached_property
    def device_degree(self) -> IntArray:
        """Links that leave each device, [N]."""
        degree = np.bincount(self.links[:, 0], minlength=self.num_nodes)
        return degree[: self.num_devices].astype(np.int64)

    @cached_property
    def injection(self) -> FloatArray:
        """Bytes per second that can leave each device, [N]."""
        total = np.bincount(self.links[:, 0], weights=self.capacity, minlength=self.num_nodes)
        return np.asarray(total[: self.num_devices], dtype=np.float64)

    @cached_property
    def reception(self) -> FloatArray:
        """Bytes per second that can reach each device, [N]."""
        total = np.bincount(self.links[:, 1], weights=self.capacity, minlength=self.num_nodes)
        return np.asarray(total[: self.num_devices], dtype=np.float64)

    @cached_property
    def least_hops(self) -> FloatArray:
        """Links on the shortest path between devices, [N, N]; infinite where there is none."""
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import dijkstra

        tail, head = self.links.T
        graph = csr_array((np.ones(self.num_links), (tail, head)), shape=(self.num_nodes,) * 2)
        distance = dijkstra(graph, unweighted=True, indices=np.arange(self.num_devices))
        return np.asarray(distance[:, : self.num_devices], dtype=np.float64)

    def link_ids(self, tail: NDArray[Any], head: NDArray[Any]) -> IntArray:
        """Return the id of the link from each ``tail`` to each ``head``; -1 where there is none."""
        keys = self.links[:, 0] * self.num_nodes + self.links[:, 1]
        order = np.argsort(keys)
        wanted = np.asarray(tail, dtype=np.int64) * self.num_nodes + np.asarray(head)
        at = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
        found = order[at]
        return np.where(keys[found] == wanted, found, -1)


def merge_links(
    links: IntArray, capacity: FloatArray, latency: FloatArray, optical: BoolArray
) -> tuple[IntArray, FloatArray, FloatArray, BoolArray]:
    """Return the links sorted, parallel ones merged: capacities add, the longest latency stays.

    A circuit in parallel with an electrical link makes a link marked optical.
    """
    if len(links) == 0:
        return links.reshape(0, 2), capacity, latency, optical
    pairs, member = np.unique(links, axis=0, return_inverse=True)
    member = member.reshape(-1)
    merged_latency = np.zeros(len(pairs))
    np.maximum.at(merged_latency, member, latency)
    merged_capacity = np.zeros(len(pairs))
    np.add.at(merged_capacity, member, capacity)
    merged_optical = np.bincount(member, weights=optical, minlength=len(pairs)) > 0
    return pairs, merged_capacity, merged_latency, np.asarray(merged_optical, dtype=np.bool_)


def both_ways(edges: IntArray) -> IntArray:
    """Return each undirected edge [X, 2] as two directed links, duplicates once, sorted."""
    if len(edges) == 0:
        return edges.reshape(0, 2)
    return np.unique(np.concatenate([edges, edges[:, ::-1]]), axis=0)


def uniform_topology(
    name: str,
    num_devices: int,
    links: IntArray,
    bandwidth: float,
    latency: float,
    num_nodes: int | None = None,
    **fields: Any,
) -> Topology:
    """Return an electrical topology whose links all have one capacity (bytes/s) and latency (s)."""
    count = len(links)
    return Topology(
        name=name,
        num_devices=num_devices,
        num_nodes=num_devices if num_nodes is None else num_nodes,
        links=links,
        capacity=np.full(count, bandwidth),
        latency=np.full(count, latency),
        optical=np.zeros(count, dtype=np.bool_),
        **fields,
    )


def require_connected(topology: Topology) -> Topology:
    """Return the topology; InputError names a pair of devices that no path joins."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import breadth_first_order

    nodes = topology.num_nodes
    tail, head = topology.links.T
    for direction, (start, end) in (("to", (tail, head)), ("from", (head, tail))):
        adjacency = csr_array((np.ones(len(start)), (start, end)), shape=(nodes, nodes))
        reached = breadth_first_order(adjacency, 0, return_predecessors=False)
        missing = np.setdiff1d(np.arange(topology.num_devices), reached)
        if len(missing):
            raise InputError(
                f"{topology.name}: disconnected, no path {direction} device {missing[0]} "
                f"{'from' if direction == 'to' else 'to'} device 0"
            )
    return topology
