"""Dimension-order routing: which links a pair takes, and how ties go."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from topomoe.topologies import InputError, Routing, make, route


def walk(source: int, destination: int, grid: tuple[int, int], wraps: bool, tie: str) -> list[int]:
    """The devices from source to destination: along the column first, then along the row."""
    at, goal = list(divmod(source, grid[1])), divmod(destination, grid[1])
    visited = [source]
    for axis, size in enumerate(grid):
        ahead = (goal[axis] - at[axis]) % size
        if not wraps:
            step = 1 if goal[axis] > at[axis] else -1
        elif 2 * ahead == size:
            step = 1 if tie == "plus" or at[axis] % 2 == 0 else -1
        else:
            step = 1 if 2 * ahead < size else -1
        while at[axis] != goal[axis]:
            at[axis] = (at[axis] + step) % size
            visited.append(at[0] * grid[1] + at[1])
    return visited


def links_of(routing: Routing, source: int, destination: int) -> set[tuple[int, int]]:
    column = routing.matrix[:, [source * routing.topology.num_devices + destination]]
    used = routing.topology.links[column.nonzero()[0]]
    return {(a, b) for a, b in used.tolist()}


@pytest.mark.parametrize("grid", [(1, 4), (4, 1), (2, 2), (2, 3), (3, 5), (5, 2), (4, 8), (6, 3)])
@pytest.mark.parametrize(
    ("name", "tie"), [("torus", "balanced"), ("torus", "plus"), ("mesh", "balanced")]
)
def test_every_pair_takes_rows_first_the_short_way(
    name: str, tie: str, grid: tuple[int, int]
) -> None:
    routing = route(make(name, grid=grid), "dimension-order", tie=tie)
    for source in range(grid[0] * grid[1]):
        for destination in range(grid[0] * grid[1]):
            path = walk(source, destination, grid, name == "torus", tie)
            wanted = set(pairwise(path))
            assert links_of(routing, source, destination) == wanted


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
