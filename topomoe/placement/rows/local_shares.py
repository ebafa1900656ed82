"""Shares of slots that keep tokens in their row, under a limit on every device's load."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-9  # relative room that the second program leaves the solution of the first


def local_shares(
    slot_expert: NDArray[np.int32],
    demand: NDArray[np.float64],
    devices: int,
    columns: int,
    most: float,
) -> tuple[NDArray[np.float64], float]:
    """Return shares [S] of one layer's slots and the pairs that then leave their row.

    ``demand`` [R, E] is the pairs of each expert by the row where they start, ``most`` the load
    that a device may have. Of the shares with the lowest largest load, or any load up to ``most``,
    those that let most pairs stay in their row. Slot s takes x_s pairs of its own row and z_s of
    others; with D(e) the demand of e on all rows,

        minimise sum z  subject to  x, z >= 0,  sum over the slots of e of (x + z) = D(e),
        sum over the slots of e in row r of x <= demand[r, e],
        sum over the slots of a device of (x + z) <= the limit.

    Any x and z that meet this are a routing (the pairs that leave a row fill the z of other rows),
    so that the sum of z at the optimum is what a capacity-bounded dispatch in expectation needs.
    """
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, hstack, vstack

    slots, experts = slot_expert.size, demand.shape[1]
    per_device = slots // devices
    slot = np.arange(slots)
    one = np.ones(slots)

    def sums(of: NDArray[np.int64], count: int) -> Any:
        """Return the matrix [count, S] that adds up the slots of each index ``of`` [S]."""
        return csr_array((one, (of, slot)), shape=(count, slots))

    row_of = slot // (per_device * columns)
    cell, cell_of = np.unique(row_of * experts + slot_expert, return_inverse=True)
    by_expert, by_cell = sums(slot_expert.astype(np.int64), experts), sums(cell_of, len(cell))
    by_device = sums(slot // per_device, devices)
    whole: Any = hstack([by_expert, by_expert]).tocsr()
    of_device: Any = hstack([by_device, by_device]).tocsr()
    of_cell: Any = hstack([by_cell, csr_array(by_cell.shape)]).tocsr()
    level: Any = csr_array(-np.ones((devices, 1)))
    none: Any = csr_array((experts, 1))
    both: Any = vstack([of_device, of_cell]).tocsr()
    total, in_cell = demand.sum(axis=0), demand.reshape(-1)[cell]

    # The lowest limit that these slots allow: it needs no x.
    flat = linprog(
        np.append(np.zeros(slots), 1.0),
        A_ub=hstack([by_device, level]).tocsr(),
        b_ub=np.zeros(devices),
        A_eq=hstack([by_expert, none]).tocsr(),
        b_eq=total,
        method="highs",
    )
    # Any slots hold any loads at some limit.
    assert flat.x is not None
    assert flat.fun is not None
    limit = max(most, flat.fun * (1.0 + ROUNDING))
    found = linprog(
        np.append(np.zeros(slots), one),
        A_ub=both,
        b_ub=np.concatenate([np.full(devices, limit), in_cell]),
        A_eq=whole,
        b_eq=total,
        method="highs",
    )
    if (
        found.x is None or found.fun is None
    ):  # tolerances of the solver at a limit that no shares undercut
        load, leaving = np.maximum(flat.x[:slots], 0.0), float(total.sum())
    else:
        load = np.maximum(found.x[:slots] + found.x[slots:], 0.0)
        leaving = found.fun
    placed = by_expert @ load
    replicas = np.bincount(slot_expert, minlength=experts)
    share = 1.0 / replicas[slot_expert]  # of experts without load
    np.divide(load, placed[slot_expert], out=share, where=placed[slot_expert] > 0)
    return share, leaving
