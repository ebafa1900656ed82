"""Rails: nodes of several devices, scale-up links inside and one NIC a device outside."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.checked import numbers, whole
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import FloatArray, IntArray, Topology


def rails(
    grid: tuple[int, int],
    bandwidth: float,
    latency: float,
    node_size: int = 8,
    node_bandwidth: float = 450e9,
    node_latency: float | None = None,
    spines: int | str | None = None,
    oversubscription: float | None = None,
) -> Topology:
    """Return nodes of ``node_size`` devices whose NICs of the same rank share a rail switch.

    Node n holds devices n * node_size onwards. Inside it every device has a link of
    ``node_bandwidth`` bytes/s each way (450 GB/s: the NVLink of an H100) and ``node_latency``
    seconds (by default ``latency``) to the node's own switch. Outside, device r of every node has a
    NIC of ``bandwidth`` bytes/s to rail switch r. ``spines`` join the rails, by default one a node,
    which is full bisection at ``bandwidth`` a link; ``oversubscription`` sets the ratio of a rail's
    NIC capacity to its spine capacity. ``spines`` 0 or "none" is rail-only (Wang et al., 2023,
    "Rail-only: A low-cost high-performance network for training LLMs with trillion parameters"):
    traffic between rails changes rail inside a node. Nodes: devices, node switches, rail switches,
    spines. Raises InputError unless node_size divides the devices.

    ``parameters["switches"]`` are the first node switch, rail switch, spine and the end;
    ``parameters["place"]`` [nodes] is the node of each device and node switch, and one more for
    each other switch.
    """
    devices = grid[0] * grid[1]
    node_size = whole(node_size, "rails: node_size", least=2)
    if devices % node_size:
        raise InputError(
            f"rails: node_size must divide devices, got node_size={node_size} and devices={devices}"
        )
    nodes = devices // node_size
    if isinstance(spines, str) and spines != "none":
        raise InputError(f"rails: spines must be a whole number or none, got {spines!r}")
    count = nodes if spines is None else 0 if isinstance(spines, str) else spines
    count = whole(count, "rails: spines", least=0)
    uplink = bandwidth
    if oversubscription is not None:
        ratio = numbers(oversubscription, "rails: oversubscription")
        if ratio.ndim or not (np.isfinite(ratio) and ratio > 0):
            raise InputError(f"rails: oversubscription must be > 0, got {oversubscription}")
        if count == 0:
            raise InputError("rails: oversubscription needs spines >= 1, got 0")
        uplink = bandwidth * nodes / (count * float(ratio))
    first_rail = devices + nodes
    first_spine = first_rail + node_size
    device = np.arange(devices, dtype=np.int64)
    rail = first_rail + np.arange(node_size, dtype=np.int64)
    spine = first_spine + np.arange(count, dtype=np.int64)
    inside = np.stack([device, devices + device // node_size], axis=-1)
    nic = np.stack([device, rail[device % node_size]], axis=-1)
    fabric = np.stack([np.repeat(rail, count), np.tile(spine, node_size)], axis=-1)
    sizes = [len(inside), len(nic), len(fabric)]
    inner_latency = latency if node_latency is None else node_latency
    return Topology(
        name="rails",
        num_devices=devices,
        num_nodes=first_spine + count,
        links=_each_way(np.concatenate([inside, nic, fabric])),
        capacity=_twice(np.repeat([node_bandwidth, bandwidth, uplink], sizes)),
        latency=_twice(np.repeat([inner_latency, latency, latency], sizes)),
        optical=np.zeros(2 * sum(sizes), dtype=np.bool_),
        grid=grid,
        default_routing="pxn",
        parameters={
            "kind": "rails",
            "node_size": node_size,
            "node_bandwidth": node_bandwidth,
            "spines": count,
            "switches": (devices, first_rail, first_spine, first_spine + count),
            "place": np.concatenate([device // node_size, np.arange(nodes + node_size + count)]),
        },
    )


def _each_way(edges: IntArray) -> IntArray:
    return np.concatenate([edges, edges[:, ::-1]])


def _twice(values: FloatArray) -> FloatArray:
    return np.tile(values.astype(np.float64), 2)
