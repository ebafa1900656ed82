"""Meshes: neighbours are linked, edge ports stay dark."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from topomoe.topologies import make


def test_sixteen_by_eight_has_464_links_and_at_most_degree_four() -> None:
    mesh = make("mesh", grid=(16, 8))
    assert mesh.num_links == 464
    assert mesh.device_degree.max() == 4


@pytest.mark.parametrize("grid", [(1, 2), (2, 1), (1, 7), (2, 2), (3, 5), (8, 4)])
def test_graph_is_the_grid_graph(grid: tuple[int, int]) -> None:
    mesh = make("mesh", grid=grid)
    wanted = nx.grid_2d_graph(*grid)
    number = {(i, j): i * grid[1] + j for i, j in wanted}
    edges = {(number[a], number[b]) for a, b in wanted.edges}
    assert {tuple(sorted(link)) for link in mesh.links.tolist()} == edges
    assert mesh.num_links == 2 * len(edges)


def test_edges_and_corners_have_dark_ports() -> None:
    degree = make("mesh", grid=(4, 5)).device_degree.reshape(4, 5)
    assert degree[0, 0] == degree[-1, -1] == 2
    assert np.all(degree[0, 1:-1] == 3)
    assert np.all(degree[1:-1, 1:-1] == 4)


def test_links_are_those_of_the_torus_without_its_wraps() -> None:
    mesh, torus = make("mesh", grid=(5, 6)), make("torus", grid=(5, 6))
    inside = {tuple(link) for link in mesh.links.tolist()}
    wraps = {tuple(link) for link in torus.links.tolist()} - inside
    assert len(wraps) == 2 * (5 + 6)
    assert all(abs(a // 6 - b // 6) == 4 or abs(a % 6 - b % 6) == 5 for a, b in wraps)
