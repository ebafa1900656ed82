"""The max-min model: every flow's completion time under fair sharing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from topomoe.network.bottleneck import check_routing, checked_demand, path_offset
from topomoe.network.fair_sharing import completion_times
from topomoe.topologies.checked import check_paths
from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import FloatArray, IntArray, Topology


@dataclass(frozen=True, eq=False)
class MaxMin:
    """Completion times of F flows in seconds, in the order of ``np.nonzero(demand)``."""

    fct: FloatArray
    """[F] seconds from the start of the collective; the path's latency is included."""
    source: IntArray
    """[F] sending device."""
    destination: IntArray
    """[F] receiving device."""

    @property
    def makespan(self) -> float:
        """Seconds until the last flow is done; 0 without flows."""
        return float(self.fct.max(initial=0.0))


def max_min(
    topology: Topology,
    routing: Routing,
    demand: ArrayLike,
    rtol: float = 0.0,
    mtu: float | str | None = None,
    capacity: ArrayLike | None = None,
) -> MaxMin:
    """Return when each pair's bytes have arrived if all flows share the links max-min fairly.

    demand [N, N] bytes; its diagonal is no flow. Each flow starts at its path's latency, with
    ``mtu`` (bytes) later by a packet's store-and-forward at every link but one; a pair split over
    several paths is one flow that takes its rate times the fraction of each link. ``rtol`` trades
    accuracy for speed; see ``completion_times``. ``capacity`` [L] bytes/s is what other traffic
    leaves of the links, by default all. Raises InputError for demand that is negative, of a wrong
    shape or between devices without a path.
    """
    check_routing(topology, routing)
    if np.ndim(demand) != 2:
        raise InputError(f"max_min takes one demand [N, N] at a time, got {np.ndim(demand)} axes")
    volume = checked_demand(topology, demand)[0].astype(np.float64)
    np.fill_diagonal(volume, 0.0)
    check_paths(topology.name, (volume > 0) & ~routing.reachable)
    source, destination = np.nonzero(volume)
    offset = path_offset(routing, mtu)
    path = routing.matrix.T.tocsr()[source * topology.num_devices + destination]
    fct = completion_times(
        topology.capacity if capacity is None else capacity,
        path.indptr,
        path.indices,
        volume[source, destination],
        0.0 if offset is None else offset[source, destination],
        path.data,
        rtol,
    )
    return MaxMin(fct, source, destination)
