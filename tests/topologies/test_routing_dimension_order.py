"""Dimension-order routing: which links a pair takes, and how ties go."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from topomoe.topologies import InputError, Routing, Topology, make, route
from topomoe.topologies.routing.dimension_order import DimensionOrderRouting
from topomoe.topologies.topology import both_ways, uniform_topology


def walk(
    source: int,
    destination: int,
    grid: tuple[int, ...],
    wraps: bool,
    tie: str,
    last_first: bool = False,
) -> list[int]:
    """The devices from source to destination, one dimension after the other."""
    at, goal = (list(np.unravel_index(device, grid)) for device in (source, destination))
    visited = [source]
    for axis in sorted(range(len(grid)), reverse=last_first):
        size = grid[axis]
        ahead = (goal[axis] - at[axis]) % size
        if not wraps:
            step = 1 if goal[axis] > at[axis] else -1
        elif 2 * ahead == size:
            step = 1 if tie == "plus" or at[axis] % 2 == 0 else -1
        else:
            step = 1 if 2 * ahead < size else -1
        while at[axis] != goal[axis]:
            at[axis] = (at[axis] + step) % size
            visited.append(int(np.ravel_multi_index(at, grid)))
    return visited


def links_of(routing: Routing, source: int, destination: int) -> set[tuple[int, int]]:
    column = routing.matrix[:, [source * routing.topology.num_devices + destination]]
    used = routing.topology.links[column.nonzero()[0]]
    return {(a, b) for a, b in used.tolist()}


def hypergrid(shape: tuple[int, ...], wraps: bool) -> Topology:
    """A mesh or torus of any number of dimensions, every link of another capacity."""
    device = np.arange(np.prod(shape)).reshape(shape)
    edges = []
    for axis, size in enumerate(shape):
        ahead = np.roll(device, -1, axis=axis)
        kept = np.arange(size if wraps else size - 1)
        pair = np.stack([device.take(kept, axis), ahead.take(kept, axis)], axis=-1).reshape(-1, 2)
        edges.append(pair[pair[:, 0] != pair[:, 1]])
    links = both_ways(np.concatenate(edges))
    topology = uniform_topology(
        "hypergrid", device.size, links, 1.0, 1.0, parameters={"dimensions": shape, "wrap": wraps}
    )
    capacity = np.random.default_rng(2).uniform(1, 2, len(links))
    return replace(topology, capacity=capacity)


@pytest.mark.parametrize("first", ["rows", "columns"])
@pytest.mark.parametrize("grid", [(1, 4), (4, 1), (2, 2), (2, 3), (3, 5), (5, 2), (4, 8), (6, 3)])
@pytest.mark.parametrize(
    ("name", "tie"), [("torus", "balanced"), ("torus", "plus"), ("mesh", "balanced")]
)
def test_every_pair_takes_one_dimension_after_the_other_the_short_way(
    name: str, tie: str, grid: tuple[int, int], first: str
) -> None:
    routing = route(make(name, grid=grid), "dimension-order", tie=tie, first=first)
    for source in range(grid[0] * grid[1]):
        for destination in range(grid[0] * grid[1]):
            path = walk(source, destination, grid, name == "torus", tie, first == "columns")
            wanted = set(pairwise(path))
            assert links_of(routing, source, destination) == wanted


@pytest.mark.parametrize("first", ["rows", "columns"])
@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("shape", [(4, 2, 3), (2, 2, 2, 2), (4, 4, 4), (5,)])
def test_more_dimensions_than_two_are_taken_in_order_too(
    shape: tuple[int, ...], wraps: bool, first: str
) -> None:
    routing = route(hypergrid(shape, wraps), "dimension-order", first=first)
    for source in range(int(np.prod(shape))):
        for destination in range(int(np.prod(shape))):
            path = walk(source, destination, shape, wraps, "balanced", first == "columns")
            assert links_of(routing, source, destination) == set(pairwise(path))


@pytest.mark.parametrize("wraps", [True, False])
@pytest.mark.parametrize("tie", ["balanced", "plus"])
@pytest.mark.parametrize("first", ["rows", "columns"])
def test_ring_sums_and_tables_are_one_routing(first: str, tie: str, wraps: bool) -> None:
    topology = hypergrid((4, 6), wraps)
    by_rings = route(topology, "dimension-order", tie=tie, first=first)
    assert isinstance(by_rings, DimensionOrderRouting)
    by_table = by_rings.tables
    assert (by_rings.matrix != by_table.matrix).nnz == 0
    rng = np.random.default_rng(0)
    demand = rng.exponential(1.0, (3, 24, 24)) * (rng.random((3, 24, 24)) < 0.5)
    assert by_rings.link_load(demand) == pytest.approx(by_table.link_load(demand), rel=1e-12)
    offset = rng.random((24, 24)) * (1 - np.eye(24))
    assert by_rings.transfer_time(demand, offset) == pytest.approx(
        by_table.transfer_time(demand, offset), rel=1e-12
    )


def test_columns_first_carries_a_demand_as_rows_first_carries_it_turned_over() -> None:
    wide, high = make("torus", grid=(4, 6)), make("torus", grid=(6, 4))
    turned = np.arange(24).reshape(4, 6).T.reshape(-1)  # device of `wide` at each place of `high`
    demand = np.random.default_rng(1).exponential(1.0, (1, 24, 24))
    by_columns = route(wide, "dimension-order", first="columns").transfer_time(demand)
    by_rows = route(high, "dimension-order").transfer_time(demand[:, turned][:, :, turned])
    assert by_columns == pytest.approx(by_rows, rel=1e-12)


def test_rows_come_first_whatever_the_sizes() -> None:
    for grid in ((4, 8), (8, 4)):
        routing = route(make("mesh", grid=grid))
        corner = grid[1] + 1  # row 1, column 1
        assert links_of(routing, 0, corner) == {(0, grid[1]), (grid[1], corner)}


def test_half_way_round_even_goes_up_and_odd_down_unless_plus() -> None:
    ring = make("torus", grid=(4, 1))
    balanced, plus = (route(ring, tie=tie) for tie in ("balanced", "plus"))
    assert links_of(balanced, 0, 2) == links_of(plus, 0, 2) == {(0, 1), (1, 2)}
    assert links_of(balanced, 1, 3) == {(1, 0), (0, 3)}
    assert links_of(plus, 1, 3) == {(1, 2), (2, 3)}


def test_in_a_ring_of_two_both_ways_are_the_same_link() -> None:
    ring = make("torus", grid=(2, 1), bandwidth=1.0, latency=0.0)
    demand = np.array([[[0.0, 3.0], [5.0, 0.0]]])
    for tie in ("balanced", "plus"):
        routing = route(ring, tie=tie)
        assert routing.link_load(demand).tolist() == [[3.0, 5.0]]
        assert routing.transfer_time(demand).tolist() == [5.0]


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        (make("leaf-spine", grid=(2, 2)), "dimension-order needs a mesh or torus topology"),
        (make("torus", grid=(4, 4), twist=2), "dimension-order has no path over the twist"),
    ],
)
def test_topologies_without_dimensions_are_refused(topology: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        route(topology, "dimension-order")


def test_an_unknown_tie_rule_is_refused() -> None:
    with pytest.raises(InputError, match="unknown tie rule 'balance'; did you mean 'balanced'"):
        route(make("torus", grid=(4, 4)), "dimension-order", tie="balance")


def test_an_unknown_first_dimension_is_refused() -> None:
    with pytest.raises(InputError, match="unknown first dimension 'row'; did you mean 'rows'"):
        route(make("torus", grid=(4, 4)), "dimension-order", first="row")


@pytest.mark.parametrize("shape", [(4, 4), (3, 3, 3)])
def test_a_grid_that_lacks_a_link_is_refused(shape: tuple[int, ...]) -> None:
    whole = hypergrid(shape, wraps=True)
    kept = np.arange(whole.num_links) != 5
    links, capacity, latency = whole.links[kept], whole.capacity[kept], whole.latency[kept]
    broken = replace(
        whole, links=links, capacity=capacity, latency=latency, optical=whole.optical[kept]
    )
    with pytest.raises(InputError, match="hypergrid lacks a link between neighbours: use ecmp"):
        route(broken, "dimension-order")
