"""Topologies from arrays, graphs and edge-list files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest

from topomoe.topologies import InputError, from_edge_list, from_links, from_networkx, make


def test_links_stay_in_the_order_given() -> None:
    links = [(2, 0), (0, 3), (3, 1), (1, 2)]
    topology = from_links(links, capacity=[1, 2, 3, 4], latency=1e-6, devices=3)
    assert topology.links.tolist() == [list(link) for link in links]
    assert topology.capacity.tolist() == [1, 2, 3, 4]
    assert topology.latency.tolist() == [1e-6] * 4
    assert (topology.num_devices, topology.num_nodes) == (3, 4)


def test_all_nodes_are_devices_unless_said_otherwise() -> None:
    assert from_links([(0, 1), (1, 4)], 1.0).num_devices == 5
    assert from_links([(0, 1), (1, 0)], 1.0, devices=9).num_nodes == 9


def test_arrays_given_stay_the_callers_own() -> None:
    links, capacity = np.array([[0, 1], [1, 0]]), np.ones(2)
    topology = from_links(links, capacity)
    links[0], capacity[0] = 7, 7.0
    assert topology.links.tolist() == [[0, 1], [1, 0]]
    assert topology.capacity.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"links": []}, r"links must have shape \[L, 2\]"),
        ({"links": np.empty((0, 2), dtype=int)}, r"links must have shape \[L, 2\]"),
        ({"links": [(0, 1, 2)]}, r"links must have shape \[L, 2\]"),
        ({"links": [(0, 1), (2,)]}, "links must be numbers in rows of one length"),
        ({"links": [("a", "b")]}, "links must be numbers, got text"),
        ({"links": [(0, 1.5)]}, "links must be whole numbers"),
        ({"links": [(0, np.nan)]}, "links must be whole numbers"),
        ({"links": [(0, 1), (0, 1)]}, "links must differ"),
        ({"links": [(0, 0)]}, "a link must join two different nodes"),
        ({"links": [(0, -1)]}, "links must join nodes"),
        ({"capacity": 0.0}, "capacity must be finite and > 0, link 0->1 has 0"),
        ({"capacity": [1.0, -2.0]}, "capacity must be finite and > 0, link 1->0 has -2"),
        ({"capacity": [1.0, np.nan]}, "capacity must be finite and > 0, link 1->0 has nan"),
        ({"capacity": [1.0, 2.0, 3.0]}, r"capacity must have one entry a link \(2\)"),
        ({"capacity": "400Gbps"}, "capacity must be numbers, got text"),
        ({"latency": -1.0}, "latency must be finite and >= 0, link 0->1 has -1"),
        ({"devices": 0}, "devices must be in 1"),
    ],
)
def test_bad_links_are_named(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"links": [(0, 1), (1, 0)], "capacity": 1.0}
    with pytest.raises(InputError, match=f"^custom: {message}"):
        from_links(**(good | arguments))


def test_an_undirected_graph_gives_a_link_each_way_devices_first() -> None:
    graph = nx.Graph()
    graph.add_node("leaf", kind="switch")
    graph.add_edge("a", "leaf", capacity="100Gbps", medium="optical")
    graph.add_edge("leaf", "b", latency=3e-6)
    topology = from_networkx(graph, bandwidth="400Gbps", latency="1us")
    assert topology.num_devices == 2
    assert topology.links.tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]
    assert topology.capacity.tolist() == [12.5e9, 50e9, 12.5e9, 50e9]
    assert topology.latency == pytest.approx([1e-6, 3e-6, 1e-6, 3e-6])
    assert topology.optical.tolist() == [True, False, True, False]


def test_a_directed_graph_keeps_its_directions() -> None:
    topology = from_networkx(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), bandwidth=1.0)
    assert topology.links.tolist() == [[0, 1], [1, 2], [2, 0]]


def test_parallel_edges_of_a_multigraph_add_up() -> None:
    graph = nx.MultiGraph([(0, 1), (0, 1)])
    assert from_networkx(graph, bandwidth=2.0).capacity.tolist() == [4.0, 4.0]


@pytest.mark.parametrize("name", ["torus", "leaf-spine", "fat-tree", "optical"])
def test_a_topology_survives_its_own_graph(name: str) -> None:
    wanted = make(name, grid=(4, 3), bandwidth=3.0, latency=2.0)
    given = from_networkx(wanted.graph, bandwidth=1.0)
    order = np.lexsort(wanted.links.T[::-1])
    assert given.num_devices == wanted.num_devices
    for array in ("links", "capacity", "latency", "optical"):
        assert np.array_equal(getattr(given, array), getattr(wanted, array)[order])


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.Graph([(0, 1), (2, 3)]), "disconnected, no path to device 2 from device 0"),
        (nx.DiGraph([(0, 1)]), "disconnected, no path from device 1 to device 0"),
        (nx.Graph([(0, 0), (0, 1)]), "a link must join two different nodes"),
        (nx.empty_graph(3), "must have at least one link"),
        (nx.Graph(), "must have at least one device"),
    ],
)
def test_bad_graphs_are_named(graph: nx.Graph, message: str) -> None:
    with pytest.raises(InputError, match=f"^custom: .*{message}"):
        from_networkx(graph, bandwidth=1.0)


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ({"capacity": -1.0}, "capacity of link a->b must be finite and > 0, got -1"),
        ({"capacity": "fast"}, "capacity of link a->b must be a number with a unit"),
        ({"latency": float("nan")}, "latency of link a->b must be finite and >= 0, got nan"),
    ],
)
def test_bad_edge_attributes_are_named(attribute: dict[str, Any], message: str) -> None:
    graph = nx.Graph()
    graph.add_edge("a", "b", **attribute)
    with pytest.raises(InputError, match=f"^custom: {message}"):
        from_networkx(graph, bandwidth=1.0)


def test_an_edge_list_file_names_devices_switches_and_links(tmp_path: Path) -> None:
    path = tmp_path / "lab.edges"
    path.write_text(
        "# two devices under a switch, and a one-way shortcut\n"
        "0 tor\n"
        "1, tor, 100Gbps, 2us\n"
        "\n"
        "1 > 0 10Gbps 5us optical  # a circuit\n"
    )
    topology = make(str(path), bandwidth="400Gbps", latency="1us")
    assert topology.name == "lab"
    assert (topology.num_devices, topology.num_nodes) == (2, 3)
    assert topology.links.tolist() == [[0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert topology.capacity.tolist() == [50e9, 1.25e9, 12.5e9, 50e9, 12.5e9]
    assert topology.latency == pytest.approx([1e-6, 5e-6, 2e-6, 1e-6, 2e-6])
    assert topology.optical.tolist() == [False, True, False, False, False]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the edge list holds no link"),
        ("# nothing\n", "the edge list holds no link"),
        ("0\n", "line 1 must be 'node node"),
        ("0 1\n1 2 1Gbps 1us optical more\n", "line 2 must be 'node node"),
        ("0 1 fast\n", "line 1: capacity must be a number with a unit"),
        ("0 1 0Gbps\n", "line 1: capacity must be finite and > 0"),
        ("0 1 -1Gbps\n", "line 1: capacity must be a number with a unit"),
        ("0 1 1Gbps 1\n", "line 1: latency must have a unit"),
        ("0 1 1Gbps 1us copper\n", "line 1: medium must be electrical or optical, got 'copper'"),
        ("0 0\n", "line 1: a link must join two different nodes, got 0 twice"),
        ("0 1\n1 0\n", "line 2: link 1->0 is already there"),
        ("0 2\n", "devices must be numbered 0..N-1 without a gap"),
        ("a b\n", "devices must be numbered 0..N-1 without a gap"),
    ],
)
def test_bad_edge_lists_name_the_file_and_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        from_edge_list(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_disconnected_edge_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "islands.txt"
    path.write_text("0 1\n2 3\n")
    with pytest.raises(InputError, match="islands: disconnected, no path to device 2"):
        from_edge_list(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_edge_list_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "gone.edges"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"gone\.edges: cannot read the edge list"):
        make(str(path))
