"""Maximum-weight b-matching: the circuits that carry the most demand directly.

With b transmit and b receive ports a device this is the transportation problem
max sum w x, sum_j x_ij <= b, sum_i x_ij <= b, 0 <= x <= 1, whose vertices are integral (its matrix
is totally unimodular), so that the simplex method gives an exact matching. Circuits that need a
port for both directions at each end make it an undirected b-matching, whose linear program has half
vertices on odd cycles (Edmonds 1965); branch and cut settles those.
"""

from __future__ import annotations

import numpy as np

from topomoe.topologies.topology import FloatArray, IntArray


def b_matching(
    demand: FloatArray, degree: int, bidirectional: bool = False, parallel: bool = False
) -> IntArray:
    """Return the circuits [X, 2] whose pairs have the largest total demand, exactly.

    demand [N, N] bytes. ``bidirectional`` counts what a pair sends both ways and lights both
    directions. ``parallel`` allows several circuits a pair, the k-th counting demand/k: the share
    of the pair's bytes that it takes off each of the others. No circuit is lit without demand.
    Weights below 1e-7 of the largest are within the solver's tolerance: such pairs take, heaviest
    first, the ports that the heavier ones leave.
    """
    weight = np.triu(demand + demand.T) if bidirectional else demand
    pair = np.argwhere(weight > 0)
    if len(pair) == 0:
        return np.empty((0, 2), dtype=np.int64)
    levels = degree if parallel else 1
    value = np.concatenate([weight[tuple(pair.T)] / (k + 1) for k in range(levels)])
    lit = _solve(np.tile(pair, (levels, 1)), value, len(demand), degree, bidirectional)
    chosen = np.tile(pair, (levels, 1))[lit]
    return np.concatenate([chosen, chosen[:, ::-1]]) if bidirectional else chosen


def _solve(
    pair: IntArray, value: FloatArray, devices: int, degree: int, undirected: bool
) -> IntArray:
    """Return which of ``pair`` [X, 2] to light; ``undirected`` ends share one port count."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    ends = pair if undirected else pair + np.array([0, devices])
    count = devices if undirected else 2 * devices
    variable = np.repeat(np.arange(len(pair)), 2)
    ports = csr_array((np.ones(len(variable)), (ends.reshape(-1), variable)), (count, len(pair)))
    found = milp(
        -value / value.max(),
        constraints=LinearConstraint(ports, -np.inf, degree),
        bounds=Bounds(0, 1),
        integrality=np.full(len(pair), int(undirected)),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise RuntimeError(f"b-matching: the solver stopped without a result: {found.message}")
    lit = found.x > 0.5
    free = degree - np.bincount(ends[lit].reshape(-1), minlength=count)
    for x in np.argsort(-value, kind="stable"):
        a, b = ends[x]
        if not lit[x] and free[a] > 0 and free[b] > 0:
            lit[x] = True
            free[a] -= 1
            free[b] -= 1
    return np.flatnonzero(lit)
