"""Three-dimensional torus: sizes, rings, distances and the load of uniform all-to-all."""

from __future__ import annotations

from math import prod
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.topologies import InputError, make, route
from topomoe.topologies.torus_3d import most_cubic

SIZES = [(4, 4, 4), (4, 3, 2), (8, 4, 4), (5, 1, 3), (2, 2, 2), (1, 1, 6)]


@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_the_product_of_three_rings(sizes: tuple[int, int, int]) -> None:
    torus = make("torus-3d", (prod(sizes), 1), dimensions=sizes)
    wanted = nx.grid_graph(tuple(reversed(sizes)), periodic=True)
    number = {place: i for i, place in enumerate(np.ndindex(*sizes))}
    edges = {frozenset((number[a], number[b])) for a, b in wanted.edges if a != b}
    assert {frozenset(link) for link in torus.links.tolist()} == edges
    assert torus.num_links == 2 * len(edges)
    assert torus.parameters["dimensions"] == sizes
    assert torus.parameters["wrap"] is True


@pytest.mark.parametrize("sizes", SIZES)
def test_the_diameter_is_the_sum_of_half_the_rings(sizes: tuple[int, int, int]) -> None:
    torus = make("torus-3d", (prod(sizes), 1), dimensions=sizes)
    assert torus.least_hops.max() == sum(size // 2 for size in sizes)
    np.testing.assert_array_equal(route(torus).hops, torus.least_hops)


@pytest.mark.parametrize("policy", [None, "ecmp"])
@pytest.mark.parametrize("sizes", [(4, 4, 4), (8, 4, 4), (4, 4, 1)])
def test_uniform_all_to_all_loads_a_ring_of_k_with_n_k_over_8_pairs(
    sizes: tuple[int, int, int], policy: str | None
) -> None:
    """Half of all pairs cross a ring's two cuts, k^2/8 a ring of k alone; even k above 2."""
    torus = make("torus-3d", (prod(sizes), 1), bandwidth=1.0, latency=0.0, dimensions=sizes)
    devices = torus.num_devices
    demand = np.where(np.eye(devices, dtype=bool), 0.0, 1.0)[None]
    load = route(torus, policy).link_load(demand)[0]
    place = np.stack(np.unravel_index(torus.links, sizes))  # [3, L, 2]
    axis = (place[:, :, 0] != place[:, :, 1]).argmax(axis=0)
    for number, size in enumerate(sizes):
        if size > 1:
            np.testing.assert_allclose(load[axis == number], devices * size / 8)


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 400))
def test_the_default_is_the_most_cubic_factorisation(devices: int) -> None:
    sizes = most_cubic(devices)
    assert prod(sizes) == devices
    assert sizes[0] >= sizes[1] >= sizes[2] >= 1
    triples = (
        (x, y, devices // (x * y))
        for x in range(1, devices + 1)
        if devices % x == 0
        for y in range(1, devices // x + 1)
        if (devices // x) % y == 0
    )
    assert sum(sizes) == min(sum(triple) for triple in triples)


def test_a_grid_of_128_is_8_by_4_by_4() -> None:
    torus = make("torus-3d", (16, 8))
    assert torus.parameters["dimensions"] == (8, 4, 4)
    assert set(torus.device_degree) == {6}
    assert torus.num_links == 768


def test_dimensions_are_text_or_three_numbers() -> None:
    wanted = make("torus-3d", (8, 3), dimensions=(4, 3, 2)).links
    for dimensions in ("4x3x2", "4X3X2", [4, 3, 2], np.array([4, 3, 2])):
        np.testing.assert_array_equal(make("torus-3d", (8, 3), dimensions=dimensions).links, wanted)


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ((4, 4, 4), "torus-3d: dimensions must hold 16 devices, 4x4x4 hold 64"),
        ((4, 4), "torus-3d: dimensions must be three such as 8x4x4, got"),
        ("4x4", "torus-3d: dimensions must be three such as 8x4x4, got '4x4'"),
        ("axbxc", "torus-3d: dimensions must be three such as 8x4x4, got 'axbxc'"),
        ((-4, -4, 1), "torus-3d: dimensions must be >= 1, got -4x-4x1"),
        ((4.5, 4, 1), "torus-3d: dimensions must be whole numbers"),
    ],
)
def test_bad_dimensions_are_named(dimensions: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        make("torus-3d", (4, 4), dimensions=dimensions)
