"""Hypercube: devices whose numbers differ in one bit are linked."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import Topology, uniform_topology


def hypercube(grid: tuple[int, int], bandwidth: float, latency: float) -> Topology:
    """Return the binary hypercube of rows x columns = 2^k devices: k links out of each device.

    ``bandwidth`` (bytes/s) and ``latency`` (s) are those of each link. Uniform all-to-all loads
    every link with N/2 pairs, half the pairs cross each of the k cuts. Source: Seitz, "The Cosmic
    Cube", Communications of the ACM 28(1), 1985. Raises InputError unless N is a power of two.
    """
    devices = grid[0] * grid[1]
    bits = devices.bit_length() - 1
    if devices != 1 << bits:
        raise InputError(f"hypercube: devices must be a power of two, got {devices}")
    device = np.repeat(np.arange(devices, dtype=np.int64), bits)
    other = device ^ np.tile(1 << np.arange(bits, dtype=np.int64), devices)
    return uniform_topology(
        "hypercube",
        devices,
        np.stack([device, other], axis=-1),
        bandwidth,
        latency,
        grid=grid,
        default_routing="dimension-order",
        parameters={"kind": "hypercube", "dimensions": (2,) * bits, "wrap": False},
    )
