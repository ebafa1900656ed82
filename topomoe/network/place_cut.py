"""A lower bound from places: what leaves a node, a board or a group crosses the links out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.network.bottleneck import checked_demand
from topomoe.topologies.topology import FloatArray, IntArray, Topology


@dataclass(frozen=True, eq=False)
class Places:
    """The places of a topology: nodes of several devices, boards, groups."""

    label: IntArray  # [N] the place of each device, 0..P-1
    leaving: FloatArray  # [P] bytes/s out of each place
    reaching: FloatArray  # [P] bytes/s into each place


def places(topology: Topology) -> Places | None:
    """Return the places that hold more than one device but not all; None where there are none.

    ``parameters["place"]`` [nodes] says where each device and switch is; any such sets are cuts.
    """
    place = topology.parameters.get("place")
    if place is None:
        return None
    kept, label = np.unique(np.asarray(place)[: topology.num_devices], return_inverse=True)
    if not 1 < len(kept) < topology.num_devices:
        return None
    tail, head = np.asarray(place)[topology.links.T]
    out = tail != head
    none = np.finfo(float).tiny  # a place that has lost all its links, and sends nothing
    leaving, reaching = (
        np.array([max(topology.capacity[out & (end == p)].sum(), none) for p in kept])
        for end in (tail, head)
    )
    return Places(label.reshape(-1).astype(np.int64), leaving, reaching)


def place_cut(topology: Topology, demand: ArrayLike) -> Any:
    """Return seconds, or [B] for demand [B, N, N]: no routing moves the demand faster.

    The maximum over places of the bytes that leave (reach) them over the capacity of the links out
    of (into) them; 0 where the topology has no places of several devices.
    """
    batch = checked_demand(topology, demand)
    where = places(topology)
    time = np.zeros(len(batch))
    if where is not None:
        leaving, reaching = crossing(where, batch)
        time = np.maximum(leaving / where.leaving, reaching / where.reaching).max(axis=1)
    return float(time[0]) if np.ndim(demand) == 2 else time


def crossing(
    where: Places, demand: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return bytes that leave and reach each place, each [B, P], of demand [B, N, N]."""
    member = (where.label[:, None] == np.arange(len(where.leaving))).astype(demand.dtype)
    between = member.T @ (demand @ member)
    inside = np.diagonal(between, axis1=1, axis2=2).astype(np.float64)
    leaving = between.sum(axis=2, dtype=np.float64) - inside
    return leaving, between.sum(axis=1, dtype=np.float64) - inside
