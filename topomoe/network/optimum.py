"""The best possible time of a demand, and the bounds that come without solving for it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topomoe.network.bottleneck import checked_demand
from topomoe.network.capacity_bound import capacity_bound
from topomoe.network.node_cut import node_cut
from topomoe.network.place_cut import place_cut
from topomoe.topologies.concurrent_flow import solve
from topomoe.topologies.topology import Topology


def optimal(topology: Topology, demand: ArrayLike, cache: bool = True) -> Any:
    """Return seconds, or [B] for demand [B, N, N]: what the best routing of all takes, latency 0.

    The maximum-concurrent-flow linear program of ``topologies.concurrent_flow.solve``, which says
    what is raised and where ``cache`` keeps solved problems. Devices with links of their own to
    several nodes may relay. The diagonal is no flow.
    """
    batch = checked_demand(topology, demand)
    time = np.array([solve(topology, one, cache=cache).time for one in batch])
    return float(time[0]) if np.ndim(demand) == 2 else time


def bounds(topology: Topology, demand: ArrayLike, cache: bool = True) -> dict[str, Any]:
    """Return lower bounds on the seconds of a demand by name; ``optimal`` is the tightest."""
    return {
        "node_cut": node_cut(topology, demand),
        "place_cut": place_cut(topology, demand),
        "capacity_bound": capacity_bound(topology, demand),
        "optimal": optimal(topology, demand, cache=cache),
    }
