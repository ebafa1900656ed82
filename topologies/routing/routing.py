"""What a routing is: for every pair of devices, the fraction of its traffic on each link."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import FloatArray, Topology

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class Routing(ABC):
    """Fractions of each pair's demand on each link, in whatever form a policy computes fastest.

    A pair split over several paths is one flow whose use of a link is its rate times the fraction.
    ``demand`` is [B, N, N] bytes; its diagonal is no flow. float32 demand is computed in float32,
    anything else in float64.
    """

    def __init__(self, topology: Topology, name: str) -> None:
        """Keep what every routing has: the topology it is on and its name."""
        self.topology = topology
        self.name = name
        self._offset: tuple[float | None, Any, NDArray[Any] | None] | None = None

    @abstractmethod
    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L], for demand [B, N, N]."""

    @abstractmethod
    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest ``value[L]`` over all links that a pair uses, [N, N]."""

    @abstractmethod
    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum of ``value[L]`` over a pair's links, [N, N]."""

    @property
    @abstractmethod
    def matrix(self) -> csr_array[Any, Any]:
        """The fractions as a sparse matrix [L, N*N] (pair = source * N + destination)."""

    @cached_property
    def latency(self) -> FloatArray:
        """Path latency in seconds, a fraction-weighted mean over a pair's paths, [N, N]."""
        return self.path_sum(self.topology.latency)

    @cached_property
    def hops(self) -> FloatArray:
        """Links on the path, host links included, a fraction-weighted mean, [N, N]."""
        return self.path_sum(np.ones(self.topology.num_links))

    @cached_property
    def reachable(self) -> NDArray[np.bool_]:
        """Whether a pair has a path, [N, N]; all pairs, unless a policy covers only some."""
        return np.ones((self.topology.num_devices,) * 2, dtype=np.bool_)

    def store_and_forward(self, mtu: float) -> FloatArray:
        """Return the seconds that packets of ``mtu`` bytes add over a pair's path, [N, N].

        Every link of the path but the slowest holds a whole packet back once: (hops-1) * mtu / C
        where all links have capacity C.
        """
        per_byte = 1.0 / self.topology.capacity
        slowest = self.path_max(per_byte)
        return np.asarray(mtu * np.maximum(self.path_sum(per_byte) - slowest, 0.0))

    def path_offset(self, mtu: float | None, dtype: Any = np.float64) -> NDArray[Any] | None:
        """Return what a pair's path adds to its transfer, [N, N] seconds; None if nothing anywhere.

        Path latency, and with ``mtu`` (bytes) a packet's store-and-forward at every link but one.
        The last one asked for is kept; do not write to it.
        """
        if self._offset is None or self._offset[:2] != (mtu, np.dtype(dtype)):
            offset = self.latency
            if mtu is not None:
                offset = offset + self.store_and_forward(mtu)
            kept = offset.astype(dtype, copy=False) if offset.any() else None
            self._offset = (mtu, np.dtype(dtype), kept)
        return self._offset[2]

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return, [B], the largest over pairs with demand of the largest ``use`` on its links.

        use [B, L] seconds a link is busy; offset [N, N] seconds, 0 on the diagonal, is added to
        each pair's.
        """
        worst = np.zeros(len(demand), dtype=demand.dtype)
        off_diagonal = ~np.eye(self.topology.num_devices, dtype=np.bool_)
        for b in range(len(demand)):
            flows = (demand[b] > 0) & off_diagonal
            worst[b] = np.max((self.path_max(use[b]) + offset)[flows], initial=0.0)
        return worst

    def transfer_time(
        self,
        demand: NDArray[Any],
        offset: NDArray[Any] | None = None,
        capacity: FloatArray | None = None,
    ) -> NDArray[np.float64]:
        """Return seconds [B]: the largest over pairs of worst load/capacity on its path + offset.

        ``offset`` [N, N] seconds (path latency and the like) counts only where there is demand.
        ``capacity`` [L] bytes/s: what is left to this traffic, by default the links' own.
        """
        use = self.link_load(demand)
        left = self.topology.capacity if capacity is None else capacity
        use *= (1.0 / left).astype(demand.dtype)
        if offset is None:
            return np.asarray(use.max(axis=1, initial=0.0), dtype=np.float64)
        worst = self.worst_pair(use, demand, offset.astype(demand.dtype, copy=False))
        return np.asarray(worst, dtype=np.float64)

    @staticmethod
    def from_paths(
        topology: Topology,
        ptr: ArrayLike,
        links: ArrayLike,
        source: ArrayLike | None = None,
        destination: ArrayLike | None = None,
    ) -> Routing:
        """Return the routing with one given path a flow: link ids ``links[ptr[f]:ptr[f+1]]``.

        Without ``source`` and ``destination`` [F], the flows are all ordered pairs of devices in
        row-major order, with or without the diagonal, or else each path's first and last node.
        """
        from topomoe.topologies.routing.paths import from_paths

        return from_paths(topology, ptr, links, source, destination)


def check_reachable(routing: Routing) -> Routing:
    """Return the routing; InputError names a pair of devices, neither failed, without a path."""
    lost = ~routing.reachable
    failed = list(routing.topology.parameters.get("failed_devices", ()))
    lost[failed] = lost[:, failed] = False
    missing = np.argwhere(lost)
    if len(missing):
        source, destination = missing[0]
        raise InputError(
            f"{routing.topology.name}: {routing.name} has no path from device {source} "
            f"to device {destination} ({len(missing)} such pairs)"
        )
    return routing
