"""A mixture of routings: each pair's traffic split over several policies in given shares."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import BoolArray, FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class MixtureRouting(Routing):
    """Routings on one topology with the share [N, N] of each pair that each carries (sum 1)."""

    def __init__(self, name: str, parts: list[tuple[Routing, FloatArray]]) -> None:
        """Keep the parts; a part need not reach the pairs of which it carries nothing."""
        super().__init__(parts[0][0].topology, name)
        self.parts = parts

    @cached_property
    def reachable(self) -> BoolArray:
        """Whether every part that carries some of a pair reaches it, [N, N]."""
        whole = np.ones((self.topology.num_devices,) * 2, dtype=np.bool_)
        for routing, share in self.parts:
            whole &= routing.reachable | (share == 0)
        return whole

    @cached_property
    def matrix(self) -> csr_array[Any, Any]:
        """The fractions as a sparse matrix [L, N*N]."""
        from scipy.sparse import csr_array, diags_array

        total: csr_array[Any, Any] = csr_array((self.topology.num_links, self.parts[0][1].size))
        for routing, share in self.parts:
            total = total + routing.matrix @ diags_array(share.reshape(-1))
        return total.tocsr()

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        for routing, share in self.parts:
            load += routing.link_load(demand * share.astype(demand.dtype))
        return load

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the worst pair's seconds, [B]: the worst over the parts that carry some of it."""
        worst = np.zeros(len(demand), dtype=demand.dtype)
        for routing, share in self.parts:
            carried = demand * (share > 0)
            np.maximum(worst, routing.worst_pair(use, carried, offset), out=worst)
        return worst

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over all links that a pair uses, [N, N]."""
        out = np.zeros((self.topology.num_devices,) * 2, dtype=value.dtype)
        for routing, share in self.parts:
            np.maximum(out, routing.path_max(value) * (share > 0), out=out)
        return out

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum over a pair's links, [N, N]."""
        return np.asarray(sum(share * routing.path_sum(value) for routing, share in self.parts))

    def store_and_forward(self, mtu: float) -> FloatArray:
        """Return the parts' own by their shares, [N, N] seconds; see ``Routing``.

        A packet takes one of the parts: the slowest link of the others holds nothing of it back.
        """
        return np.asarray(sum(share * part.store_and_forward(mtu) for part, share in self.parts))
