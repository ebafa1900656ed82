"""Routings given pair by pair: stored or measured paths, and seeded single paths."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.checked import whole_numbers
from topomoe.topologies.errors import InputError
from topomoe.topologies.kernel import nan_free_kernel
from topomoe.topologies.routing.lanes import Lanes, lane_rows, lanes_for, source_lanes
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
        return self._by_pair.T.tocsr()

    @cached_property
    def _by_pair(self) -> csr_array[Any, Any]:
        from scipy.sparse import csr_array

        shape = (len(self.ptr) - 1, self.topology.num_links)
        return csr_array((self.fraction, self.links, self.ptr), shape=shape)

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        _load(
            self.ptr,
            self.links,
            self.fraction.astype(demand.dtype),
            demand,
            lanes_for(demand),
            load,
        )
        return load

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the worst pair's seconds, [B]; see ``Routing.worst_pair``."""
        worst = np.zeros(len(demand), dtype=demand.dtype)
        _worst(self.ptr, self.links, use, demand, lanes_for(demand), offset, worst)
        return worst

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over a pair's links, [N, N]; 0 on the diagonal."""
        out = np.zeros(len(self.ptr) - 1, dtype=value.dtype)
        _max(self.ptr, self.links, value, out)
        return out.reshape((self.topology.num_devices,) * 2)

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the fraction-weighted sum over a pair's links, [N, N]."""
        return np.asarray((self._by_pair @ value).reshape((self.topology.num_devices,) * 2))


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
    starts = whole_numbers(ptr, "paths: ptr")
    ids = whole_numbers(links, "paths: links")
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
    if source is None:
        _check_ends(topology, starts, ids, pair)
    # The diagonal is no flow, whatever path is given for it.
    kept = pair // devices != pair % devices
    order = np.argsort(pair)
    order = order[kept[order]]
    count = np.zeros(devices * devices, dtype=np.int64)
    count[pair] = np.where(kept, np.diff(starts), 0)
    gather = np.concatenate([ids[starts[f] : starts[f + 1]] for f in order] or [ids[:0]])
    return PathRouting(
        topology,
        "paths",
        np.concatenate([[0], np.cumsum(count)]),
        gather.astype(np.int64),
        np.ones(len(gather)),
    )


def _check_ends(topology: Topology, ptr: IntArray, links: IntArray, pair: IntArray) -> None:
    """Raise InputError where a path, the diagonal's aside, does not join its pair's devices."""
    source, destination = np.divmod(pair, topology.num_devices)
    taken = np.flatnonzero((np.diff(ptr) > 0) & (source != destination))
    first, last = topology.links[links[ptr[taken]], 0], topology.links[links[ptr[taken + 1] - 1], 1]
    wrong = (first != source[taken]) | (last != destination[taken])
    if wrong.any():
        at = int(np.argmax(wrong))
        flow = taken[at]
        raise InputError(
            f"paths: path {flow} must run {source[flow]}->{destination[flow]}, runs "
            f"{first[at]}->{last[at]}; give source and destination if flows are in another order"
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
    ends: tuple[IntArray, ...]
    if (source is None) != (destination is None):
        raise InputError("paths: give both source and destination or neither")
    if source is not None and destination is not None:
        ends = (
            whole_numbers(source, "paths: source"),
            whole_numbers(destination, "paths: destination"),
        )
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
    side: Lanes,
    load: NDArray[Any],
) -> None:
    batches, devices = demand.shape[0], demand.shape[1]
    block = np.zeros((load.shape[1], len(side)), dtype=demand.dtype)
    amount = np.zeros((devices, len(side)), dtype=demand.dtype)
    rows = lane_rows(demand, side)
    for first in range(0, batches, len(side)):
        width = min(len(side), batches - first)
        block[:] = 0
        for source in range(devices):
            source_lanes(demand, first, width, source, rows, amount)
            for destination in range(devices):
                pair = source * devices + destination
                for e in range(ptr[pair], ptr[pair + 1]):
                    link, share = links[e], fraction[e]
                    for lane in range(len(side)):
                        block[link, lane] += amount[destination, lane] * share
        for link in range(load.shape[1]):
            for lane in range(width):
                load[first + lane, link] = block[link, lane]


@nan_free_kernel
def _max(ptr: IntArray, links: IntArray, value: NDArray[Any], out: NDArray[Any]) -> None:
    for pair in range(len(ptr) - 1):
        for e in range(ptr[pair], ptr[pair + 1]):
            out[pair] = max(out[pair], value[links[e]])


@nan_free_kernel
def _worst(
    ptr: IntArray,
    links: IntArray,
    use: NDArray[Any],
    demand: NDArray[Any],
    side: Lanes,
    offset: NDArray[Any],
    worst: NDArray[Any],
) -> None:
    batches, devices = demand.shape[0], demand.shape[1]
    block = np.zeros((use.shape[1], len(side)), dtype=demand.dtype)
    amount = np.zeros((devices, len(side)), dtype=demand.dtype)
    busiest = np.zeros(len(side), dtype=demand.dtype)
    best = np.zeros(len(side), dtype=demand.dtype)
    rows = lane_rows(demand, side)
    for first in range(0, batches, len(side)):
        width = min(len(side), batches - first)
        for link in range(use.shape[1]):
            for lane in range(width):
                block[link, lane] = use[first + lane, link]
        best[:] = 0
        for source in range(devices):
            source_lanes(demand, first, width, source, rows, amount)
            for destination in range(devices):
                if source == destination:
                    continue
                pair = source * devices + destination
                busiest[:] = 0
                for e in range(ptr[pair], ptr[pair + 1]):
                    link = links[e]
                    for lane in range(len(side)):
                        busiest[lane] = max(busiest[lane], block[link, lane])
                add = offset[source, destination]
                for lane in range(len(side)):
                    if amount[destination, lane] > 0:
                        best[lane] = max(best[lane], busiest[lane] + add)
        for lane in range(width):
            worst[first + lane] = best[lane]
