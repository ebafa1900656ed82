"""Topologies from arrays, networkx graphs and edge-list files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies import units
from topomoe.topologies.checked import numbers, whole_numbers
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import read_lines
from topomoe.topologies.topology import FloatArray, Topology, merge_links, require_connected

if TYPE_CHECKING:
    import networkx as nx


def from_links(
    links: ArrayLike,
    capacity: ArrayLike,
    latency: ArrayLike = 0.0,
    devices: int | None = None,
    name: str = "custom",
) -> Topology:
    """Return a topology of the given links, in the given order.

    links[L, 2] directed (from, to); capacity[L] bytes/s and latency[L] s, or one number for all;
    ``devices`` N: nodes 0..N-1 are devices (default: all nodes), the rest switches. The links need
    not connect all devices: ``Routing.from_paths`` and ``network.optimal`` need paths only where
    there is demand, the routing policies between all devices.
    """
    pairs = whole_numbers(links, f"{name}: links").copy()
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"{name}: links must have shape [L, 2], got {pairs.shape}")
    if len(np.unique(pairs, axis=0)) != len(pairs):
        raise InputError(
            f"{name}: links must differ; parallel links are one of their summed capacity"
        )
    nodes = int(pairs.max(initial=-1)) + 1
    return Topology(
        name=name,
        num_devices=nodes if devices is None else devices,
        num_nodes=max(nodes, devices or 0),
        links=pairs,
        capacity=_each(capacity, len(pairs), f"{name}: capacity"),
        latency=_each(latency, len(pairs), f"{name}: latency"),
        optical=np.zeros(len(pairs), dtype=np.bool_),
        parameters={"kind": "custom"},
    )


def _each(value: ArrayLike, count: int, field: str) -> FloatArray:
    array = numbers(value, field)
    return np.full(count, array) if array.ndim == 0 else array.copy()


def from_networkx(
    graph: nx.Graph[Any], bandwidth: str | float, latency: str | float = "1us", name: str = "custom"
) -> Topology:
    """Return a topology of any networkx graph; an undirected edge is a link each way.

    Nodes with the attribute ``kind="switch"`` are switches, all others devices, numbered in the
    graph's order, devices first. Edge attributes ``capacity``, ``latency`` (SI numbers or text with
    a unit) and ``medium`` (``electrical`` or ``optical``) override the defaults given.
    """
    import networkx as nx

    kinds = nx.get_node_attributes(graph, "kind", default="device")
    order = [n for n in graph if kinds[n] != "switch"] + [n for n in graph if kinds[n] == "switch"]
    number = {node: index for index, node in enumerate(order)}
    devices = sum(1 for node in graph if kinds[node] != "switch")
    if devices < 1:
        raise InputError(f"{name}: a topology must have at least one device")
    directed = graph if graph.is_directed() else graph.to_directed()
    edges = list(directed.edges(data=True))
    if not edges:
        raise InputError(f"{name}: a topology must have at least one link")
    links, capacity, delay, optical = merge_links(
        np.array([(number[a], number[b]) for a, b, _ in edges], dtype=np.int64),
        np.array([_edge(units.bandwidth, e, "capacity", bandwidth, name) for e in edges]),
        np.array([_edge(units.seconds, e, "latency", latency, name) for e in edges]),
        np.array([data.get("medium") == "optical" for _, _, data in edges]),
    )
    return require_connected(
        Topology(
            name=name,
            num_devices=devices,
            num_nodes=len(order),
            links=links,
            capacity=capacity,
            latency=delay,
            optical=optical,
            parameters={"kind": "custom"},
        )
    )


def _edge(
    parse: Any, edge: tuple[Any, Any, dict[str, Any]], key: str, default: Any, name: str
) -> float:
    tail, head, data = edge
    return float(parse(data.get(key, default), f"{name}: {key} of link {tail}->{head}"))


def from_edge_list(
    path: str | Path, bandwidth: str | float = "400Gbps", latency: str | float = "1us"
) -> Topology:
    """Return a topology from a text file with a link each way on every line.

    A line is ``node node [capacity [latency [medium]]]``, separated by spaces or commas; ``#``
    starts a comment. Nodes whose name is a number are devices and must be 0..N-1; all others are
    switches. Capacity and latency carry units (``400Gbps``, ``1us``). ``a > b`` instead of ``a b``
    makes a one-way link.
    """
    import networkx as nx

    path = Path(path)
    graph: nx.DiGraph[str] = nx.DiGraph()
    for number, line in enumerate(read_lines(path, "edge list"), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        one_way = len(words) > 1 and words[1] == ">"
        if one_way:
            del words[1]
        if not 2 <= len(words) <= 5:
            raise InputError(
                f"{path}: line {number} must be 'node node [capacity [latency [medium]]]'"
            )
        tail, head = words[:2]
        where = f"{path}: line {number}"
        attributes = {
            "capacity": units.bandwidth(
                words[2] if len(words) > 2 else bandwidth, f"{where}: capacity"
            ),
            "latency": units.seconds(words[3] if len(words) > 3 else latency, f"{where}: latency"),
            "medium": words[4] if len(words) > 4 else "electrical",
        }
        if attributes["medium"] not in ("electrical", "optical"):
            raise InputError(f"{where}: medium must be electrical or optical, got {words[4]!r}")
        for node in (tail, head):
            if node.startswith("-"):
                raise InputError(f"{where}: a node must not start with -, got {node}")
        if tail == head:
            raise InputError(f"{where}: a link must join two different nodes, got {tail} twice")
        for a, b in ((tail, head),) if one_way else ((tail, head), (head, tail)):
            if graph.has_edge(a, b):
                raise InputError(f"{where}: link {a}->{b} is already there")
            graph.add_edge(a, b, **attributes)
    if graph.number_of_edges() == 0:
        raise InputError(f"{path}: the edge list holds no link")
    devices = sorted((n for n in graph if n.isdecimal()), key=int)
    if [int(n) for n in devices] != list(range(len(devices))) or not devices:
        raise InputError(f"{path}: devices must be numbered 0..N-1 without a gap")
    ordered: nx.DiGraph[str] = nx.DiGraph()
    ordered.add_nodes_from(devices, kind="device")
    ordered.add_nodes_from((n for n in graph if not n.isdecimal()), kind="switch")
    ordered.add_edges_from(graph.edges(data=True))
    try:
        return from_networkx(ordered, bandwidth, latency, name=path.stem)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
