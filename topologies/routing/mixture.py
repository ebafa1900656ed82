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

_AT_ONCE = 32  # demands whose shares are multiplied out together: they stay in the cache


class MixtureRouting(Routing):
    """Routings on one topology with the share of each pair that each carries (sum 1).

    A share is [N, N], or [] where it is the same for all pairs.
    """

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

        devices = self.topology.num_devices
        total: csr_array[Any, Any] = csr_array((self.topology.num_links, devices * devices))
        for routing, share in self.parts:
            of_pair = np.broadcast_to(share, (devices, devices)).reshape(-1)
            total = total + routing.matrix @ diags_array(of_pair)
        return total.tocsr()

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        shares = [share.astype(demand.dtype) for _, share in self.parts]
        for first in range(0, len(demand), _AT_ONCE):
            some = demand[first : first + _AT_ONCE]
            for (routing, _), share in zip(self.parts, shares, strict=True):
                load[first : first + _AT_ONCE] += routing.link_load(some * share)
        return load

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the worst pair's seconds, [B]: the worst over the parts that carry some of it."""
        worst = np.zeros(len(demand), dtype=demand.dtype)
        carried = [share > 0 for _, share in self.parts]
        for first in range(0, len(demand), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            for (routing, _), here in zip(self.parts, carried, strict=True):
                some = demand[part] if here.all() else demand[part] * here
                mine = routing.worst_pair(use[part], some, offset)
                worst[part] = np.maximum(worst[part], mine)
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
