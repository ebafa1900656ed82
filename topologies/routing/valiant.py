"""Valiant's routing: every pair over an intermediate drawn uniformly, two minimal routes on end.

Valiant, "A scheme for fast parallel communication" (SIAM Journal on Computing 1982). Whatever the
demand, each of its two phases is uniform traffic: no demand within the ports' rates is worse than
twice the load of uniform all-to-all.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import BoolArray, FloatArray, Topology

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def valiant(topology: Topology, base: str | None = None) -> ValiantRouting:
    """Return Valiant's routing over ``base``, by default the topology's default routing.

    The intermediates are all N devices, a pair's own two included (it is then routed minimally).
    Where a device hangs on one switch, as in a dragonfly, traffic turns round in the intermediate's
    switch and never enters the device. Deadlock-free with one set of the base's virtual channels
    for each of the two phases. Raises InputError on a leaf-spine or fat-tree, where every shortest
    path already goes over a top switch picked at random: that is what ``ecmp`` does.
    """
    from topomoe.topologies.routing import route

    if topology.parameters.get("kind") in ("leaf-spine", "fat-tree"):
        raise InputError(
            f"valiant on {topology.name} is ecmp: its paths already spread over all top switches"
        )
    return ValiantRouting(topology, route(topology, base))


class ValiantRouting(Routing):
    """Both phases of a demand are rank-one: row sums spread over all, all gathered by column."""

    def __init__(self, topology: Topology, base: Routing) -> None:
        """Keep the base, the intermediates and, where each has one switch, its links there."""
        super().__init__(topology, "valiant")
        self.base = base
        devices = topology.num_devices
        failed = np.asarray(topology.parameters.get("failed_devices", ()), dtype=np.int64)
        self.alive = np.setdiff1d(np.arange(devices), failed)
        tail, head = topology.links.T
        up, down = np.flatnonzero(tail < devices), np.flatnonzero(head < devices)
        self.up = up[np.argsort(tail[up])]
        self.down = down[np.argsort(head[down])]
        self.turns_in_switch = bool(
            np.array_equal(tail[self.up], self.alive)
            and np.array_equal(head[self.down], self.alive)
            and (head[up] >= devices).all()
        )

    @cached_property
    def reachable(self) -> BoolArray:
        """Whether a pair reaches each other over every intermediate, [N, N]."""
        out = np.all(self.base.reachable[:, self.alive], axis=1, keepdims=True)
        into = np.all(self.base.reachable[self.alive], axis=0, keepdims=True)
        return np.asarray((out & into) | np.eye(out.size, dtype=np.bool_))

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        own = np.diagonal(demand, axis1=1, axis2=2)
        leaving = (demand.sum(axis=2, dtype=np.float64) - own).astype(demand.dtype)
        reaching = (demand.sum(axis=1, dtype=np.float64) - own).astype(demand.dtype)
        leaving, reaching = np.maximum(leaving, 0), np.maximum(reaching, 0)
        # From a to b: a's bytes on their way out and b's on their way in, an equal part of each.
        share = np.zeros(self.topology.num_devices, dtype=demand.dtype)
        share[self.alive] = 1.0 / len(self.alive)
        phases = leaving[:, :, None] * share
        phases += share[:, None] * reaching[:, None, :]
        load = self.base.link_load(phases)
        if self.turns_in_switch:
            load[:, self.up], load[:, self.down] = leaving[:, self.alive], reaching[:, self.alive]
        return load

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over all links that a pair may use, [N, N]."""
        out, into = self._worst_ends(value)
        worst = np.maximum(out[:, None], into[None, :])
        np.fill_diagonal(worst, 0)
        return np.asarray(worst)

    def _inside(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return ``value[L]`` with 0 on the links that no intermediate is entered or left by."""
        inner = value.copy()
        if self.turns_in_switch:
            inner[self.up] = inner[self.down] = 0
        return inner

    def _worst_ends(self, value: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the largest value on any way out of each device and into each, [N] both."""
        worst = self.base.path_max(self._inside(value))
        out, into = worst[:, self.alive].max(axis=1), worst[self.alive].max(axis=0)
        if self.turns_in_switch:
            out[self.alive] = np.maximum(out[self.alive], value[self.up])
            into[self.alive] = np.maximum(into[self.alive], value[self.down])
        return out, into

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the worst pair's seconds, [B]; see ``Routing.worst_pair``."""
        worst = np.zeros(len(demand), dtype=demand.dtype)
        for b in range(len(demand)):
            out, into = self._worst_ends(use[b])
            total = np.maximum(out[:, None], into[None, :])
            total += offset
            total *= demand[b] > 0
            np.fill_diagonal(total, 0)
            worst[b] = total.max(initial=0)
        return worst

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum over a pair's links, [N, N]."""
        total = self.base.path_sum(self._inside(value))
        out, into = total[:, self.alive].mean(axis=1), total[self.alive].mean(axis=0)
        if self.turns_in_switch:
            out[self.alive] += value[self.up]
            into[self.alive] += value[self.down]
        both = out[:, None] + into[None, :]
        np.fill_diagonal(both, 0)
        return np.asarray(both)

    @cached_property
    def matrix(self) -> csr_array[Any, Any]:
        """The fractions as a sparse matrix [L, N*N]; nearly dense: for small N."""
        from scipy.sparse import csr_array, vstack

        devices = self.topology.num_devices
        rows = []
        for link in range(self.topology.num_links):
            one = np.zeros(self.topology.num_links)
            one[link] = 1.0
            rows.append(csr_array(self.path_sum(one).reshape(1, devices * devices)))
        return csr_array(vstack(rows))
