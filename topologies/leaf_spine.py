"""Leaf-spine: two tiers of switches, every leaf joined to every spine."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.checked import numbers, whole
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import Topology


def leaf_spine(
    grid: tuple[int, int],
    bandwidth: float,
    latency: float,
    spines: int | None = None,
    oversubscription: float | None = None,
) -> Topology:
    """Return ``grid`` = (leaves, devices a leaf) devices under leaves and spines.

    ``bandwidth`` (bytes/s) is that of a device's link, and of a leaf-spine link unless
    ``oversubscription`` sets the ratio of a leaf's device capacity to its spine capacity. Without
    either, there is a spine for each device of a leaf: full bisection. Leaf l is node N + l, spine
    s is node N + leaves + s.
    """
    leaves, per_leaf = grid
    spines = whole(per_leaf if spines is None else spines, "leaf-spine: spines", least=1)
    uplink = bandwidth
    if oversubscription is not None:
        ratio = numbers(oversubscription, "leaf-spine: oversubscription")
        if ratio.ndim or not (np.isfinite(ratio) and ratio > 0):
            raise InputError(f"leaf-spine: oversubscription must be > 0, got {oversubscription}")
        uplink = bandwidth * per_leaf / (spines * float(ratio))
    devices = leaves * per_leaf
    device = np.arange(devices, dtype=np.int64)
    leaf = devices + np.arange(leaves, dtype=np.int64)
    spine = devices + leaves + np.arange(spines, dtype=np.int64)
    host = np.stack([device, devices + device // per_leaf], axis=-1)
    fabric = np.stack([np.repeat(leaf, spines), np.tile(spine, leaves)], axis=-1)
    links = np.concatenate([host, host[:, ::-1], fabric, fabric[:, ::-1]])
    capacity = np.repeat([bandwidth, uplink], [2 * len(host), 2 * len(fabric)]).astype(np.float64)
    return Topology(
        name="leaf-spine",
        num_devices=devices,
        num_nodes=devices + leaves + spines,
        links=links,
        capacity=capacity,
        latency=np.full(len(links), latency),
        optical=np.zeros(len(links), dtype=np.bool_),
        grid=grid,
        default_routing="ecmp",
        parameters={"kind": "leaf-spine", "spines": spines},
    )
