"""What is left of a topology after failures of links, switches, devices and circuits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.failed_parts import (
    Failures,
    failed_circuits,
    failed_links,
    failed_nodes,
    surviving,
)
from topomoe.topologies.topology import BoolArray, FloatArray, IntArray, Topology

_SHOWN_PARTS = 6
_KEEPS_SHAPE = ("rails",)  # its own routing goes around what is missing


def fail(topology: Topology, failures: Failures, allow_partition: bool = False) -> Topology:
    """Return the topology without what has failed; devices and switches keep their numbers.

    A failed device stays as a node without links. The default routing becomes ECMP over the links
    that are left, unless the topology's own still reaches every pair that has a path (``hybrid``,
    ``pxn``); those that need a whole shape (dimension-order, d-mod-k) refuse it. ``parameters``
    name the ``failed_devices``, ``failed_switches``, ``failed_links`` [X, 2] and
    ``failed_circuits`` [X, 2], those of an earlier call included, and the shape it was, ``of``; an
    optical fabric's ``circuits`` and ``base`` are what is left of them. Without a failure the
    topology itself is returned.

    Raises InputError for a name that the topology does not have, more random failures than there
    are parts, fewer than 2 surviving devices or no link, and, unless ``allow_partition``, where two
    surviving devices have no path: it names such a pair and the parts' sizes.

    >>> from topomoe import topologies
    >>> torus = topologies.make("torus", grid=(4, 4))
    >>> print(torus.num_links, fail(torus, Failures(links=("0-1",))).num_links)
    64 62
    """
    nodes = failed_nodes(topology, failures)
    gone = np.asarray(nodes[topology.links].any(axis=1))
    gone |= failed_links(topology, failures, gone)
    circuits: IntArray = topology.parameters.get("circuits", np.empty((0, 2), dtype=np.int64))
    link = topology.link_ids(*circuits.T)
    dark = gone[link] | failed_circuits(topology, failures, circuits, gone[link])
    if not (nodes.any() or gone.any() or dark.any()):
        return topology
    capacity, optical, unlit = _dimmed(topology, link, dark)
    kept = ~(gone | unlit)
    survivors = ~nodes[: topology.num_devices]
    name = topology.name.removesuffix("-degraded") + "-degraded"
    if survivors.sum() < 2:
        raise InputError(f"{name}: at least 2 devices must survive, {survivors.sum()} do")
    if not kept.any():
        raise InputError(f"{name}: no link survives")
    before = topology.parameters
    parameters = {
        **_shape_left(topology, kept, circuits[~dark]),
        "failed_devices": _joined(before, "failed_devices", np.flatnonzero(~survivors)),
        "failed_switches": _joined(
            before,
            "failed_switches",
            topology.num_devices + np.flatnonzero(nodes[topology.num_devices :]),
        ),
        "failed_links": _joined(before, "failed_links", topology.links[gone]),
        "failed_circuits": _joined(before, "failed_circuits", circuits[dark]),
    }
    degraded = replace(
        topology,
        name=name,
        links=topology.links[kept],
        capacity=capacity[kept],
        latency=topology.latency[kept],
        optical=optical[kept],
        parameters=parameters,
    )
    if not _still_routes(degraded):
        degraded = replace(degraded, default_routing="ecmp")
    return degraded if allow_partition else require_paths(degraded)


def components(topology: Topology) -> tuple[IntArray, ...]:
    """Return the surviving devices by part, the largest first; paths lead both ways inside one."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    tail, head = topology.links.T
    graph = csr_array((np.ones(topology.num_links), (tail, head)), shape=(topology.num_nodes,) * 2)
    _, label = connected_components(graph, connection="strong")
    devices = surviving(topology)
    parts = [devices[label[devices] == part] for part in np.unique(label[devices])]
    return tuple(sorted(parts, key=lambda part: (-len(part), int(part[0]))))


def require_paths(topology: Topology) -> Topology:
    """Return the topology; InputError reports a partition: a pair without a path, all parts."""
    alive = surviving(topology)
    lost = np.argwhere(np.isinf(topology.least_hops[np.ix_(alive, alive)]))
    if not len(lost):
        return topology
    sizes = [str(len(part)) for part in components(topology)]
    shown = ", ".join(sizes[:_SHOWN_PARTS]) + (", ..." if len(sizes) > _SHOWN_PARTS else "")
    raise InputError(
        f"{topology.name}: partitioned, no path from device {alive[lost[0, 0]]} to device "
        f"{alive[lost[0, 1]]} ({len(lost)} such pairs); {len(sizes)} parts of {shown} devices"
    )


def _dimmed(
    topology: Topology, link: IntArray, dark: BoolArray
) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Return capacity [L] and optical [L] without the dark circuits, and which links are unlit.

    ``link`` [X] is each circuit's. Circuits on one link share what it has above the base's own.
    """
    count = topology.num_links
    lit, lost = np.bincount(link, minlength=count), np.bincount(link[dark], minlength=count)
    electrical = np.zeros(count)
    base = topology.parameters.get("base")
    if base is not None:
        electrical[topology.link_ids(*base.links.T)] = base.capacity
    each = (topology.capacity - electrical) / np.maximum(lit, 1)
    all_dark = (lost > 0) & (lost == lit)
    capacity = np.where(all_dark, electrical, topology.capacity - lost * each)
    return capacity, topology.optical & ~all_dark, all_dark & (electrical == 0)


def _shape_left(topology: Topology, kept: BoolArray, circuits: IntArray) -> dict[str, object]:
    """Return the parameters that still hold: of a broken shape, what it was and where nodes are."""
    before = dict(topology.parameters)
    kind = before.get("of", before.get("kind", "custom"))
    if before.get("kind") in _KEEPS_SHAPE:
        return {**before, "of": kind}
    if "circuits" not in before:
        where = {"place": before["place"]} if "place" in before else {}
        return {"kind": "degraded", "of": kind, **where}
    base = before.get("base")
    if base is not None:
        ids = topology.link_ids(*base.links.T)
        left = kept[ids]
        if not left.any():
            base = None
        elif not left.all():
            base = replace(
                base,
                name=base.name.removesuffix("-degraded") + "-degraded",
                links=base.links[left],
                capacity=base.capacity[left],
                latency=base.latency[left],
                optical=base.optical[left],
                default_routing="ecmp",
                parameters={"kind": "degraded", "of": base.parameters.get("kind", "custom")},
            )
    return {**before, "of": kind, "circuits": circuits, "base": base}


def _still_routes(topology: Topology) -> bool:
    """Return whether the default routing reaches every pair that has a path."""
    if topology.parameters["kind"] == "degraded":
        return False
    from topomoe.topologies.routing import POLICIES

    try:
        reachable = POLICIES[topology.default_routing](topology).reachable
    except InputError:
        return False
    return bool((reachable | np.isinf(topology.least_hops)).all())


def _joined(before: Mapping[str, Any], key: str, now: IntArray) -> tuple[int, ...] | IntArray:
    """Return earlier failures of this kind and those of now: node numbers, or pairs [X, 2]."""
    if now.ndim == 1:
        return (*before.get(key, ()), *now.tolist())
    return np.concatenate([before.get(key, now[:0]), now])
