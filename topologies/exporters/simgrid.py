"""SimGrid's platform file, version 4.1 (SimGrid 3.16 and later): hosts, links and every route.

Each directed link is a SHARED link of its own, so that both directions have the whole capacity.
Switches appear only through their links: with explicit routes SimGrid needs no nodes for them.
"""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing import route
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import IntArray, Topology

_HEAD = """<?xml version='1.0'?>
<!DOCTYPE platform SYSTEM "https://simgrid.org/simgrid.dtd">
<!-- {comment} -->
<platform version="4.1">
  <zone id={name} routing="Full">
"""
_TAIL = """  </zone>
</platform>
"""
_NOTE = (
    "Link I-J leads from node I to node J; hosts 0..N-1 are the devices. For plain max-min rates: "
    "cfg network/model:CM02 network/TCP-gamma:0 network/bandwidth-factor:1 "
    "network/latency-factor:1 network/weight-S:0 network/crosstraffic:0"
)


def files(topology: Topology, routing: Routing | None, demand: ArrayLike | None) -> dict[str, str]:
    """Return ``NAME.xml``; InputError for a routing that splits a pair over several paths."""
    used = _single_path(topology) if routing is None else routing
    ptr, links = ordered_paths(used)
    names = [f"{a}-{b}" for a, b in topology.links.tolist()]
    comment = f"{topology.name} routed by {used.name}. {_NOTE}".replace("--", "- -")
    parts = [_HEAD.format(comment=comment, name=quoteattr(topology.name))]
    parts += [f'    <host id="{device}" speed="1Gf"/>\n' for device in range(topology.num_devices)]
    parts += [
        f'    <link id="{name}" bandwidth="{capacity!r}Bps" latency="{latency!r}s"/>\n'
        for name, capacity, latency in zip(
            names, topology.capacity.tolist(), topology.latency.tolist(), strict=True
        )
    ]
    for pair in np.flatnonzero(np.diff(ptr)):
        source, destination = divmod(int(pair), topology.num_devices)
        hops = "".join(f'<link_ctn id="{names[e]}"/>' for e in links[ptr[pair] : ptr[pair + 1]])
        parts.append(
            f'    <route src="{source}" dst="{destination}" symmetrical="NO">{hops}</route>\n'
        )
    return {f"{topology.name}.xml": "".join([*parts, _TAIL])}


def _single_path(topology: Topology) -> Routing:
    """Return the topology's default routing where it is single path, else ``shortest``."""
    usual = route(topology)
    return usual if _is_single_path(usual) else route(topology, "shortest")


def _is_single_path(routing: Routing) -> bool:
    return bool((np.abs(routing.matrix.data - 1.0) < 1e-12).all())


def ordered_paths(routing: Routing) -> tuple[IntArray, IntArray]:
    """Return ptr [N*N+1] and the link ids of each pair's path in the order it takes them.

    Raises InputError where a pair is split over several paths.
    """
    topology = routing.topology
    if not _is_single_path(routing):
        raise InputError(
            f"routing must have one path a pair, {routing.name} on {topology.name} splits them: "
            "take shortest or ecmp-hash"
        )
    by_pair = routing.matrix.T.tocsr()
    ptr = by_pair.indptr.astype(np.int64)
    pair = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    left = by_pair.indices.astype(np.int64)
    # All pairs walk at once: a step finds the link that leaves where the pair's packet now is.
    key = pair * topology.num_nodes + topology.links[left, 0]
    order = np.argsort(key)
    key, left = key[order], left[order]
    at = np.arange(len(ptr) - 1) // topology.num_devices
    links = np.empty(len(left), dtype=np.int64)
    for step in range(int(np.diff(ptr).max(initial=0))):
        moving = np.flatnonzero(np.diff(ptr) > step)
        taken = left[np.searchsorted(key, moving * topology.num_nodes + at[moving])]
        links[ptr[moving] + step] = taken
        at[moving] = topology.links[taken, 1]
    return ptr, links
