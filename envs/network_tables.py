"""What a token copy, or a byte of background traffic, puts on each link of a routed topology."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.group_layout import Layout
from topomoe.topologies.routing import route
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology

FloatArray = NDArray[np.float32]
BACKGROUND = ("kv-transfer", "all-reduce")


def network_tables(
    topologies: Sequence[Topology],
    layouts: Sequence[Layout],
    dispatch_bytes: float,
    combine_bytes: float,
    mtu: float,
) -> tuple[FloatArray, FloatArray]:
    """Return ``Cluster.pull`` [V, A, 2, N + X, L] and ``offset`` [V, A, 2, G, L].

    Each topology is routed by its default policy. In ``Cluster`` terms a link's time is the bytes
    on it over its capacity, plus the longest path latency (and store-and-forward) of the group's
    pairs that use it: the largest sum is the time of the bottleneck model.
    """
    devices = topologies[0].num_devices
    groups = max(len(layout.kinds) for layout in layouts)
    links = max(topology.num_links for topology in topologies)
    shape = len(layouts), len(topologies), 2
    pull = np.zeros((*shape, devices + len(BACKGROUND), links), dtype=np.float32)
    offset = np.full((*shape, groups, links), -np.inf, dtype=np.float32)
    for a, topology in enumerate(topologies):
        routing = route(topology)
        own = topology.num_links
        extra = routing.path_offset(mtu or None)
        seconds = np.zeros((devices, devices)) if extra is None else np.asarray(extra)
        for v, layout in enumerate(layouts):
            for direction, size in enumerate((dispatch_bytes, combine_bytes)):
                pull[v, a, direction, :devices, :own] = _from_group(
                    routing, layout, direction, size
                )
                for x, name in enumerate(BACKGROUND):
                    pattern = background_pattern(name, layout, topology.grid)
                    load = routing.matrix @ pattern.reshape(-1)
                    pull[v, a, direction, devices + x, :own] = load / topology.capacity
                offset[v, a, direction, :, :own] = _longest(routing, layout, seconds, groups)
    return pull, offset


def background_pattern(
    name: str, layout: Layout, grid: tuple[int, int] | None
) -> NDArray[np.float64]:
    """Return who sends a sending device's byte to whom, [N, N].

    ``kv-transfer``: every prefill device to all decode devices evenly. ``all-reduce``: every
    device that is not idle to the next one in a ring over its row of the grid.
    """
    devices = len(layout.group_of)
    pattern = np.zeros((devices, devices))
    busy = layout.group_of >= 0
    if name == "kv-transfer":
        decode = np.array([kind == "decode" for kind in layout.kinds])
        receives = busy & decode[layout.group_of]
        if receives.any():
            pattern[np.ix_(busy & ~receives, receives)] = 1.0 / receives.sum()
        return pattern
    columns = grid[1] if grid is not None else devices
    for row in np.arange(devices).reshape(-1, columns):
        ring = row[busy[row]]
        if len(ring) > 1:
            pattern[ring, np.roll(ring, -1)] = 1.0
    return pattern


def _from_group(
    routing: Routing, layout: Layout, direction: int, size: float
) -> NDArray[np.float64]:
    """Return the seconds on each link a copy to (0) or from (1) each device, [N, L]."""
    import scipy.sparse

    devices = len(layout.group_of)
    source, sink = np.divmod(np.arange(devices * devices), devices)
    group = layout.group_of
    inside = (group[source] == group[sink]) & (group[source] >= 0) & (source != sink)
    pairs = np.flatnonzero(inside)
    counted = (sink if direction == 0 else source)[pairs]
    share = size / layout.sizes[group[counted]]
    spread = scipy.sparse.csr_array((share, (pairs, counted)), (devices * devices, devices))
    load = (routing.matrix @ spread).toarray()
    return np.asarray((load / routing.topology.capacity[:, None]).T)


def _longest(
    routing: Routing, layout: Layout, seconds: NDArray[np.float64], groups: int
) -> FloatArray:
    """Return the longest ``seconds`` [N, N] of each group's pairs over each link, [G, L]."""
    devices = len(seconds)
    entries = routing.matrix.tocoo()
    source, sink = np.divmod(entries.col, devices)
    group = layout.group_of[source]
    used = (group == layout.group_of[sink]) & (group >= 0) & (source != sink) & (entries.data > 0)
    longest = np.full((groups, routing.topology.num_links), -np.inf)
    at = group[used], entries.row[used]
    np.maximum.at(longest, at, seconds[source[used], sink[used]])
    return longest.astype(np.float32)
