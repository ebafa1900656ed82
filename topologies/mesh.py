"""Mesh: each device of a grid is linked to its neighbours; edge ports stay dark."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.topology import IntArray, Topology, both_ways, uniform_topology


def mesh_edges(rows: int, columns: int) -> IntArray:
    """Return the undirected edges [X, 2] of a rows x columns mesh."""
    device = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    down = np.stack([device[:-1], device[1:]], axis=-1).reshape(-1, 2)
    right = np.stack([device[:, :-1], device[:, 1:]], axis=-1).reshape(-1, 2)
    return np.concatenate([down, right])


def mesh(grid: tuple[int, int], bandwidth: float, latency: float) -> Topology:
    """Return a rows x columns mesh with links of ``bandwidth`` bytes/s and ``latency`` seconds."""
    rows, columns = grid
    return uniform_topology(
        "mesh",
        rows * columns,
        both_ways(mesh_edges(rows, columns)),
        bandwidth,
        latency,
        grid=grid,
        default_routing="dimension-order",
        parameters={"kind": "mesh", "twist": 0},
    )
