"""Routings given pair by pair: stored or measured paths, and seeded single paths."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.errors import InputError
from topomoe.topologies.kernel import nan_free_kernel
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import FloatArray, IntArray, Topology

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class PathRouting(Routing):
    """For each pair the links it uses and the fraction on each, in compressed rows by pair."""

    def __init__(
        self, topology: Topology, name: str, ptr: IntArray, links: IntArray, fraction: FloatArray
    ) -> None:
        """Keep ptr [N*N+1], links and fraction [ptr[-1]], entries of pair source*N+destination."""
        super().__init__(topology, name)
        self.ptr = ptr
        self.links = links
        self.fraction = fraction

    @cached_property
    def reachable(self) -> NDArray[np.bool_]:
        """Whether a pair has at least one link, or is a device with itself, [N, N]."""
        devices = self.topology.num_devices
        has_path = (np.diff(self.ptr) > 0).reshape(devices, devices)
        return np.asarray(has_path | np.eye(devices, dtype=np.bool_))

    @cached_property
    def matrix(self) -> csr_array[Any, Any]:
        """The fractions as a sparse matrix [L, N*N]."""
        from scipy.sparse import csr_array

        shape = (len(self.ptr) - 1, self.topology.num_links)
        by_pair = csr_array((self.fraction, self.links, self.ptr), shape=shape)
        return by_pair.T.tocsr()

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        flat = demand.reshape(len(demand), -1)
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        _load(self.ptr, self.links, self.fraction.astype(demand.dtype), flat, load)
        return load

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over a pair's links, [N, N]; 0 on the diagonal."""
        out = np.zeros(len(self.ptr) - 1, dtype=value.dtype)
        _max(self.ptr, self.links, value, out)
        return out.reshape((self.topology.num_devices,) * 2)

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum over a pair's links, [N, N]."""
        total = np.concatenate([[0.0], np.cumsum(self.fraction * value[self.links])])
        out = total[self.ptr[1:]] - total[self.ptr[:-1]]
        return np.asarray(out.reshape((self.topology.num_devices,) * 2))


def from_paths(
    topology: Topology,
    ptr: ArrayLike,
    links: ArrayLike,
    source: ArrayLike | None = None,
    destination: ArrayLike | None = None,
) -> PathRouting:
    """Return the routing of given single paths; see ``Routing.from_paths``.

    Raises InputError where a link id is unknown, a path does not hang together or a flow is named
    twice.
    """
    starts = np.asarray(ptr, dtype=np.int64)
    ids = np.asarray(links, dtype=np.int64)
    devices = topology.num_devices
    if starts.ndim != 1 or len(starts) < 1 or starts[0] != 0 or starts[-1] != len(ids):
        raise InputError("paths: ptr must start at 0 and end at the number of link ids")
    if (np.diff(starts) < 0).any():
        raise InputError("paths: ptr must not decrease")
    if len(ids) and (ids.min() < 0 or ids.max() >= topology.num_links):
        raise InputError(f"paths: link ids must be in 0..{topology.num_links - 1}")
    flows = len(starts) - 1
    pair = _pairs(topology, starts, ids, source, destination)
    if len(np.unique(pair)) != flows:
        raise InputError("paths: a pair of devices has two paths")
    inner = np.ones(max(len(ids) - 1, 0), dtype=np.bool_)
    breaks = starts[1:-1]
    inner[breaks[(breaks > 0) & (breaks < len(ids))] - 1] = False
    broken = inner & (topology.links[ids[:-1], 1] != topology.links[ids[1:], 0])
    if broken.any() and source is None:
        at = int(np.searchsorted(starts, np.argmax(broken), side="right")) - 1
        raise InputError(f"paths: the links of path {at} do not follow each other")
    order = np.argsort(pair)
    count = np.zeros(devices * devices, dtype=np.int64)
    count[pair] = np.diff(starts)
    gather = np.concatenate([ids[starts[f] : starts[f + 1]] for f in order] or [ids])
    return PathRouting(
        topology,
        "paths",
        np.concatenate([[0], np.cumsum(count)]),
        gather.astype(np.int64),
        np.ones(len(gather)),
    )


def _pairs(
    topology: Topology,
    ptr: IntArray,
    links: IntArray,
    source: ArrayLike | None,
    destination: ArrayLike | None,
) -> IntArray:
    devices = topology.num_devices
    flows = len(ptr) - 1
    if (source is None) != (destination is None):
        raise InputError("paths: give both source and destination or neither")
    if source is not None and destination is not None:
        ends = np.asarray(source, dtype=np.int64), np.asarray(destination, dtype=np.int64)
        if any(end.shape != (flows,) for end in ends):
            raise InputError(f"paths: source and destination must have one entry a flow ({flows})")
    elif flows == devices * devices:
        return np.arange(flows)
    elif flows == devices * (devices - 1):
        ends = np.nonzero(~np.eye(devices, dtype=np.bool_))
    else:
        if (np.diff(ptr) == 0).any():
            raise InputError("paths: an empty path names no pair; give source and destination")
        ends = topology.links[links[ptr[:-1]], 0], topology.links[links[ptr[1:] - 1], 1]
    if any(len(end) and (end.min() < 0 or end.max() >= devices) for end in ends):
        raise InputError(f"paths: source and destination must be devices 0..{devices - 1}")
    return np.asarray(ends[0] * devices + ends[1], dtype=np.int64)


@nan_free_kernel
def _load(
    ptr: IntArray,
    links: IntArray,
    fraction: NDArray[Any],
    demand: NDArray[Any],
    load: NDArray[Any],
) -> None:
    for b in range(demand.shape[0]):
        for pair in range(demand.shape[1]):
            amount = demand[b, pair]
            for e in range(ptr[pair], ptr[pair + 1]):
                load[b, links[e]] += amount * fraction[e]


@nan_free_kernel
def _max(ptr: IntArray, links: IntArray, value: NDArray[Any], out: NDArray[Any]) -> None:
    for pair in range(len(ptr) - 1):
        for e in range(ptr[pair], ptr[pair + 1]):
            out[pair] = max(out[pair], value[links[e]])
