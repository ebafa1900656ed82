"""Fat-tree: the k-ary three-tier Clos network of Al-Fares et al. (SIGCOMM 2008)."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.topology import Topology, both_ways, uniform_topology


def fat_tree_radix(devices: int) -> int:
    """Return the smallest even k with k^3/4 >= devices."""
    k = 2
    while k**3 // 4 < devices:
        k += 2
    return k


def fat_tree(grid: tuple[int, int], bandwidth: float, latency: float) -> Topology:
    """Return a k-ary fat-tree for rows x columns devices, pods filled in device order.

    k is the smallest even number with k^3/4 >= N. Edge switches and pods without a device are left
    out; each pod has k/2 aggregation switches, and aggregation switch a of every pod is joined to
    core switches a*k/2 .. a*k/2 + k/2 - 1. Nodes: devices, edge switches, aggregation, core.
    """
    devices = grid[0] * grid[1]
    half = fat_tree_radix(devices) // 2
    edges_used = -(-devices // half)
    pods = -(-edges_used // half)
    device = np.arange(devices, dtype=np.int64)
    edge = np.arange(edges_used, dtype=np.int64)
    aggregation = np.arange(pods * half, dtype=np.int64)
    edge_node = devices + edge
    aggregation_node = devices + edges_used + aggregation
    first_core = devices + edges_used + pods * half

    host = np.stack([device, edge_node[device // half]], axis=-1)
    up = np.stack(
        [
            np.repeat(edge_node, half),
            aggregation_node[(edge // half)[:, None] * half + np.arange(half)].reshape(-1),
        ],
        axis=-1,
    )
    core_of = first_core + (aggregation % half)[:, None] * half + np.arange(half)
    top = np.stack([np.repeat(aggregation_node, half), core_of.reshape(-1)], axis=-1)
    return uniform_topology(
        "fat-tree",
        devices,
        both_ways(np.concatenate([host, up, top])),
        bandwidth,
        latency,
        num_nodes=first_core + half * half,
        grid=grid,
        default_routing="ecmp",
        parameters={"kind": "fat-tree", "k": 2 * half, "first_aggregation": devices + edges_used},
    )
