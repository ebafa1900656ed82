"""Jellyfish: top-of-rack switches joined by a random regular graph."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.checked import whole
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import IntArray, Topology, both_ways, uniform_topology

_DRAWS = 100  # a random regular graph of degree >= 3 is connected in nearly every draw


def jellyfish(
    grid: tuple[int, int],
    bandwidth: float,
    latency: float,
    degree: int | None = None,
    seed: int = 0,
) -> Topology:
    """Return ``grid`` = (switches, devices a switch) devices on a random regular graph of switches.

    Each switch has ``degree`` links to other switches: by default as many as it has devices, but at
    least 3, at most all other switches, and one more (or less) where the ports would not pair up.
    ``bandwidth`` (bytes/s) and ``latency`` (s) are those of each link. Switch s is node N + s. The
    graph is uniform over connected regular graphs in the limit (Steger and Wormald, 1999) and a
    function of ``seed``. Source: Singla et al., "Jellyfish: networking data centers randomly",
    NSDI 2012. Raises InputError for a degree that no connected graph has.
    """
    switches, per_switch = grid
    if degree is None:
        degree = min(max(per_switch, 3), switches - 1)
        if switches * degree % 2:
            degree += 1 if degree < switches - 1 else -1
    degree = whole(degree, "jellyfish: degree", least=0 if switches == 1 else 1)
    if degree >= switches:
        raise InputError(
            f"jellyfish: degree must be < switches, got degree={degree} and switches={switches}"
        )
    if switches * degree % 2:
        raise InputError(
            f"jellyfish: degree x switches must be even, got degree={degree} and "
            f"switches={switches}"
        )
    if degree == 1 and switches > 2:
        raise InputError(f"jellyfish: degree must be >= 2 to connect {switches} switches, got 1")
    devices = switches * per_switch
    device = np.arange(devices, dtype=np.int64)
    host = np.stack([device, devices + device // per_switch], axis=-1)
    between = devices + _regular_graph(switches, degree, whole(seed, "jellyfish: seed", least=0))
    return uniform_topology(
        "jellyfish",
        devices,
        both_ways(np.concatenate([host, between])),
        bandwidth,
        latency,
        num_nodes=devices + switches,
        grid=grid,
        default_routing="ecmp",
        parameters={"kind": "jellyfish", "degree": degree, "seed": seed},
    )


def _regular_graph(switches: int, degree: int, seed: int) -> IntArray:
    """Return the edges [X, 2] of a connected random regular graph, sorted."""
    import networkx as nx

    if degree == 0:
        return np.empty((0, 2), dtype=np.int64)
    rng = np.random.default_rng(seed)
    for _ in range(_DRAWS):
        graph = nx.random_regular_graph(degree, switches, seed=rng)
        if nx.is_connected(graph):
            return np.array(sorted(sorted(edge) for edge in graph.edges), dtype=np.int64)
    raise InputError(
        f"jellyfish: none of {_DRAWS} random graphs of degree {degree} connects {switches} switches"
    )
