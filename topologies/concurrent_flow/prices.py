"""Link prices: the lower bound that they prove, and the links that they make worth trying.

With any prices >= 0, a byte from s to d costs at least the distance from s to d under them, and in
T seconds the links sell at most T times price x capacity: T >= sum(demand x distance) / sum(price x
capacity), the dual of maximum concurrent flow (Shahrokhi and Matula, 1990). Prices of 1 give the
capacity bound.
"""

from __future__ import annotations

import numpy as np

from topomoe.topologies.concurrent_flow.program import Network
from topomoe.topologies.topology import BoolArray, FloatArray

# Added per link, in units of the mean price: of equally cheap paths the one of fewest links.
PER_HOP = 1e-3


def hop_distances(network: Network) -> FloatArray:
    """Return the fewest links from each node to each destination, [K, V]; infinite if no path."""
    return _distances(network, np.ones(len(network.links)))


def price_bound(network: Network, price: FloatArray) -> float:
    """Return the seconds [s] that prices [L] with sum(price x capacity) = 1 prove to be needed."""
    distance = _distances(network, price)
    wanted = network.demand > 0
    return float(network.demand[wanted] @ distance[wanted])


def priced_links(network: Network, price: FloatArray) -> BoolArray:
    """Return the links on cheapest paths to each destination, [K, L]; at price 0 the shortest."""
    cost = price * network.capacity.sum() + PER_HOP
    distance = _distances(network, cost)
    tail, head = network.links.T
    with np.errstate(invalid="ignore"):
        detour = distance[:, head] + cost - distance[:, tail]
    return np.asarray(detour <= 1e-6 * PER_HOP)


def _distances(network: Network, cost: FloatArray) -> FloatArray:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    tail, head = network.links.T
    reverse = csr_array((cost, (head, tail)), shape=(network.num_nodes,) * 2)
    return np.asarray(dijkstra(reverse, indices=network.destination), dtype=np.float64)
