"""Maximum concurrent flow: the least time in which any routing can move a demand, and its splits.

Shahrokhi and Matula, "The maximum concurrent flow problem" (J. ACM 37, 1990), as a linear program
with one commodity a destination: minimise T such that what leaves a node for destination d is what
enters it plus the node's own bytes for d, and no link carries more than T times its capacity. Flows
to one destination may mix, so adding up their sources loses nothing.

Most links are of no use to a destination. The program starts with the links on shortest paths and
adds those that its link prices find cheaper (column generation); the prices also prove how far it
still is from the optimum (see ``prices.py``). It ends when the two meet, if need be
with every link, so the result does not rest on which links were tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies.checked import check_paths
from topomoe.topologies.concurrent_flow import cache as cache_files
from topomoe.topologies.concurrent_flow.prices import hop_distances, price_bound, priced_links
from topomoe.topologies.concurrent_flow.program import Network, solve_program
from topomoe.topologies.concurrent_flow.tables import Tables, forwarding_tables
from topomoe.topologies.concurrent_flow.trees import fold_trees
from topomoe.topologies.errors import InputError
from topomoe.topologies.matching.demand import demand_matrix
from topomoe.topologies.topology import FloatArray, IntArray, Topology

VARIABLES = 3_000_000  # destinations x links above which an instance is refused
ROUNDS = 4  # additions of links to a program before all of them come in
MANY = 0.02  # of all links: where a second addition is this large, all come in
GAP = 1e-9  # relative distance from the proven bound at which no further link is tried


@dataclass(frozen=True, eq=False)
class ConcurrentFlow:
    """An optimal flow with the proof that it is one.

    ``time`` is attained by the flow, ``bound`` by no flow undercut. A demand [N, N] is moved in no
    less than sum(demand x distance) seconds, distance being the shortest path under ``price``,
    whatever the prices are as long as sum(price x capacity) = 1: that is ``bound``, but for
    rounding.

    Destinations are nodes of the topology's core: a device that hangs on one switch has the
    switch's tables (``trees.py``). The entries ``ptr[k]:ptr[k + 1]`` lead to
    ``destination[k]`` from every core node, tails in an order in which no entry leads back to an
    earlier one.
    """

    time: float  # seconds
    bound: float  # seconds
    load: FloatArray  # [L] bytes on each link
    price: FloatArray  # [L] 1/bytes
    destination: IntArray  # [K] nodes that demand goes to
    ptr: IntArray  # [K + 1]
    link: IntArray  # [X]
    fraction: FloatArray  # [X] of the bytes for the destination that pass the link's tail
    flow: FloatArray  # [X] bytes


def solve(topology: Topology, demand: ArrayLike, cache: bool = True) -> ConcurrentFlow:
    """Return the optimal flow for demand [N, N] bytes, whose diagonal is no flow; latency is 0.

    ``time`` and ``bound`` agree to about 1e-9 of their value. With ``cache``, a problem solved
    before is read from the folder ``TOPOMOE_CACHE`` (by default ``topomoe`` in the user's cache
    folder), under a hash of its links, capacities and demand. Raises InputError for a demand of
    another shape, negative or not finite, a demand without a path and a problem of more than
    ``VARIABLES`` destinations x links; RuntimeError where the solver ends without an optimum.
    """
    matrix = demand_matrix(demand)
    devices = topology.num_devices
    if matrix.shape != (devices, devices):
        raise InputError(
            f"demand must have shape [{devices}, {devices}] on {topology.name}, "
            f"got {list(matrix.shape)}"
        )
    check_paths(topology.name, (matrix > 0) & ~np.isfinite(topology.least_hops))
    if not cache:
        return _solve(topology, matrix)
    path = cache_files.path_of(topology, matrix)
    arrays = cache_files.read(path)
    if arrays is None:
        result = _solve(topology, matrix)
        cache_files.write(path, vars(result))
        return result
    scalars: dict[str, Any] = {name: float(arrays[name]) for name in ("time", "bound")}
    return ConcurrentFlow(**{**arrays, **scalars})


def _solve(topology: Topology, demand: FloatArray) -> ConcurrentFlow:
    trees = fold_trees(topology)
    core_demand, load = trees.fold(demand)
    destination = np.flatnonzero(core_demand.any(axis=0)).astype(np.int64)
    network = Network(
        links=topology.links[trees.core_links],
        capacity=topology.capacity[trees.core_links],
        num_nodes=topology.num_nodes,
        destination=destination,
        demand=np.ascontiguousarray(core_demand[:, destination].T),
    )
    variables = len(destination) * len(network.links)
    if variables > VARIABLES:
        raise InputError(
            f"{topology.name}: the optimum needs {len(destination)} destinations x "
            f"{len(network.links)} links = {variables:,} variables, more than {VARIABLES:,}"
        )
    use = load / topology.capacity
    busiest = int(use.argmax())
    bound = float(use[busiest])
    price = np.zeros(topology.num_links)
    price[busiest] = 1.0 / topology.capacity[busiest]
    tables = Tables.empty(len(network.links))
    if variables:
        tables, core_bound, core_price = _generate(network, bound)
        load[trees.core_links] = tables.load
        if core_bound > bound:
            bound = core_bound
            price[:] = 0.0
            price[trees.core_links] = core_price
    return ConcurrentFlow(
        time=float((load / topology.capacity).max()),
        bound=bound,
        load=load,
        price=price,
        destination=destination,
        ptr=tables.ptr,
        link=trees.core_links[tables.link],
        fraction=tables.fraction,
        flow=tables.flow,
    )


def _generate(network: Network, enough: float) -> tuple[Tables, float, FloatArray]:
    """Return tables, the best bound in seconds and the prices [L] that prove it.

    Stops too at tables that take no more than ``enough`` seconds.
    """
    hops = hop_distances(network)
    # Before any program: equal splits over shortest paths, and the same price for every link.
    allowed = priced_links(network, np.zeros(len(network.links)))
    flow, dual = np.zeros(allowed.shape), np.full(len(network.links), 1 / network.capacity.sum())
    bound, price = 0.0, dual
    programs = 0
    while True:
        tables = forwarding_tables(network, hops, flow)
        use = tables.load / network.capacity
        proven = price_bound(network, dual)
        if proven > bound:
            bound, price = proven, dual
        if use.max() <= max(bound, enough) * (1.0 + GAP) or (programs and allowed.all()):
            return tables, bound, price
        if programs:
            # The dual prices are often on one cut alone. With half of the price on all links as
            # busy as the busiest, the ways around the other cuts are found too.
            full = np.where(use >= 0.999 * use.max(), 1.0, 0.0)
            full /= full @ network.capacity
            wider = allowed | priced_links(network, dual) | priced_links(network, (dual + full) / 2)
            many = wider.sum() - allowed.sum() > MANY * allowed.size
            allowed = wider
            if programs > ROUNDS or (programs > 1 and many):
                allowed[:] = True
        flow, dual = solve_program(network, allowed, hops)
        programs += 1
