"""The linear program of maximum concurrent flow, handed to HiGHS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from topomoe.topologies.topology import BoolArray, FloatArray, IntArray

# Feasibility in units of the mean demand of a destination's sources: well under what is promised
# of the time, which is computed from the repaired flow and not from the solver's own objective.
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Network:
    """Links, capacities and the demand by destination: what the program is made of."""

    links: IntArray  # [L, 2] from node, to node
    capacity: FloatArray  # [L] bytes/s
    num_nodes: int
    destination: IntArray  # [K] nodes
    demand: FloatArray  # [K, V] bytes for each destination at each node


def solve_program(
    network: Network, allowed: BoolArray, hops: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return flow [K, L] in bytes over the ``allowed`` [K, L] links, and link prices [L].

    hops [K, V]: links to the destination, infinite from where there is no path. Prices are
    the dual variables of the links' rows, >= 0, with sum(price x capacity) = 1. Raises RuntimeError
    where HiGHS does not end at an optimum.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array

    links, nodes = len(network.links), network.num_nodes
    tail, head = network.links.T
    # Demand and capacity of order 1, whatever their units: solver tolerances are absolute.
    byte = network.demand.sum() / np.count_nonzero(network.demand)
    capacity = network.capacity / network.capacity.max()
    usable = allowed & np.isfinite(hops[:, head]) & (tail != network.destination[:, None])
    to, link = np.nonzero(usable)
    count = len(link)
    column = np.arange(count)
    balance: Any = csr_array(
        (
            np.repeat([1.0, -1.0], count),
            (
                np.concatenate([to * nodes + tail[link], to * nodes + head[link]]),
                np.concatenate([column, column]),
            ),
        ),
        shape=(len(hops) * nodes, count + 1),
    )
    inner = np.isfinite(hops) & (hops > 0)
    room: Any = csr_array(
        (
            np.concatenate([np.ones(count), -capacity]),
            (
                np.concatenate([link, np.arange(links)]),
                np.concatenate([column, np.full(links, count)]),
            ),
        ),
        shape=(links, count + 1),
    )
    cost = np.zeros(count + 1)
    cost[count] = 1.0
    # Interior point with crossover: dual simplex is faster where a node cut is tight, but takes
    # minutes on demands without a structure.
    result: Any = linprog(
        cost,
        A_ub=room,
        b_ub=np.zeros(links),
        A_eq=balance[inner.reshape(-1)],
        b_eq=(network.demand / byte)[inner],
        method="highs-ipm",
        options={
            "primal_feasibility_tolerance": TOLERANCE,
            "dual_feasibility_tolerance": TOLERANCE,
        },
    )
    if result.status != 0:
        raise RuntimeError(f"HiGHS found no optimal concurrent flow: {result.message}")
    flow = np.zeros(usable.shape)
    flow[usable] = np.maximum(result.x[:count], 0.0) * byte
    price = np.maximum(-result.ineqlin.marginals, 0.0)
    return flow, price / (price @ network.capacity)
