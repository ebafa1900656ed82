"""A ring of circuits through all devices that follows the demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from topomoe.topologies.circuits import paired
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import FloatArray, IntArray


def strongly_connected(circuits: IntArray, devices: int) -> bool:
    """Return whether the circuits [X, 2] lead from every device to every other."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    adjacency = csr_array((np.ones(len(circuits)), tuple(circuits.T)), shape=(devices, devices))
    parts, _ = connected_components(adjacency, connection="strong")
    return bool(parts == 1)


def demand_ring(demand: FloatArray) -> IntArray:
    """Return one directed cycle through all devices, [N, 2], that carries much demand directly.

    demand [N, N] bytes. The best assignment of successors falls into cycles; they are joined two at
    a time by the exchange of successors that loses least (Karp's patching, 1979).
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    devices = len(demand)
    cost = -demand / max(float(demand.max()), np.finfo(float).tiny)
    # Dearer than any cycle is worth, so that no device is its own successor.
    np.fill_diagonal(cost, devices + 1.0)
    successor = linear_sum_assignment(cost)[1]
    device = np.arange(devices)
    while True:
        graph = csr_array((np.ones(devices), (device, successor)), shape=(devices, devices))
        parts, label = connected_components(graph, directed=False)
        if parts == 1:
            return np.stack([device, successor], axis=-1).astype(np.int64)
        crossed = cost[:, successor]  # [u, v]: u takes the successor of v
        kept = cost[device, successor]
        loss = crossed + crossed.T - kept[:, None] - kept[None]
        loss[label[:, None] == label[None]] = np.inf
        u, v = np.unravel_index(int(np.argmin(loss)), loss.shape)
        successor[[u, v]] = successor[[v, u]]


def join_by_ring(
    choose: Callable[..., IntArray],
    demand: FloatArray,
    degree: int,
    bidirectional: bool,
    options: Mapping[str, Any],
) -> IntArray:
    """Return a ring through all devices and circuits that ``choose`` picks for the rest.

    The rest are the demand [N, N] that the ring does not carry directly and the ports it leaves.
    Raises InputError where a ring both ways needs more than ``degree`` ports.
    """
    ring = paired(demand_ring(demand + demand.T)) if bidirectional else demand_ring(demand)
    ports = int(np.bincount(ring[:, 0]).max())
    if ports > degree:
        raise InputError(
            f"connected: a ring both ways needs degree >= {ports}, got degree={degree}"
        )
    if ports == degree:
        return ring
    rest = demand.copy()
    rest[tuple(ring.T)] = 0.0
    return np.concatenate([ring, choose(rest, degree - ports, bidirectional, **options)])
