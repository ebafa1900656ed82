"""Virtual channels: what is claimed is acyclic when every pair's path is walked hop by hop."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest

from topomoe.topologies import Routing, Topology, from_links, make, route
from topomoe.topologies.routing.deadlock import VirtualChannels, virtual_channels
from topomoe.topologies.routing.dependencies import (
    layers,
    on_cycles,
    path_dependencies,
    table_dependencies,
)
from topomoe.topologies.routing.dimension_order import DimensionOrderRouting
from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.paths import PathRouting


def all_paths(routing: Routing, source: int, destination: int) -> list[list[int]]:
    """Every path of a pair as nodes, from its column of the matrix."""
    topology = routing.topology
    column = routing.matrix[:, [source * topology.num_devices + destination]]
    graph = nx.DiGraph(topology.links[column.nonzero()[0]].tolist())
    return list(nx.all_simple_paths(graph, source, destination)) if graph else []


def pairs(topology: Topology) -> Iterator[tuple[int, int]]:
    for source in range(topology.num_devices):
        for destination in range(topology.num_devices):
            if source != destination:
                yield source, destination


def link_graph(routing: Routing) -> nx.DiGraph[Any]:
    """Which link follows which on some pair's path."""
    graph: nx.DiGraph[Any] = nx.DiGraph()
    for pair in pairs(routing.topology):
        for path in all_paths(routing, *pair):
            graph.add_edges_from(pairwise(pairwise(path)))
    return graph


@pytest.mark.parametrize(
    ("topology", "grid", "policy"),
    [
        *(("mesh", (3, 4), p) for p in ("dimension-order", "ecmp", "ecmp-hash", "shortest")),
        *(("torus", g, "dimension-order") for g in [(3, 3), (4, 4), (5, 1), (2, 5), (6, 1)]),
        *(("torus", (3, 4), p) for p in ("ecmp", "ecmp-hash", "shortest")),
        ("twisted-torus", (4, 3), "ecmp"),
        *(("leaf-spine", (3, 2), p) for p in ("ecmp", "d-mod-k", "ecmp-hash")),
        *(("fat-tree", (3, 3), p) for p in ("ecmp", "d-mod-k", "shortest")),
    ],
)
def test_one_channel_is_claimed_exactly_where_no_dependencies_run_in_a_circle(
    topology: str, grid: tuple[int, int], policy: str
) -> None:
    routing = route(make(topology, grid=grid), policy)
    found = virtual_channels(routing)
    assert found.verified
    assert (found.count == 1) == nx.is_directed_acyclic_graph(link_graph(routing))


@pytest.mark.parametrize(
    ("topology", "grid", "policy", "count"),
    [
        ("mesh", (4, 4), "dimension-order", 1),
        ("mesh", (4, 4), "o1turn", 2),
        ("mesh", (4, 4), "valiant", 2),
        ("torus", (8, 4), "dimension-order", 2),
        ("torus", (8, 4), "o1turn", 4),
        ("torus", (8, 4), "valiant", 4),
        ("torus", (5, 5), "dimension-order", 2),
        ("torus", (8, 4), "ecmp", 6),  # a channel a hop: 4 + 2
        ("leaf-spine", (4, 4), "ecmp", 1),
        ("leaf-spine", (4, 4), "d-mod-k", 1),
        ("fat-tree", (4, 4), "ecmp", 1),
        ("fat-tree", (4, 4), "d-mod-k", 1),
    ],
)
def test_the_fields_counts_are_met(
    topology: str, grid: tuple[int, int], policy: str, count: int
) -> None:
    found = virtual_channels(route(make(topology, grid=grid), policy))
    assert (found.count, found.verified) == (count, True)


def test_a_ring_of_four_needs_no_second_channel_when_ties_are_balanced() -> None:
    # Even devices reach across upwards, odd ones downwards: no chain goes all the way round.
    ring = make("torus", grid=(4, 1))
    assert virtual_channels(route(ring, tie="balanced")).count == 1
    assert virtual_channels(route(ring, tie="plus")).count == 2


@pytest.mark.parametrize("tie", ["balanced", "plus"])
@pytest.mark.parametrize("first", ["rows", "columns"])
@pytest.mark.parametrize("grid", [(5, 5), (8, 3), (6, 6)])
def test_the_dateline_breaks_every_ring_when_paths_are_walked(
    grid: tuple[int, int], first: str, tie: str
) -> None:
    routing = route(make("torus", grid=grid), tie=tie, first=first)
    assert virtual_channels(routing) == VirtualChannels(2, "dateline on each ring", True)
    graph: nx.DiGraph[Any] = nx.DiGraph()
    for pair in pairs(routing.topology):
        (path,) = all_paths(routing, *pair)
        places = [divmod(node, grid[1]) for node in path]
        steps = list(pairwise(places))
        channels = []
        for at, step in enumerate(steps):
            # Low until the wrap is behind: as long as one lies ahead in this dimension.
            axis = 0 if step[0][0] != step[1][0] else 1
            rest = [s for s in steps[at:] if s[0][axis] != s[1][axis]]
            channels.append(0 if any(abs(a[axis] - b[axis]) > 1 for a, b in rest) else 1)
        graph.add_edges_from(pairwise(zip(steps, channels, strict=True)))
    assert nx.is_directed_acyclic_graph(graph)


@pytest.mark.parametrize(("name", "sets"), [("mesh", 1), ("torus", 2)])
def test_valiant_and_ugal_are_acyclic_over_every_intermediate(name: str, sets: int) -> None:
    topology = make(name, grid=(5, 3))
    base = route(topology)
    assert isinstance(base, DimensionOrderRouting)
    assert virtual_channels(route(topology, "valiant")).count == 2 * sets
    adaptive = route(topology, "ugal", demand=np.random.default_rng(0).random((15, 15)))
    assert virtual_channels(adaptive).count == 2 * sets
    path = {pair: all_paths(base, *pair)[0] for pair in pairs(topology)}
    grid = topology.grid
    assert grid is not None

    def channels(nodes: list[int], phase: int) -> list[Any]:
        """(link, phase, dateline) of each hop."""
        places = [np.array(divmod(node, grid[1])) for node in nodes]
        out = []
        for at in range(len(nodes) - 1):
            axis = int(places[at][0] == places[at + 1][0])
            wraps = any(abs(a[axis] - b[axis]) > 1 for a, b in pairwise(places[at:]))
            out.append(((nodes[at], nodes[at + 1]), phase, 0 if sets == 2 and wraps else 1))
        return out

    graph: nx.DiGraph[Any] = nx.DiGraph()
    for s, d in pairs(topology):
        graph.add_edges_from(pairwise(channels(path[s, d], 1)))  # UGAL's minimal route
        for u in range(topology.num_devices):
            first = channels(path[s, u], 0) if u != s else []
            second = channels(path[u, d], 1) if u != d else []
            graph.add_edges_from(pairwise(first + second))
    assert nx.is_directed_acyclic_graph(graph)
    # With one set for both phases there is a circle: the second is needed.
    folded = nx.DiGraph([((a[0], a[2]), (b[0], b[2])) for a, b in graph.edges])
    assert not nx.is_directed_acyclic_graph(folded)


def test_both_orders_of_o1turn_need_sets_of_their_own() -> None:
    routing = route(make("mesh", grid=(3, 3)), "o1turn")
    together: nx.DiGraph[Any] = nx.DiGraph()
    for part, _ in routing.parts:  # type: ignore[attr-defined]
        graph = link_graph(part)
        assert nx.is_directed_acyclic_graph(graph)
        together.update(graph)
    assert not nx.is_directed_acyclic_graph(together)


@pytest.mark.parametrize("policy", ["shortest", "ecmp", "ecmp-hash"])
def test_layers_hold_every_unit_once_and_no_circle(policy: str) -> None:
    routing = route(make("torus", grid=(6, 6)), policy)
    links = routing.topology.num_links
    if isinstance(routing, PathRouting):
        found = path_dependencies(routing)
    else:
        assert isinstance(routing, NextHopRouting)
        found = table_dependencies(routing)
    count = layers(found, links, links)
    assert 1 < count < links
    # First fit again, plainly.
    key = found.link[found.held].astype(np.int64) * links + found.link[found.wanted]
    filled: list[set[int]] = []
    for unit in np.unique(found.unit):
        mine = set(key[found.unit == unit].tolist())
        for layer in filled:
            both = np.array(sorted(layer | mine))
            if not len(on_cycles(*np.divmod(both, links))):
                layer |= mine
                break
        else:
            filled.append(mine)
    assert count == len(filled)


def test_circuits_and_base_share_no_links_and_so_no_channels() -> None:
    fabric = make("optical", grid=(4, 4), circuits="torus", base="leaf-spine")
    routing = route(fabric, "hybrid")
    parts = [virtual_channels(part).count for part, _ in routing.parts]  # type: ignore[attr-defined]
    assert virtual_channels(routing).count == max(parts)


def test_a_channel_a_hop_counts_the_links_between_switches_alone() -> None:
    # Five switches joined in a ring, two hops between the farthest; hosts hang on them.
    at = 10 + np.arange(5)
    host = np.stack([np.arange(10), np.repeat(at, 2)], axis=-1)
    edges = np.concatenate([host, np.stack([at, np.roll(at, -1)], axis=-1)])
    topology = from_links(np.concatenate([edges, edges[:, ::-1]]), 1.0, devices=10)
    assert virtual_channels(route(topology, "ecmp")).count == 2


def test_on_a_one_way_ring_a_layer_holds_two_neighbouring_destinations() -> None:
    ring = from_links([(i, (i + 1) % 7) for i in range(7)], 1.0, devices=7)
    found = virtual_channels(route(ring, "shortest"))
    # Two destinations leave a dependency free only where they are neighbours: ceil(7 / 2) layers.
    assert found == VirtualChannels(4, "layers by destination", True)


def test_circuits_that_carry_only_their_own_pairs_need_one_channel() -> None:
    fabric = make("optical", grid=(4, 4), circuits="expander", base="leaf-spine")
    assert virtual_channels(route(fabric, "circuit-direct")).count == 1
    assert virtual_channels(route(fabric, "circuit-relay")).count > 1
