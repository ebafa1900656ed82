"""Tori: link counts, rings of two and one, the twist, symmetry."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topomoe.topologies import InputError, Topology, make

sizes = st.integers(1, 9)


def pairs(topology: Topology) -> set[tuple[int, int]]:
    return {(a, b) for a, b in topology.links.tolist()}


def ring_links(size: int) -> int:
    return {1: 0, 2: 2}.get(size, 2 * size)


def test_sixteen_by_eight_has_512_links_and_degree_four() -> None:
    torus = make("torus", grid=(16, 8))
    assert torus.num_links == 512
    assert set(torus.device_degree.tolist()) == {4}
    assert torus.num_devices == torus.num_nodes == 128


@given(rows=sizes, columns=sizes)
def test_links_are_those_of_the_rings(rows: int, columns: int) -> None:
    if rows * columns < 2:
        return
    torus = make("torus", grid=(rows, columns))
    assert torus.num_links == columns * ring_links(rows) + rows * ring_links(columns)
    wanted = {
        (i * columns + j, (i + a) % rows * columns + (j + b) % columns)
        for i in range(rows)
        for j in range(columns)
        for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))
    }
    assert pairs(torus) == {(a, b) for a, b in wanted if a != b}


def test_a_dimension_of_two_has_one_link_between_neighbours() -> None:
    torus = make("torus", grid=(2, 2))
    assert sorted(pairs(torus)) == [
        (0, 1), (0, 2), (1, 0), (1, 3), (2, 0), (2, 3), (3, 1), (3, 2),
    ]  # fmt: skip
    assert np.all(torus.capacity == 50e9)


def test_a_dimension_of_one_is_a_ring() -> None:
    for grid in ((1, 5), (5, 1)):
        assert nx.is_isomorphic(make("torus", grid=grid).graph.to_undirected(), nx.cycle_graph(5))


@given(rows=sizes, columns=sizes, twist=st.integers(-3, 20))
def test_a_twist_shifts_the_wrap_of_the_rows(rows: int, columns: int, twist: int) -> None:
    if rows * columns < 2:
        return
    torus = make("torus", grid=(rows, columns), twist=twist)
    links = pairs(torus)
    for i in range(rows):
        end, start = i * columns + columns - 1, (i + twist) % rows * columns
        assert end == start or {(end, start), (start, end)} <= links
    plain = pairs(make("mesh", grid=(rows, columns)))
    wraps = 2 * (rows + columns)
    assert plain <= links
    assert len(links) <= len(plain) + wraps


def test_half_the_rows_of_twist_make_a_two_to_one_torus_node_symmetric() -> None:
    """Every device sees the same distances, and fewer of them than untwisted."""
    plain, twisted = make("torus", grid=(8, 4)), make("twisted-torus", grid=(8, 4))
    assert twisted.parameters["twist"] == 4
    assert twisted.num_links == plain.num_links
    seen = [
        sorted(nx.single_source_shortest_path_length(twisted.graph, d).values()) for d in range(32)
    ]
    assert all(distances == seen[0] for distances in seen)
    assert max(seen[0]) < nx.diameter(plain.graph)


def test_a_full_turn_of_twist_is_none() -> None:
    assert pairs(make("torus", grid=(4, 4), twist=4)) == pairs(make("torus", grid=(4, 4)))
    assert make("torus", grid=(4, 4), twist=4).default_routing == "dimension-order"


@pytest.mark.parametrize("twist", ["2", 1.5, None])
def test_twist_must_be_a_whole_number(twist: object) -> None:
    with pytest.raises(InputError, match="twist must be a whole number"):
        make("torus", grid=(4, 4), twist=twist)
