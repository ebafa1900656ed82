"""Seconds below which no placement of the experts brings a step, on any topology of a cluster."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import Cluster, StepPool


def step_bound(cluster: Cluster, pool: StepPool) -> NDArray[np.float64]:
    """Return a lower bound of each step's seconds, [Q], whatever the placement and topology.

    Of each group and layer, compute takes at least the mean over devices of all FLOPs, and of all
    weights with tokens. Dispatch and combine take at least the mean over the links that the group
    uses, on the topology where that is least: each copy puts on all links together at least as
    much as one of the device that is reached most cheaply. Loads need not be balanced, so that
    both hold for every division of a group's tokens over its devices.
    """
    steps = len(pool.layout)
    total = np.zeros(steps)
    tokens = pool.counts.sum(axis=3, dtype=np.float64)  # [Q, G, M]
    active = (pool.counts > 0).sum(axis=3)
    for v, group_of in enumerate(cluster.group_of):
        mine = np.flatnonzero(pool.layout == v)
        for g in range(pool.counts.shape[1]):
            members = np.flatnonzero(group_of == g)
            if not len(members) or not len(mine):
                continue
            flops = tokens[mine, g] * cluster.token_seconds
            weights = active[mine, g] * cluster.weight_seconds
            compute = pool.shared[mine, g, None] + np.maximum(flops, weights) / len(members)
            network = np.min(
                [
                    _least(cluster, v, a, 0, g, members, tokens[mine, g])
                    + _least(cluster, v, a, 1, g, members, tokens[mine, g])
                    for a in range(len(cluster.topologies))
                ],
                axis=0,
            )
            layers = (compute + network).sum(axis=1) * cluster.layer_scale
            total[mine] += cluster.weight[v, g] * (layers + pool.other[mine, g])
    return total


def _least(
    cluster: Cluster,
    layout: int,
    topology: int,
    direction: int,
    group: int,
    members: NDArray[np.int64],
    tokens: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the least seconds of one direction for ``tokens`` [n, M] copies of a group.

    The largest over links is at least their mean.
    """
    used = cluster.offset[layout, topology, direction, group] > -np.inf
    pull = cluster.pull[layout, topology, direction, members][:, used].astype(np.float64)
    extra = cluster.offset[layout, topology, direction, group, used].astype(np.float64)
    least = pull.mean(axis=1).min() * tokens + extra.mean()
    return np.asarray(cluster.overhead + least)
