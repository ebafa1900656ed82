"""Topology and routing in turn, in the spirit of TopoOpt, then swaps of circuits.

Wang et al., "TopoOpt: co-optimizing network topology and parallelization strategy for distributed
training jobs", NSDI 2023, alternates between what a topology carries best and the best topology for
that. Here the demand stays and the routing moves: circuits are chosen for weighted demand, all of
it is routed over them, relayed traffic included, and the loads weigh the demand anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from topomoe.topologies.checked import whole
from topomoe.topologies.custom import from_links
from topomoe.topologies.matching.b_matching import b_matching
from topomoe.topologies.matching.ring import join_by_ring, strongly_connected
from topomoe.topologies.topology import FloatArray, IntArray

# Weight of a pair without demand, in mean demands: it takes the ports left over, to relay.
_RELAY = 1e-3
# Heaviest pairs over the busiest circuit that a swap is tried for.
_PAIRS = 8


@dataclass(frozen=True, eq=False)
class _Routed:
    """Circuits and what fluid ECMP over them makes of the demand."""

    circuits: IntArray  # [X, 2]
    links: IntArray  # [L, 2] distinct circuits
    use: FloatArray  # [L] bytes on a link over its number of circuits
    path_use: FloatArray  # [N, N] the largest use on a pair's paths
    hops: FloatArray  # [N, N]

    @property
    def score(self) -> tuple[float, float]:
        """The bottleneck, then how much of the rest is close to it."""
        worst = float(self.use.max())
        return worst, float(np.sum((self.use / worst) ** 4)) if worst > 0 else 0.0


def topo_opt(
    demand: FloatArray,
    degree: int,
    bidirectional: bool = False,
    rounds: int = 10,
    swaps: int = 500,
) -> IntArray:
    """Return circuits [X, 2] that join all devices, for a small bottleneck with relays and no base.

    demand [N, N] bytes. The bottleneck is the time of ``routing.transfer_time`` at latency 0 under
    fluid ECMP. It starts from the maximum-weight b-matching; in each of ``rounds`` a relayed pair
    then weighs its bytes times the links that they occupy times how busy the busiest of them is,
    and a lit pair all that its circuit carries, mixed half with the weights before. The best wiring
    seen goes on: for the heaviest pairs over its busiest circuit, two circuits exchange ends so
    that one (more) joins the pair, until no such swap helps or ``swaps`` have been routed. Nothing
    is drawn; the result is never slower than the connected b-matching it starts from.
    """
    rounds = whole(rounds, "topo-opt: rounds", least=0)
    swaps = whole(swaps, "topo-opt: swaps", least=0)
    devices = len(demand)
    total = max(float(demand.sum()), np.finfo(float).tiny)
    base = demand + _RELAY * total / (devices * (devices - 1)) * (1.0 - np.eye(devices))
    weight = base
    best = _route(_connected(weight, degree, bidirectional), demand)
    routed = best
    for _ in range(rounds):
        value = base * routed.path_use * routed.hops
        lit = tuple(routed.links.T)
        value[lit] = routed.use * routed.use
        if not value.any():
            break
        weight = 0.5 * (weight + value * (weight.sum() / value.sum()))
        routed = _route(_connected(weight, degree, bidirectional), demand)
        if routed.score < best.score:
            best = routed
    return _swap(best, demand, swaps, bidirectional).circuits


def _connected(weight: FloatArray, degree: int, bidirectional: bool) -> IntArray:
    circuits = b_matching(weight, degree, bidirectional)
    if strongly_connected(circuits, len(weight)):
        return circuits
    return join_by_ring(b_matching, weight, degree, bidirectional, {})


def _route(circuits: IntArray, demand: FloatArray) -> _Routed:
    from topomoe.topologies.routing.ecmp import ecmp

    links, copies = np.unique(circuits, axis=0, return_counts=True)
    topology = from_links(links, copies.astype(np.float64), devices=len(demand))
    routing = ecmp(topology)
    use = routing.link_load(demand[None])[0] / topology.capacity
    return _Routed(circuits, links, use, routing.path_max(use), routing.hops)


def _swap(routed: _Routed, demand: FloatArray, swaps: int, bidirectional: bool) -> _Routed:
    """Return the wiring after swaps, each the first found that lowers the score."""
    tried = 0
    while True:
        for circuits in _exchanges(routed, demand, bidirectional):
            if tried == swaps:
                return routed
            if not strongly_connected(circuits, len(demand)):
                continue
            tried += 1
            trial = _route(circuits, demand)
            if trial.score < routed.score:
                routed = trial
                break
        else:
            return routed


def _exchanges(routed: _Routed, demand: FloatArray, bidirectional: bool) -> Iterator[IntArray]:
    """Yield wirings in which s->x and y->d became s->d and y->x, for pairs s, d to be relieved."""
    circuits = routed.circuits
    if bidirectional:
        circuits = circuits[circuits[:, 0] < circuits[:, 1]]
    busiest = routed.path_use >= routed.use.max() * (1.0 - 1e-9)
    relieved = np.where(busiest, demand, 0.0).reshape(-1)
    for pair in np.argsort(-relieved, kind="stable")[:_PAIRS]:
        if relieved[pair] == 0.0:
            return
        s, d = divmod(int(pair), len(demand))
        for i, x in _ends(circuits, s, 0, bidirectional):
            for j, y in _ends(circuits, d, 1, bidirectional):
                if i == j or x in (y, d) or y == s:
                    continue
                trial = circuits.copy()
                trial[i], trial[j] = (s, d), (y, x)
                yield np.concatenate([trial, trial[:, ::-1]]) if bidirectional else trial


def _ends(circuits: IntArray, device: int, side: int, bidirectional: bool) -> list[tuple[int, int]]:
    """Return (circuit, other end) of a device's circuits; side 0 those it sends on, 1 receives."""
    sides = (0, 1) if bidirectional else (side,)
    return [
        (int(at), int(circuits[at, 1 - end]))
        for end in sides
        for at in np.flatnonzero(circuits[:, end] == device)
    ]
