"""What holds for every topology: the graph, the arrays, and how bad input is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import networkx as nx
import numpy as np
import pytest

from topomoe.topologies import InputError, Topology, make, names
from topomoe.topologies.topology import merge_links

EVERY = [
    *((name, (4, 4), {}) for name in names()),
    ("leaf-spine", (4, 3), {"spines": 2, "oversubscription": 3.0}),
    ("fat-tree", (3, 5), {}),
    ("torus", (5, 2), {"twist": 1}),
    ("optical", (4, 4), {"base": "mesh", "circuits": "torus"}),
]


def build(case: tuple[str, tuple[int, int], dict[str, Any]]) -> Topology:
    name, grid, options = case
    return make(name, grid=grid, bandwidth="100Gbps", latency="2us", **options)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_graph_and_arrays_say_the_same(case: tuple[str, tuple[int, int], dict[str, Any]]) -> None:
    topology = build(case)
    graph = topology.graph
    assert list(graph) == list(range(topology.num_nodes))
    kinds = [graph.nodes[node]["kind"] for node in graph]
    switches = topology.num_nodes - topology.num_devices
    assert kinds == ["device"] * topology.num_devices + ["switch"] * switches
    assert graph.number_of_edges() == topology.num_links
    for at, (tail, head) in enumerate(topology.links.tolist()):
        assert graph.edges[tail, head] == {
            "capacity": topology.capacity[at],
            "latency": topology.latency[at],
            "medium": "optical" if topology.optical[at] else "electrical",
        }
    degree = [graph.out_degree(device) for device in range(topology.num_devices)]
    assert topology.device_degree.tolist() == degree
    out = [graph.out_degree(device, weight="capacity") for device in range(topology.num_devices)]
    assert topology.injection == pytest.approx(out)
    assert nx.is_strongly_connected(graph)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_a_topology_cannot_be_changed(case: tuple[str, tuple[int, int], dict[str, Any]]) -> None:
    topology = build(case)
    for array in (topology.links, topology.capacity, topology.latency, topology.optical):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        topology.num_devices = 3  # type: ignore[misc]
    with pytest.raises(nx.NetworkXError):
        topology.graph.remove_edge(*topology.links[0].tolist())


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_link_ids_find_every_link_and_no_other(
    case: tuple[str, tuple[int, int], dict[str, Any]],
) -> None:
    topology = build(case)
    node = np.arange(topology.num_nodes)
    tail, head = (x.reshape(-1) for x in np.meshgrid(node, node, indexing="ij"))
    found = topology.link_ids(tail, head)
    there = found >= 0
    assert sorted(found[there].tolist()) == list(range(topology.num_links))
    pairs = np.stack([tail, head], axis=-1)
    assert np.array_equal(topology.links[found[there]], pairs[there])


def test_bandwidth_and_latency_are_those_of_each_link_and_direction() -> None:
    topology = make("torus", grid="4x4", bandwidth="400Gbps", latency="1us")
    assert np.all(topology.capacity == 50e9)
    assert np.all(topology.latency == 1e-6)
    assert not topology.optical.any()


def test_grids_are_text_or_pairs() -> None:
    wanted = make("mesh", grid=(3, 5)).links
    for grid in ("3x5", "3X5", [3, 5], np.array([3, 5])):
        assert np.array_equal(make("mesh", grid=grid).links, wanted)


def test_parallel_links_become_one_of_their_summed_capacity_and_longest_latency() -> None:
    links, capacity, latency, optical = merge_links(
        np.array([[1, 0], [0, 1], [1, 0]]),
        np.array([1.0, 2.0, 4.0]),
        np.array([3e-6, 1e-6, 2e-6]),
        np.array([False, False, True]),
    )
    assert links.tolist() == [[0, 1], [1, 0]]
    assert capacity.tolist() == [2.0, 5.0]
    assert latency.tolist() == [1e-6, 3e-6]
    assert optical.tolist() == [False, True]


@pytest.mark.parametrize(
    "grid",
    ["4", "4x", "x4", "4x4x4", "fourxfour", "4.0x4", "", 4, None, (4,), (4, 4, 4), (4.5, 4)],
)
def test_a_grid_that_is_none_is_refused(grid: Any) -> None:
    with pytest.raises(InputError, match=r"^grid must be rows x columns such as 16x8, got"):
        make("torus", grid=grid)


@pytest.mark.parametrize("grid", ["0x4", "4x0", "-4x4", (-1, -1)])
def test_a_grid_without_rows_or_columns_is_refused(grid: Any) -> None:
    with pytest.raises(InputError, match=r"^grid must have rows >= 1 and columns >= 1"):
        make("torus", grid=grid)


@pytest.mark.parametrize("name", names())
def test_one_device_is_no_network(name: str) -> None:
    with pytest.raises(InputError, match=r"^grid must hold at least 2 devices, got 1x1"):
        make(name, grid="1x1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "tourus"}, "unknown topology 'tourus'; did you mean 'torus'"),
        ({"name": "slimfly"}, "unknown topology 'slimfly'.*one of: fat-tree, leaf-spine"),
        ({"name": "torus", "twst": 1}, "unknown option of torus 'twst'; did you mean 'twist'"),
        ({"name": "mesh", "twist": 1}, "unknown option of mesh 'twist'"),
        ({"name": "torus", "bandwidth": 0}, "bandwidth must be finite and > 0, got 0"),
        ({"name": "torus", "bandwidth": -1.0}, "bandwidth must be finite and > 0, got -1"),
        ({"name": "torus", "bandwidth": float("nan")}, "bandwidth must be finite and > 0, got nan"),
        ({"name": "torus", "bandwidth": "400"}, "bandwidth must have a unit such as Gbps"),
        ({"name": "torus", "latency": -1e-6}, "latency must be finite and >= 0, got -1e-06"),
        ({"name": "torus", "latency": float("inf")}, "latency must be finite and >= 0, got inf"),
        ({"name": "torus", "latency": "1"}, "latency must have a unit such as us"),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"capacity": np.array([1.0, -1.0])}, "capacity must be finite and > 0, link 1->0 has -1"),
        ({"capacity": np.array([0.0, 1.0])}, "capacity must be finite and > 0, link 0->1 has 0"),
        ({"capacity": np.array([1.0, np.nan])}, "capacity .* link 1->0 has nan"),
        ({"capacity": np.array([1.0, np.inf])}, "capacity .* link 1->0 has inf"),
        ({"latency": np.array([0.0, -1.0])}, "latency must be finite and >= 0, link 1->0 has -1"),
        ({"latency": np.array([np.nan, 0.0])}, "latency .* link 0->1 has nan"),
        ({"latency": np.zeros(3)}, r"latency must have one entry a link \(2\)"),
        ({"capacity": np.ones(1)}, r"capacity must have one entry a link \(2\)"),
        ({"links": np.array([[0, 2], [1, 0]])}, r"links must join nodes 0\.\.1"),
        ({"links": np.array([[0, 1], [-1, 0]])}, r"links must join nodes 0\.\.1"),
        ({"links": np.array([[0, 1], [1, 1]])}, "a link must join two different nodes"),
        ({"links": np.empty((0, 2), dtype=np.int64)}, r"links must have shape \[L, 2\]"),
        ({"num_devices": 3}, r"devices must be in 1\.\.2, got 3"),
        ({"num_devices": 0}, r"devices must be in 1\.\.2, got 0"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(
    change: dict[str, Any], message: str
) -> None:
    good = make("mesh", grid=(1, 2))
    with pytest.raises(InputError, match=f"^mesh: {message}"):
        dataclasses.replace(good, **change)
