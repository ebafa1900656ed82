"""Virtual channels that keep a routing free of deadlock on lossless links.

Each answer is checked: the dependency graph of the links, each times its virtual channels, is built
and has no cycle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.dependencies import (
    Dependencies,
    layers,
    on_cycles,
    path_dependencies,
    table_dependencies,
)
from topomoe.topologies.routing.dimension_order import DimensionOrderRouting
from topomoe.topologies.routing.dimension_order_tables import grid_shape
from topomoe.topologies.routing.mixture import MixtureRouting
from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.paths import PathRouting
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.routing.tree import TreeRouting
from topomoe.topologies.routing.valiant import ValiantRouting
from topomoe.topologies.topology import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class VirtualChannels:
    """Virtual channels a link, how traffic chooses among them, and whether that was checked."""

    count: int
    scheme: str
    verified: bool


def virtual_channels(routing: Routing) -> VirtualChannels:
    """Return virtual channels under which the routing cannot deadlock (Dally and Seitz, 1987).

    One where the links' dependency graph has no cycle. On rings under dimension order two: a packet
    is on the lower until it has crossed the ring's end. Else the fewer of layers by destination
    (first fit, after LASH) and of one channel for each number of hops left, host links aside. The
    parts of a mixture have sets of their own where they share a link; a minimal route beside
    Valiant's uses the set of his second phase. Raises InputError for routings of another kind.
    """
    if isinstance(routing, ValiantRouting):
        base = virtual_channels(routing.base)
        scheme = f"one set for each of two phases ({base.scheme})"
        return VirtualChannels(2 * base.count, scheme, base.verified)
    if isinstance(routing, MixtureRouting):
        return _of_mixture(routing)
    if isinstance(routing, PathRouting):
        return _of_tables(path_dependencies(routing), routing, None)
    tables = _tables(routing)
    return _of_tables(table_dependencies(tables), routing, _dateline_class(tables))


def _tables(routing: Routing) -> NextHopRouting:
    if isinstance(routing, NextHopRouting):
        return routing
    if isinstance(routing, DimensionOrderRouting | TreeRouting):
        return routing.tables
    raise InputError(f"virtual channels are not known for {routing.name}")


def _of_tables(found: Dependencies, routing: Routing, dateline: IntArray | None) -> VirtualChannels:
    links = routing.topology.num_links
    cyclic = np.zeros(links, dtype=np.bool_)
    cyclic[_cyclic(found, np.zeros(len(found.link), dtype=np.int64), links)] = True
    if not cyclic.any():
        return VirtualChannels(1, "no cyclic dependency", True)
    if dateline is not None and not len(_cyclic(found, dateline, links)):
        return VirtualChannels(2, "dateline on each ring", True)
    # Links that no cycle crosses, such as those of hosts, need no second channel.
    inner = cyclic[found.link]
    hops = found.remaining[found.used & inner]
    most = int(hops.max() - hops.min()) + 1
    count = layers(found, links, most)
    if count < most:
        return VirtualChannels(count, "layers by destination", True)
    by_hop = np.where(inner, hops.max() - found.remaining, 0)
    return VirtualChannels(most, "one a hop", not len(_cyclic(found, by_hop, links)))


def _cyclic(found: Dependencies, channel: IntArray, num_links: int) -> IntArray:
    """Return the (link, channel) on cycles, given the ``channel`` of each table entry."""
    vertex = channel * num_links + found.link
    held, wanted = vertex[found.held], vertex[found.wanted]
    size = int(vertex.max(initial=0)) + 1
    return on_cycles(*np.divmod(np.unique(held * size + wanted), size))


def _dateline_class(tables: NextHopRouting) -> IntArray | None:
    """Return the channel of each entry: 0 before a ring's end on the way on, 1 after; or None."""
    try:
        shape, wraps = grid_shape(tables.topology, tables.name)
    except InputError:
        return None
    if not wraps or not tables.name.startswith("dimension-order"):
        return None
    destination = np.repeat(np.arange(tables.topology.num_devices), np.diff(tables.ptr))
    at, to, goal = (np.unravel_index(x, shape) for x in (tables.tail, tables.head, destination))
    channel = np.ones(len(tables.link), dtype=np.int64)
    for axis, size in enumerate(shape):
        moves = at[axis] != to[axis]
        up = (to[axis] - at[axis]) % size == 1
        crosses = np.where(up, goal[axis] < at[axis], goal[axis] > at[axis])
        channel[moves & crosses] = 0
    return channel


def _of_mixture(routing: MixtureRouting) -> VirtualChannels:
    carrying = [(part, share) for part, share in routing.parts if share.any()]
    parts = [part for part, _ in carrying]
    for part in parts:
        if isinstance(part, ValiantRouting) and all(x in (part, part.base) for x in parts):
            return virtual_channels(part)
    each = [_of_part(part, share) for part, share in carrying]
    used = np.stack([_links_used(part) for part in parts])
    verified = all(channels.verified for channels in each)
    scheme = " + ".join(dict.fromkeys(channels.scheme for channels in each))
    if (used.sum(axis=0) <= 1).all():
        count = max(channels.count for channels in each)
        return VirtualChannels(count, f"parts on links of their own ({scheme})", verified)
    count = sum(channels.count for channels in each)
    return VirtualChannels(count, f"a set for each part ({scheme})", verified)


def _of_part(part: Routing, share: FloatArray) -> VirtualChannels:
    """Return those of a part; where it carries no pair further than one link, nothing waits."""
    of_pair = np.broadcast_to(share, part.hops.shape)
    if (part.hops[(of_pair > 0) & part.reachable] <= 1).all():
        return VirtualChannels(1, "no cyclic dependency", True)
    return virtual_channels(part)


def _links_used(routing: Routing) -> BoolArray:
    """Return whether some pair's traffic takes each link, [L]."""
    devices = routing.topology.num_devices
    return np.asarray(routing.link_load(np.ones((1, devices, devices)))[0] > 0)
