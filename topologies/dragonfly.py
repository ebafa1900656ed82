"""Dragonfly: groups of routers, all joined inside, one global link or more between groups."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.checked import whole
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import IntArray, Topology, merge_links


def dragonfly(
    grid: tuple[int, int],
    bandwidth: float,
    latency: float,
    devices_per_router: int | None = None,
    routers_per_group: int | None = None,
    global_links: int | None = None,
    groups: int | None = None,
) -> Topology:
    """Return groups of a = ``routers_per_group`` routers with p devices and h global links each.

    p = ``devices_per_router`` and h = ``global_links`` are by default balanced, a = 2p = 2h, and
    the smallest that hold N = rows x columns devices in at most a*h + 1 groups; ``groups`` is by
    default as many as have devices. Routers are filled in order. Every two routers of a group are
    linked. Global port k of a group leads to group k, or k + 1 from its own number on (the
    "absolute" arrangement), and is on router k // h; with fewer than a*h + 1 groups this is
    repeated in whole rounds and the ports left over stay dark. Two links between the same routers
    are one of twice the capacity. ``bandwidth`` (bytes/s) and ``latency`` (s) are those of each
    link. Router r of group i is node N + i*a + r. Source: Kim et al., "Technology-driven,
    highly-scalable dragonfly topology", ISCA 2008. Raises InputError where the devices do not fit.

    ``parameters["place"]`` [nodes] is the group of each device and router.
    """
    devices = grid[0] * grid[1]
    p, a, h = _shape(devices, devices_per_router, routers_per_group, global_links)
    used = -(-devices // (a * p))
    count = whole(used if groups is None else groups, "dragonfly: groups", least=1)
    if count < used:
        raise InputError(
            f"dragonfly: groups must hold {devices} devices, {count} of {a} x {p} hold "
            f"{count * a * p}"
        )
    if count > a * h + 1:
        raise InputError(
            f"dragonfly: groups must be <= a*h + 1 = {a * h + 1} with {a} routers a group and {h} "
            f"global links a router, got {count}"
        )
    device = np.arange(devices, dtype=np.int64)
    host = np.stack([device, devices + device // p], axis=-1)
    inside = np.stack(np.triu_indices(a, 1), axis=-1)
    local = (devices + inside[None] + a * np.arange(count)[:, None, None]).reshape(-1, 2)
    edges = np.concatenate([host, local, devices + _global_edges(count, a, h)])
    directed = np.concatenate([edges, edges[:, ::-1]]).astype(np.int64)
    links, capacity, link_latency, optical = merge_links(
        directed,
        np.full(len(directed), bandwidth),
        np.full(len(directed), latency),
        np.zeros(len(directed), dtype=np.bool_),
    )
    return Topology(
        name="dragonfly",
        num_devices=devices,
        num_nodes=devices + count * a,
        links=links,
        capacity=capacity,
        latency=link_latency,
        optical=optical,
        grid=grid,
        default_routing="ecmp",
        parameters={
            "kind": "dragonfly",
            "devices_per_router": p,
            "routers_per_group": a,
            "global_links": h,
            "groups": count,
            "place": np.concatenate([device // (a * p), np.repeat(np.arange(count), a)]),
        },
    )


def _shape(devices: int, p: int | None, a: int | None, h: int | None) -> tuple[int, int, int]:
    """Return p, a and h; what is not given follows from what is, or from the devices."""
    given = {"devices_per_router": p, "routers_per_group": a, "global_links": h}
    for name, value in given.items():
        if value is not None:
            whole(value, f"dragonfly: {name}", least=1)
    half = p or h or (None if a is None else -(-a // 2))
    if half is None:
        half = 1
        while 2 * half * half * (2 * half * half + 1) < devices:
            half += 1
    return p or half, a or 2 * half, h or half


def _global_edges(groups: int, a: int, h: int) -> IntArray:
    """Return the global links [X, 2] between routers numbered group by group."""
    first, second = np.triu_indices(groups, 1)
    if groups == 1:
        return np.empty((0, 2), dtype=np.int64)
    start = (groups - 1) * np.arange(a * h // (groups - 1))[:, None]
    tail = first * a + (start + second - 1) // h
    head = second * a + (start + first) // h
    return np.stack([tail, head], axis=-1).reshape(-1, 2).astype(np.int64)
