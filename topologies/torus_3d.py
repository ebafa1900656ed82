"""Three-dimensional torus: six links a device, each dimension closed into rings."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.checked import whole_numbers
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import IntArray, Topology, both_ways, uniform_topology


def torus_3d(
    grid: tuple[int, int],
    bandwidth: float,
    latency: float,
    dimensions: str | Sequence[int] | NDArray[np.int64] | None = None,
) -> Topology:
    """Return a torus of x * y * z = rows * columns devices; device id = (i * y + j) * z + k.

    ``dimensions`` (x, y, z), or text such as ``8x4x4``, is by default the most cubic there is, the
    longest first. A dimension of 2 has one link between neighbours, a dimension of 1 none.
    ``bandwidth`` (bytes/s) and ``latency`` (s) are those of each link. The network of TPU v4
    (Jouppi et al., ISCA 2023) within a slice. Raises InputError unless the dimensions are three and
    multiply to the devices.
    """
    devices = grid[0] * grid[1]
    sizes = most_cubic(devices) if dimensions is None else _sizes(dimensions)
    if prod(sizes) != devices:
        text = "x".join(map(str, sizes))
        raise InputError(
            f"torus-3d: dimensions must hold {devices} devices, {text} hold {prod(sizes)}"
        )
    return uniform_topology(
        "torus-3d",
        devices,
        both_ways(ring_edges(sizes)),
        bandwidth,
        latency,
        grid=grid,
        default_routing="dimension-order",
        parameters={"kind": "torus-3d", "dimensions": sizes, "wrap": True},
    )


def most_cubic(devices: int) -> tuple[int, int, int]:
    """Return x >= y >= z of that product with the smallest sum.

    >>> most_cubic(128)
    (8, 4, 4)
    """
    best = (devices, 1, 1)
    for z in (z for z in range(1, devices + 1) if z**3 <= devices and devices % z == 0):
        rest = devices // z
        for y in (y for y in range(z, rest + 1) if y * y <= rest and rest % y == 0):
            best = min(best, (rest // y, y, z), key=sum)
    return best


def ring_edges(sizes: Sequence[int]) -> IntArray:
    """Return the undirected edges [X, 2] of rings along every dimension, row-major ids."""
    device = np.arange(prod(sizes), dtype=np.int64).reshape(tuple(sizes))
    edges = [
        np.stack([device, np.roll(device, -1, axis)], axis=-1).reshape(-1, 2)
        for axis, size in enumerate(sizes)
        if size > 1
    ]
    return np.concatenate(edges)


def _sizes(dimensions: str | Sequence[int] | NDArray[np.int64]) -> tuple[int, ...]:
    wanted = f"torus-3d: dimensions must be three such as 8x4x4, got {dimensions!r}"
    if isinstance(dimensions, str):
        parts = dimensions.lower().split("x")
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise InputError(wanted)
        sizes = tuple(int(part) for part in parts)
    else:
        array = whole_numbers(dimensions, "torus-3d: dimensions")
        if array.shape != (3,):
            raise InputError(wanted)
        sizes = tuple(array.tolist())
    if min(sizes) < 1:
        raise InputError(f"torus-3d: dimensions must be >= 1, got {'x'.join(map(str, sizes))}")
    return sizes
