"""The shares that minimise the worst device load over several loads, as a linear programme.

Given which slot holds which expert, with device loads A[n, d] = sum over slots s on n of
w[s] load[d, expert of s]:

    minimise  level + weight * sum_d above[d]
    subject to A[n, d] - offset[d] <= level + above[d],  above >= 0,
               w >= 0, the shares of each expert sum to 1.

A weight >= 1 makes this the worst device load over the loads (``above`` stays 0); a load that is
a mix of them has no worse one, as device loads are linear in the mix. With weight 1/(tail * D) it
is the mean of the worst tail (Rockafellar and Uryasev 2000, "Optimization of conditional
value-at-risk"). It is solved by a primal-dual interior point method (Mehrotra 1992) on the shares
that are free, S - E of them.

Any duals y[n, d] >= 0 that sum to 1, with sums over n of at most ``weight``, prove a bound: no
shares reach less than sum_e min over slots s of e of sum_d y[device of s, d] load[d, e]
- sum y offset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.shift.share_kernel import solve

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shares:
    """The solution for every layer, with its proof."""

    slot_share: Floats  # [M, S]
    value: Floats  # [M], the objective
    bound: Floats  # [M], no shares have a lower objective
    weights: Floats  # [M, D], the mix of loads (duals summed over devices) that proves the bound


def best_shares(
    slot_expert: NDArray[np.int32],
    loads: Floats,
    devices: int,
    weight: float = 1.0,
    offset: Floats | None = None,
    rtol: float = 1e-7,
) -> Shares:
    """Return the best shares for slots [M, S] under loads [D, M, E], each layer by itself.

    ``offset`` [D, M] is subtracted from every device load. ``rtol`` bounds value/bound - 1 where
    rounding allows.
    """
    domains, layers, _ = loads.shape
    share = np.empty(slot_expert.shape)
    value, bound = np.empty(layers), np.empty(layers)
    weights = np.empty((layers, domains))
    minus = np.zeros((domains, layers)) if offset is None else offset
    for m in range(layers):
        scale = max(float(loads[:, m].sum(axis=1).max()) / devices, 1e-300)
        value[m], bound[m] = solve(
            slot_expert[m],
            np.ascontiguousarray(loads[:, m].T) / scale,
            np.ascontiguousarray(minus[:, m]) / scale,
            devices,
            min(weight, 2.0),
            rtol,
            share[m],
            weights[m],
        )
        value[m] *= scale
        bound[m] *= scale
    return Shares(share, value, bound, weights)
