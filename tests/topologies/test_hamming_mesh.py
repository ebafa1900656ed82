"""HammingMesh: boards in a mesh, rows and columns of boards over switches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topomoe.topologies import InputError, make, route


@pytest.mark.parametrize(
    ("grid", "board"),
    [((4, 4), (2, 2)), ((16, 8), (2, 2)), ((8, 8), (4, 4)), ((6, 6), (2, 3)), ((4, 4), (1, 1))],
)
def test_boards_are_meshes_and_their_edges_meet_the_switches(
    grid: tuple[int, int], board: tuple[int, int]
) -> None:
    topology = make("hamming-mesh", grid, bandwidth=1.0, latency=0.0, board=board)
    (rows, columns), (a, b) = grid, board
    wanted = np.zeros((topology.num_nodes,) * 2)
    for i in range(rows):
        for j in range(columns):
            here = i * columns + j
            if (j + 1) % b:
                wanted[here, here + 1] += 1
            if (i + 1) % a:
                wanted[here, here + columns] += 1
            wanted[here, rows * columns + i] += (j % b == 0) + (j % b == b - 1)
            wanted[here, rows * columns + rows + j] += (i % a == 0) + (i % a == a - 1)
    found = np.zeros_like(wanted)
    found[topology.links[:, 0], topology.links[:, 1]] = topology.capacity
    np.testing.assert_array_equal(found, wanted + wanted.T)
    assert topology.num_links == (found > 0).sum()


@pytest.mark.parametrize("board", [(2, 2), (1, 1), (2, 4), (4, 4)])
def test_a_device_at_a_corner_of_its_board_has_four_ports(board: tuple[int, int]) -> None:
    topology = make("hamming-mesh", (8, 8), bandwidth=1.0, latency=0.0, board=board)
    injection = topology.injection.reshape(8, 8)
    assert injection[0, 0] == 4
    assert injection.max() == 4


def test_a_two_by_two_board_is_two_switches_across() -> None:
    """Hx2Mesh: one hop on a board, two over a row's switch, four over a row's and a column's."""
    hops = make("hamming-mesh", (8, 8)).least_hops.reshape(8, 8, 8, 8)
    assert hops[0, 0, 0, 1] == 1
    assert hops[0, 0, 0, 2] == 2
    assert hops[0, 0, 1, 2] == 3
    assert hops[0, 0, 2, 2] == 4
    assert hops.max() == 4


@pytest.mark.parametrize("grid", [(4, 8), (8, 8), (16, 8)])
def test_uniform_all_to_all_on_an_hx2mesh_in_closed_form(grid: tuple[int, int]) -> None:
    """Every device is alike and has one port a row: N - 2R of its pairs are in other board columns.

    A board's mesh link carries the pairs of one board column that differ in their place across.
    """
    rows, columns = grid
    topology = make("hamming-mesh", grid, bandwidth=1.0, latency=0.0)
    devices = rows * columns
    load = route(topology).link_load(np.where(np.eye(devices, dtype=bool), 0.0, 1.0)[None])[0]
    tail, head = topology.links.T
    up_row = (tail < devices) & (head >= devices) & (head < devices + rows)
    up_column = (tail < devices) & (head >= devices + rows)
    across = (tail < devices) & (head < devices) & (np.abs(tail - head) == 1)
    np.testing.assert_allclose(load[up_row], devices - 2 * rows)
    np.testing.assert_allclose(load[up_column], devices - 2 * columns)
    np.testing.assert_allclose(load[across], rows)


def test_a_single_row_has_no_column_switches() -> None:
    topology = make("hamming-mesh", (1, 8), board=(1, 2))
    assert topology.links.max() == 8  # the row's switch


def test_boards_are_text_or_pairs() -> None:
    wanted = make("hamming-mesh", (4, 8), board=(2, 4)).links
    for board in ("2x4", "2X4", [2, 4], np.array([2, 4])):
        np.testing.assert_array_equal(make("hamming-mesh", (4, 8), board=board).links, wanted)


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ((5, 4), {}, "hamming-mesh: board must tile the grid, got board=2x2 and grid=5x4"),
        ((4, 4), {"board": "4"}, "hamming-mesh: board must be rows x columns such as 2x2, got '4'"),
        ((4, 4), {"board": (2,)}, "hamming-mesh: board must be rows x columns such as 2x2, got"),
        ((4, 4), {"board": (0, 2)}, "hamming-mesh: board must be >= 1x1, got 0x2"),
        ((4, 4), {"board": (1.5, 2)}, "hamming-mesh: board must be whole numbers"),
    ],
)
def test_bad_boards_are_named(grid: tuple[int, int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        make("hamming-mesh", grid, **options)
