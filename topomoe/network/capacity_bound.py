"""A lower bound from volume: every byte takes room on every link it crosses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topomoe.network.bottleneck import checked_demand
from topomoe.topologies.topology import Topology


def capacity_bound(topology: Topology, demand: ArrayLike) -> Any:
    """Return seconds, or [B] for demand [B, N, N]: no routing moves the demand faster.

    A byte crosses at least as many links as the shortest path has, and in a time T all links
    together carry T times their total capacity: T >= sum of demand x least hops / total capacity.
    The diagonal is no flow.
    """
    batch = checked_demand(topology, demand)
    hops = topology.least_hops
    reached = np.isfinite(hops)
    room = (hops if reached.all() else np.where(reached, hops, 0.0)).astype(batch.dtype).reshape(-1)
    time = (batch.reshape(len(batch), -1) @ room) / topology.capacity.sum()
    if not reached.all():
        time = np.where((batch[:, ~reached] > 0).any(axis=1), np.inf, time)
    return float(time[0]) if np.ndim(demand) == 2 else time.astype(np.float64)
