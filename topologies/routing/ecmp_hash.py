"""ECMP as switches do it: each flow is hashed onto one of its shortest paths."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.checked import whole
from topomoe.topologies.routing.paths import PathRouting
from topomoe.topologies.routing.shortest_paths import next_hops
from topomoe.topologies.topology import Topology


def ecmp_hash(topology: Topology, seed: int = 0) -> PathRouting:
    """Return one shortest path a pair, each hop drawn uniformly and seeded.

    The draw of pair (source, destination) at its h-th choice is entry [h, source, destination] of
    one array of seeded uniforms, so that it depends on the seed and the pair alone.
    """
    devices = topology.num_devices
    hops = next_hops(topology)
    groups = int(hops.group.max(initial=-1)) + 1
    start = np.searchsorted(hops.group, np.arange(groups + 1))
    tail = topology.links[hops.link, 0]
    group_of = np.full((devices, topology.num_nodes), -1, dtype=np.int64)
    group_of[hops.destination, tail] = hops.group

    rng = np.random.default_rng(whole(seed, "ecmp-hash: seed", least=0))
    node = np.repeat(np.arange(devices), devices)
    destination = np.tile(np.arange(devices), devices)
    active = np.flatnonzero((node != destination) & hops.reachable.reshape(-1))
    pairs, links = [], []
    while len(active):
        at = group_of[destination[active], node[active]]
        choice = (rng.random(devices * devices)[active] * (start[at + 1] - start[at])).astype(int)
        link = hops.link[start[at] + choice]
        pairs.append(active)
        links.append(link)
        node[active] = topology.links[link, 1]
        active = active[node[active] != destination[active]]
    pair = np.concatenate(pairs) if pairs else np.empty(0, dtype=np.int64)
    order = np.argsort(pair, kind="stable")
    ptr = np.concatenate([[0], np.cumsum(np.bincount(pair, minlength=devices * devices))])
    link = np.concatenate(links)[order] if links else np.empty(0, dtype=np.int64)
    return PathRouting(topology, "ecmp-hash", ptr.astype(np.int64), link, np.ones(len(link)))
