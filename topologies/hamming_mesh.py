"""HammingMesh: boards of devices in a mesh, joined by a switch along every row and column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.checked import whole_numbers
from topomoe.topologies.errors import InputError
from topomoe.topologies.mesh import mesh_edges
from topomoe.topologies.topology import IntArray, Topology, merge_links


def hamming_mesh(
    grid: tuple[int, int],
    bandwidth: float,
    latency: float,
    board: str | Sequence[int] | NDArray[np.int64] = (2, 2),
) -> Topology:
    """Return rows x columns devices on boards of ``board`` = (a, b) devices, 2 x 2 by default.

    Inside a board the devices form an a x b mesh. In each row of devices the outer two of every
    board, in each column the topmost and lowest, are linked to that row's or column's switch, so
    that a device has four ports of ``bandwidth`` bytes/s and ``latency`` seconds; on boards one
    device wide two of them lead to one switch: a link of twice the capacity. The switches stand for
    the rows' and columns' fat-trees and do not block. Row switch i is node N + i, column switch j
    is node N + rows + j. Source: Hoefler et al., "HammingMesh: a network topology for large-scale
    deep learning", SC 2022 (an Hx2Mesh, unless ``board`` says otherwise). Raises InputError unless
    the boards tile the grid.

    ``parameters["place"]`` [nodes] is the board of each device; switches have places of their own.
    """
    rows, columns = grid
    tall, wide = _board(board)
    if rows % tall or columns % wide:
        raise InputError(
            f"hamming-mesh: board must tile the grid, got board={tall}x{wide} and "
            f"grid={rows}x{columns}"
        )
    devices = rows * columns
    device = np.arange(devices, dtype=np.int64).reshape(rows, columns)
    row, column = np.divmod(device, columns)
    place = row // tall * (columns // wide) + column // wide
    inside = mesh_edges(rows, columns)
    inside = inside[place.reshape(-1)[inside[:, 0]] == place.reshape(-1)[inside[:, 1]]]
    across = _ports(device, column, wide, devices + row)
    down = _ports(device, row, tall, devices + rows + column)
    # A dimension of a single device has no switch: there is nobody to reach.
    edges = np.concatenate(
        [inside, *([across] if columns > 1 else []), *([down] if rows > 1 else [])]
    )
    directed = np.concatenate([edges, edges[:, ::-1]])
    links, capacity, link_latency, optical = merge_links(
        directed,
        np.full(len(directed), bandwidth),
        np.full(len(directed), latency),
        np.zeros(len(directed), dtype=np.bool_),
    )
    boards = devices // (tall * wide)
    return Topology(
        name="hamming-mesh",
        num_devices=devices,
        num_nodes=devices + rows + columns,
        links=links,
        capacity=capacity,
        latency=link_latency,
        optical=optical,
        grid=grid,
        default_routing="ecmp",
        parameters={
            "kind": "hamming-mesh",
            "board": (tall, wide),
            "place": np.concatenate([place.reshape(-1), boards + np.arange(rows + columns)]),
        },
    )


def _ports(device: IntArray, coordinate: IntArray, size: int, switch: IntArray) -> IntArray:
    """Return the edges [X, 2] from the first and the last device of every board to the switch."""
    ends = [coordinate % size == 0, coordinate % size == size - 1]
    return np.concatenate([np.stack([device[end], switch[end]], axis=-1) for end in ends])


def _board(board: str | Sequence[int] | NDArray[np.int64]) -> tuple[int, int]:
    wanted = f"hamming-mesh: board must be rows x columns such as 2x2, got {board!r}"
    if isinstance(board, str):
        parts = board.lower().split("x")
        if len(parts) != 2 or not all(part.isdecimal() for part in parts):
            raise InputError(wanted)
        sizes = [int(part) for part in parts]
    else:
        array = whole_numbers(board, "hamming-mesh: board")
        if array.shape != (2,):
            raise InputError(wanted)
        sizes = array.tolist()
    if min(sizes) < 1:
        raise InputError(f"hamming-mesh: board must be >= 1x1, got {sizes[0]}x{sizes[1]}")
    return sizes[0], sizes[1]
