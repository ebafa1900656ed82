"""Routing on leaf-spine and fat-tree as sums over groups of devices that share a switch or pod.

Under fluid ECMP every switch splits equally upwards: all links of one kind out of (into) a group
carry the same, the group's traffic with the outside over the number of these links. Where the
destination picks the way up, a link carries the traffic with the outside of the devices that pick
it. Either way loads are sums of the demand over groups; no path is followed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.routing.tree_kernels import group_loads, worst_pairs
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


def tiers_of(topology: Topology, shape: Topology | None = None) -> list[Tier] | None:
    """Return the tiers of a leaf-spine or fat-tree; None for anything else and if a link is gone.

    ``shape`` is the leaf-spine or fat-tree whose links ``topology`` holds, by default itself.
    """
    shape = topology if shape is None else shape
    if shape.parameters.get("kind") == "leaf-spine":
        tiers = leaf_spine_tiers(topology, shape)
    elif shape.parameters.get("kind") == "fat-tree":
        tiers = fat_tree_tiers(topology, shape)
    else:
        return None
    whole = all((tier.up >= 0).all() and (tier.down >= 0).all() for tier in tiers)
    return tiers if whole else None


def tree_routing(topology: Topology, shape: Topology | None = None) -> TreeRouting | None:
    """Return fluid ECMP over the tree of switches (see ``tiers_of``); None where there is none."""
    tiers = tiers_of(topology, shape)
    return None if tiers is None else TreeRouting(topology, "ecmp", tiers)


class TreeRouting(Routing):
    """A tree of tiers; links of a group and direction share its traffic, or each has a choice."""

    def __init__(
        self, topology: Topology, name: str, tiers: list[Tier], choice: IntArray | None = None
    ) -> None:
        """Number the cells: one a group and tier where links share, else one for each link.

        ``choice`` [tiers, N] is which of a group's links traffic with a device outside it uses.
        """
        super().__init__(topology, name)
        self.tiers = tiers
        width = [1 if choice is None else tier.up.shape[1] for tier in tiers]
        cells = [len(tier.up) * w for tier, w in zip(tiers, width, strict=True)]
        self.first = np.concatenate([[0], np.cumsum(cells)])
        group = [tier.group * w + at for tier, w, at in zip(tiers, width, self.first, strict=False)]
        self.group = np.stack(group).astype(np.int32)
        self.choice = np.zeros_like(self.group) if choice is None else choice.astype(np.int32)
        self.shares = choice is None

    def _of_tier(self, cells: NDArray[Any], tier: int) -> NDArray[Any]:
        """Return cells [B, cells] of one tier as [B, groups, links a group, or 1 if shared]."""
        part = cells[:, self.first[tier] : self.first[tier + 1]]
        groups, width = self.tiers[tier].up.shape
        return part.reshape(len(cells), groups, 1 if self.shares else width)

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        up = np.zeros((len(demand), self.first[-1]), dtype=demand.dtype)
        down = np.zeros_like(up)
        group_loads(demand, self.group, self.choice, self.shares, up, down)
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        for t, tier in enumerate(self.tiers):
            share = demand.dtype.type(1.0 / tier.up.shape[1] if self.shares else 1.0)
            load[:, tier.up] = self._of_tier(up, t) * share
            load[:, tier.down] = self._of_tier(down, t) * share
        return load

    def _by_cell(self, value: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the largest of ``value`` [B, L] over each cell's links, up and down [B, cells]."""
        sides = []
        for links in ([tier.up for tier in self.tiers], [tier.down for tier in self.tiers]):
            of_tier = [value[:, ids] for ids in links]
            if self.shares:
                of_tier = [values.max(axis=2) for values in of_tier]
            flat = [values.reshape(len(value), math.prod(values.shape[1:])) for values in of_tier]
            sides.append(np.concatenate(flat, axis=1))
        return sides[0], sides[1]

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the worst pair's seconds, [B]; see ``Routing.worst_pair``."""
        up, down = self._by_cell(use)
        worst = np.zeros(len(demand), dtype=demand.dtype)
        worst_pairs(up, down, self.group, self.choice, self.shares, demand, offset, worst)
        return worst

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over a pair's links, [N, N]; 0 on the diagonal."""
        up, down = (side[0] for side in self._by_cell(value[None]))
        out = np.zeros((self.topology.num_devices,) * 2, dtype=value.dtype)
        for group, choice in zip(self.group, self.choice, strict=True):
            leaving = up[group][:, None] if self.shares else up[group[:, None] + choice]
            pair = np.maximum(leaving, down[group + choice])
            pair *= group[:, None] != group
            np.maximum(out, pair, out=out)
        return out

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum over a pair's links, [N, N]."""
        out = np.zeros((self.topology.num_devices,) * 2)
        for t, tier in enumerate(self.tiers):
            up, down = value[tier.up], value[tier.down]
            group, choice = self.group[t] - self.first[t], self.choice[t]
            if self.shares:
                up, down = up.mean(axis=1), down.mean(axis=1)
                leaving = up[group][:, None]
            else:
                leaving = up.reshape(-1)[group[:, None] + choice]
            pair = leaving + down.reshape(-1)[group + choice]
            pair *= group[:, None] != group
            out += pair
        return out

    @cached_property
    def tables(self) -> NextHopRouting:
        """The same routing by destination."""
        from topomoe.topologies.routing.ecmp_tables import ecmp_next_hop

        usable = np.zeros(self.topology.num_links, dtype=np.bool_)
        for tier in self.tiers:
            usable[tier.up] = usable[tier.down] = True
        return ecmp_next_hop(self.topology, usable)

    @cached_property
    def matrix(self) -> csr_array[Any, Any]:
        """The fractions as a sparse matrix [L, N*N], from the next-hop tables."""
        return self.tables.matrix
