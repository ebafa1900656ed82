"""Topologies by name."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from topomoe.topologies import units
from topomoe.topologies.custom import from_edge_list
from topomoe.topologies.dragonfly import dragonfly
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.fat_tree import fat_tree
from topomoe.topologies.hamming_mesh import hamming_mesh
from topomoe.topologies.hypercube import hypercube
from topomoe.topologies.jellyfish import jellyfish
from topomoe.topologies.leaf_spine import leaf_spine
from topomoe.topologies.mesh import mesh
from topomoe.topologies.optical import optical
from topomoe.topologies.rails import rails
from topomoe.topologies.topology import Topology, require_connected
from topomoe.topologies.torus import torus
from topomoe.topologies.torus_3d import torus_3d

EDGE_LIST_ENDINGS = (".csv", ".edges", ".txt")
MOST_DEVICES = 65536  # beyond, a demand alone takes more than 32 GiB


def twisted_torus(grid: tuple[int, int], bandwidth: float, latency: float) -> Topology:
    """Return the torus whose row wraps are shifted by half the rows."""
    return torus(grid, bandwidth, latency, twist=grid[0] // 2)


BUILDERS: Mapping[str, Callable[..., Topology]] = {
    "fat-tree": fat_tree,
    "leaf-spine": leaf_spine,
    "mesh": mesh,
    "torus": torus,
    "twisted-torus": twisted_torus,
    "optical": optical,
    "rails": rails,
    "jellyfish": jellyfish,
    "hypercube": hypercube,
    "dragonfly": dragonfly,
    "torus-3d": torus_3d,
    "hamming-mesh": hamming_mesh,
}

# Options with a unit.
UNITS: Mapping[str, Callable[[str | float, str], float]] = {
    "base_bandwidth": units.bandwidth,
    "node_bandwidth": units.bandwidth,
    "node_latency": units.seconds,
}


def names() -> tuple[str, ...]:
    """Return the names that ``make`` knows."""
    return tuple(BUILDERS)


def parse_grid(grid: str | tuple[int, int] | list[int], field: str = "grid") -> tuple[int, int]:
    """Return (rows, columns) from ``"16x8"`` or a pair; InputError unless both are >= 1."""
    try:
        rows, columns = (
            (int(part) for part in grid.lower().split("x"))
            if isinstance(grid, str)
            else (operator.index(part) for part in grid)
        )
    except (TypeError, ValueError):
        raise InputError(f"{field} must be rows x columns such as 16x8, got {grid!r}") from None
    if rows < 1 or columns < 1:
        raise InputError(f"{field} must have rows >= 1 and columns >= 1, got {rows}x{columns}")
    if rows * columns < 2:
        raise InputError(f"{field} must hold at least 2 devices, got {rows}x{columns}")
    if rows * columns > MOST_DEVICES:
        raise InputError(f"{field} must hold at most {MOST_DEVICES} devices, got {rows}x{columns}")
    return rows, columns


def make(
    name: str,
    grid: str | tuple[int, int] = (16, 8),
    bandwidth: str | float = "400Gbps",
    latency: str | float = "1us",
    **options: Any,
) -> Topology:
    """Return the topology of that name over ``grid`` = rows x columns devices.

    ``bandwidth`` and ``latency`` are those of each link and direction. Options: ``torus(twist=t)``;
    ``leaf-spine(spines=, oversubscription=)``, rows being leaves; ``optical(circuits=, demand=,
    base=, base_bandwidth=, degree=, bidirectional=, seed=)``; ``rails(node_size=, node_bandwidth=,
    node_latency=, spines=, oversubscription=)``, whose ``bandwidth`` is that of a NIC;
    ``jellyfish(degree=, seed=)``, rows being switches; ``dragonfly(devices_per_router=,
    routers_per_group=, global_links=, groups=)``; ``torus-3d(dimensions=)``;
    ``hamming-mesh(board=)``. A name that ends in .csv, .edges or .txt is an edge-list file.

    >>> make("torus", grid=(16, 8), bandwidth="400Gbps", latency="1us").num_links
    512
    """
    if name.endswith(EDGE_LIST_ENDINGS):
        return from_edge_list(Path(name), bandwidth, latency)
    if name not in BUILDERS:
        raise unknown("topology", name, BUILDERS)
    builder = BUILDERS[name]
    allowed = list(inspect.signature(builder).parameters)[3:]
    for option in options:
        if option not in allowed:
            raise unknown(f"option of {name}", option, allowed or ["none"])
    for option, convert in UNITS.items():
        if options.get(option) is not None:
            options[option] = convert(options[option], option)
    return require_connected(
        builder(
            parse_grid(grid),
            units.bandwidth(bandwidth),
            units.seconds(latency, "latency"),
            **options,
        )
    )
