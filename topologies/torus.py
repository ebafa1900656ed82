"""Torus: a mesh whose rows and columns close into rings, with an optional twist."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.checked import whole
from topomoe.topologies.mesh import mesh_edges
from topomoe.topologies.topology import IntArray, Topology, both_ways, uniform_topology


def torus_edges(rows: int, columns: int, twist: int = 0) -> IntArray:
    """Return the undirected edges of a torus; the wrap of a row is shifted by ``twist`` rows.

    Column C-1 of row i wraps to column 0 of row (i + twist) mod R. A dimension of 2 has one edge
    between neighbours (the wrap falls on the edge that is there), a dimension of 1 none.
    """
    device = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    vertical = np.stack([device[-1], device[0]], axis=-1)
    horizontal = np.stack([device[:, -1], np.roll(device[:, 0], -twist)], axis=-1)
    edges = np.concatenate([mesh_edges(rows, columns), vertical, horizontal])
    different: IntArray = edges[edges[:, 0] != edges[:, 1]]
    return different


def torus(grid: tuple[int, int], bandwidth: float, latency: float, twist: int = 0) -> Topology:
    """Return a rows x columns torus with links of ``bandwidth`` bytes/s and ``latency`` seconds.

    ``twist`` shifts the wrap of the rows (Camara et al., 2010, "Twisted torus topologies for
    enhanced interconnection networks"): half the rows makes a 2:1 torus symmetric.
    """
    rows, columns = grid
    twist = whole(twist, "torus: twist") % rows
    return uniform_topology(
        f"torus-twist-{twist}" if twist else "torus",
        rows * columns,
        both_ways(torus_edges(rows, columns, twist)),
        bandwidth,
        latency,
        grid=grid,
        default_routing="ecmp" if twist else "dimension-order",
        parameters={"kind": "torus", "twist": twist},
    )
