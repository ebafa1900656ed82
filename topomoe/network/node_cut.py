"""Lower bounds on the time of a demand that hold for every routing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topomoe.network.bottleneck import checked_demand
from topomoe.topologies.topology import Topology


def node_cut(topology: Topology, demand: ArrayLike) -> Any:
    """Return seconds, or [B] for demand [B, N, N]: no routing moves the demand faster.

    All bytes that leave (reach) a device cross the links out of (into) it: the maximum over devices
    of bytes over the capacity of these links. The diagonal is no flow.
    """
    batch = checked_demand(topology, demand)
    own = np.diagonal(batch, axis1=1, axis2=2)
    leaving = batch.sum(axis=2, dtype=np.float64) - own
    reaching = batch.sum(axis=1, dtype=np.float64) - own
    with np.errstate(divide="ignore", invalid="ignore"):
        both = np.stack([leaving / topology.injection, reaching / topology.reception])
    time = np.nan_to_num(both, nan=0.0, posinf=np.inf).max(axis=(0, 2))
    return float(time[0]) if np.ndim(demand) == 2 else time
