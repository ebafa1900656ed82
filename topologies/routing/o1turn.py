"""O1TURN: half of each pair's traffic changes the row first, half the column first.

Seo et al., "Near-optimal worst-case throughput routing for two-dimensional mesh networks" (ISCA
2005): minimal, and on a k x k mesh the best there is for the worst demand where k is even, within
1/k^2 of it where k is odd.
"""

from __future__ import annotations

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.dimension_order import dimension_order
from topomoe.topologies.routing.dimension_order_tables import grid_shape
from topomoe.topologies.routing.mixture import MixtureRouting
from topomoe.topologies.topology import Topology


def o1turn(topology: Topology, tie: str = "balanced") -> MixtureRouting:
    """Return equal shares of both dimension orders on a mesh or torus of two dimensions.

    Deadlock-free with a set of virtual channels for each order: 2 on a mesh, 4 on a torus.
    """
    shape, _ = grid_shape(topology, "o1turn")
    if len(shape) != 2:
        raise InputError(f"o1turn needs two dimensions, {topology.name} has {len(shape)}")
    half = np.array(0.5)
    orders = [dimension_order(topology, tie, first) for first in ("rows", "columns")]
    return MixtureRouting("o1turn", [(order, half) for order in orders])
