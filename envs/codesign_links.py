"""The links that can be the slowest, packed close: what prices a placement reads over and over.

A link that no group uses is nobody's wait. Neither is one of which another link carries at least
as much of every device's and every background's traffic, on paths as long for every group: the sum
of the other, taken in the same order, is never smaller, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import Cluster
from topomoe.topologies.kernel import kernel

LINKS = 16  # columns are filled up to a multiple: loops without remainders


@dataclass(frozen=True, eq=False)
class PackedLinks:
    """A cluster's networks without the links that are never the slowest.

    Attributes:
        pull: float32 [V, A, 2, D, L], as ``Cluster.pull``; D = N + X, and L filled up with zeros.
        offset: float32 [V, A, 2, G, L], as ``Cluster.offset``; -inf beyond.
        links: int64 [V, A, 2], columns to be read.
        span: int64 [V, A, 2, G, 2], the first column that a group uses and the one after its last;
            columns are in the order of the groups that use them.
    """

    pull: NDArray[np.float32]
    offset: NDArray[np.float32]
    links: NDArray[np.int64]
    span: NDArray[np.int64]


@lru_cache(maxsize=16)
def packed_links(cluster: Cluster) -> PackedLinks:
    """Return the cluster's networks, packed."""
    pull, offset = cluster.pull, cluster.offset
    shape = pull.shape[:3]
    kept = np.empty((*shape, pull.shape[4]), dtype=np.bool_)
    for at in np.ndindex(*shape):
        _undominated(np.ascontiguousarray(pull[at]), np.ascontiguousarray(offset[at]), kept[at])
    links = -(-kept.sum(axis=3) // LINKS) * LINKS
    most = int(links.max(initial=0))
    groups = offset.shape[3]
    packed = np.zeros((*shape, pull.shape[3], most), dtype=np.float32)
    late = np.full((*shape, groups, most), -np.inf, dtype=np.float32)
    span = np.zeros((*shape, groups, 2), dtype=np.int64)
    for at in np.ndindex(*shape):
        mine = kept[at].nonzero()[0]
        used = offset[at][:, mine] > -np.inf
        order = np.argsort(used.argmax(axis=0), kind="stable")
        mine, used = mine[order], used[:, order]
        packed[at][:, : mine.size] = pull[at][:, mine]
        late[at][:, : mine.size] = offset[at][:, mine]
        for g in np.flatnonzero(used.any(axis=1)):
            columns = np.flatnonzero(used[g])
            span[(*at, g)] = columns[0], columns[-1] + 1
    return PackedLinks(packed, late, links.astype(np.int64), span)


@kernel
def _undominated(
    pull: NDArray[np.float32], offset: NDArray[np.float32], kept: NDArray[np.bool_]
) -> None:
    """Fill kept [L] for pull [N + X, L] and offset [G, L]; of equal links the last is kept."""
    rows, links = pull.shape
    groups = len(offset)
    for link in range(links):
        kept[link] = False
        for g in range(groups):
            if offset[g, link] > -np.inf:
                kept[link] = True
    for link in range(links):
        for other in range(links):
            if not kept[link]:
                break
            if other == link or not kept[other]:
                continue
            below = True
            for g in range(groups):
                if offset[g, link] > offset[g, other]:
                    below = False
                    break
            for row in range(rows):
                if not below or pull[row, link] > pull[row, other]:
                    below = False
                    break
            if below:
                kept[link] = False
