"""Fluid ECMP on leaf-spine and fat-tree as sums over groups of devices.

Every switch splits equally upwards, so all links of one kind out of (into) a group of devices that
shares a switch or pod carry the same: the group's traffic with the outside over the number of
these links. Loads are sums of the demand over groups; no path is followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import FloatArray, IntArray, Topology

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from topomoe.topologies.routing.next_hop import NextHopRouting


@dataclass(frozen=True)
class Tier:
    """One tier of links: group of each device, and each group's links out (up) and in (down).

    ``up`` and ``down`` are [groups, links a group]; a pair crosses the tier if its groups differ.
    """

    group: IntArray  # [N]
    up: IntArray
    down: IntArray


def leaf_spine_tiers(topology: Topology, shape: Topology) -> list[Tier]:
    """Return the tiers of the leaf-spine ``shape`` in ``topology``: host and leaf-spine links."""
    leaves, per_leaf = shape.grid or (0, 0)
    devices = shape.num_devices
    spines = shape.parameters["spines"]
    device = np.arange(devices)
    leaf = devices + np.arange(leaves)
    spine = devices + leaves + np.arange(spines)
    return [
        _host_tier(topology, devices + device // per_leaf),
        Tier(
            device // per_leaf,
            topology.link_ids(leaf[:, None], spine[None]),
            topology.link_ids(spine[None], leaf[:, None]),
        ),
    ]


def fat_tree_tiers(topology: Topology, shape: Topology) -> list[Tier]:
    """Return the tiers of the fat-tree ``shape``: host, edge and aggregation switch links."""
    half = shape.parameters["k"] // 2
    devices = shape.num_devices
    first_aggregation = shape.parameters["first_aggregation"]
    edge = np.arange(first_aggregation - devices)
    pods = -(-len(edge) // half)
    first_core = first_aggregation + pods * half
    above = first_aggregation + (edge // half)[:, None] * half + np.arange(half)
    member = np.arange(half * half)
    aggregation = first_aggregation + np.arange(pods)[:, None] * half + member // half
    core = np.broadcast_to(first_core + member, aggregation.shape)
    device = np.arange(devices)
    tiers = [
        _host_tier(topology, devices + device // half),
        Tier(
            device // half,
            topology.link_ids(np.broadcast_to(devices + edge[:, None], above.shape), above),
            topology.link_ids(above, np.broadcast_to(devices + edge[:, None], above.shape)),
        ),
    ]
    if pods > 1:
        tiers.append(
            Tier(
                device // half**2,
                topology.link_ids(aggregation, core),
                topology.link_ids(core, aggregation),
            )
        )
    return tiers


def _host_tier(topology: Topology, switch: IntArray) -> Tier:
    device = np.arange(topology.num_devices)
    return Tier(
        device,
        topology.link_ids(device, switch)[:, None],
        topology.link_ids(switch, device)[:, None],
    )


def tree_routing(topology: Topology, shape: Topology | None = None) -> TreeRouting | None:
    """Return fluid ECMP over the tree of switches; None where there is no such tree.

    ``shape`` is the leaf-spine or fat-tree whose links ``topology`` holds, by default itself.
    """
    shape = topology if shape is None else shape
    if shape.parameters.get("kind") == "leaf-spine":
        return TreeRouting(topology, leaf_spine_tiers(topology, shape))
    if shape.parameters.get("kind") == "fat-tree":
        return TreeRouting(topology, fat_tree_tiers(topology, shape))
    return None


class TreeRouting(Routing):
    """Fluid ECMP on a tree of tiers whose links of one group and direction are all alike."""

    def __init__(self, topology: Topology, tiers: list[Tier]) -> None:
        """Number the groups of all tiers together: row t of ``group`` [tiers, N] is tier t's."""
        super().__init__(topology, "ecmp")
        self.tiers = tiers
        sizes = [len(tier.up) for tier in tiers]
        first = np.concatenate([[0], np.cumsum(sizes)])
        self.num_groups = int(first[-1])
        group = np.stack([tier.group + first[t] for t, tier in enumerate(tiers)])
        self.group = group.astype(np.int32)
        self.width = np.repeat([float(tier.up.shape[1]) for tier in tiers], sizes)

    def _crossed(self) -> NDArray[np.bool_]:
        """Return whether a pair crosses each tier, [tiers, N, N]."""
        return np.asarray(self.group[:, :, None] != self.group[:, None, :])

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        out = np.zeros((len(demand), self.num_groups), dtype=demand.dtype)
        into = np.zeros_like(out)
        _group_sums(demand, self.group, out, into)
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        share = (1.0 / self.width).astype(demand.dtype)
        first = 0
        for tier in self.tiers:
            part = slice(first, first + len(tier.up))
            load[:, tier.up] = (out[:, part] * share[part])[:, :, None]
            load[:, tier.down] = (into[:, part] * share[part])[:, :, None]
            first = part.stop
        return load

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the worst pair's seconds, [B]; see ``Routing.worst_pair``."""
        up, down = self._group_worst(use)
        worst = np.zeros(len(demand), dtype=demand.dtype)
        _worst(up, down, self.group, demand, offset, worst)
        return worst

    def _group_worst(self, use: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the largest use over each group's links up and down, [B, groups] each."""
        up = np.concatenate([use[:, tier.up].max(axis=2) for tier in self.tiers], axis=1)
        down = np.concatenate([use[:, tier.down].max(axis=2) for tier in self.tiers], axis=1)
        return up, down

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over a pair's links, [N, N]; 0 on the diagonal."""
        up, down = (side[0] for side in self._group_worst(value[None]))
        out = np.zeros((self.topology.num_devices,) * 2, dtype=value.dtype)
        for tier, crossed in enumerate(self._crossed()):
            group = self.group[tier]
            pair = np.maximum(up[group][:, None], down[group][None])
            np.maximum(out, np.where(crossed, pair, 0), out=out)
        return out

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum over a pair's links, [N, N]."""
        out = np.zeros((self.topology.num_devices,) * 2)
        for tier, crossed in zip(self.tiers, self._crossed(), strict=True):
            up, down = value[tier.up].mean(axis=1), value[tier.down].mean(axis=1)
            out += np.where(crossed, up[tier.group][:, None] + down[tier.group][None], 0.0)
        return out

    @cached_property
    def _by_path(self) -> NextHopRouting:
        from topomoe.topologies.routing.ecmp_tables import ecmp_next_hop

        usable = np.zeros(self.topology.num_links, dtype=np.bool_)
        for tier in self.tiers:
            usable[tier.up] = usable[tier.down] = True
        return ecmp_next_hop(self.topology, usable)

    @cached_property
    def matrix(self) -> csr_array[Any, Any]:
        """The fractions as a sparse matrix [L, N*N], from the same policy's next-hop tables."""
        return self._by_path.matrix


@nan_free_kernel
def _group_sums(
    demand: NDArray[Any], group: NDArray[np.int32], out: NDArray[Any], into: NDArray[Any]
) -> None:
    """Fill out, into [B, groups] with the bytes that leave and enter each group [tiers, N]."""
    tiers, devices = group.shape
    column = np.zeros(devices, dtype=demand.dtype)
    zero = demand.dtype.type(0)
    for b in range(len(demand)):
        for t in range(tiers):
            column[:] = 0
            of = group[t]
            for source in range(devices):
                here = of[source]
                row = demand[b, source]
                total = zero
                for destination in range(devices):
                    amount = row[destination] if of[destination] != here else zero
                    column[destination] += amount
                    total += amount
                out[b, here] += total
            for destination in range(devices):
                into[b, of[destination]] += column[destination]


@nan_free_kernel
def _worst(
    up: NDArray[Any],
    down: NDArray[Any],
    group: NDArray[np.int32],
    demand: NDArray[Any],
    offset: NDArray[Any],
    worst: NDArray[Any],
) -> None:
    tiers, devices = group.shape
    arriving = np.zeros((tiers, devices), dtype=demand.dtype)
    busiest = np.zeros(devices, dtype=demand.dtype)
    zero = demand.dtype.type(0)
    for b in range(len(demand)):
        for t in range(tiers):
            for destination in range(devices):
                arriving[t, destination] = down[b, group[t, destination]]
        best = zero
        for source in range(devices):
            busiest[:] = 0
            for t in range(tiers):
                of, into, here = group[t], arriving[t], group[t, source]
                leaving = up[b, here]
                for destination in range(devices):
                    use = max(leaving, into[destination])
                    use = use if of[destination] != here else zero
                    busiest[destination] = max(busiest[destination], use)
            row, add = demand[b, source], offset[source]
            for destination in range(devices):
                total = busiest[destination] + add[destination]
                total = total if row[destination] > 0 and destination != source else zero
                best = max(best, total)
        worst[b] = best
