"""Compiled group sums and maxima behind routing on trees of switches.

A tier's links are kept as cells: ``group`` [tiers, N] is the first cell of a device's group and
``choice`` [tiers, N] which of the group's cells traffic to (up) or from above (down) a device uses.
Tier 0 has one group a device; groups of a tier are runs of devices and nest in the next tier's.
Where all links of a group are one cell (``shared``), choices are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel

Array = NDArray[Any]
Cells = NDArray[np.int32]


@nan_free_kernel
def _leave(
    sums: Array,
    arriving: Array,
    up: Array,
    group: Cells,
    choice: Cells,
    shared: bool,
    tier: int,
    here: int,
) -> None:
    """Move what the group ``here`` of a tier sends, sums[tier], on to the next; clear it."""
    tiers, devices = group.shape
    sent, reached, of, chosen = sums[tier], arriving[tier], group[tier], choice[tier]
    zero = sums.dtype.type(0)
    if tier == 1:
        for d in range(devices):
            arriving[0, d] += sent[d]
    total = zero
    for d in range(devices):
        sent[d] = sent[d] if of[d] != here else zero
        reached[d] += sent[d]
        total += sent[d]
    if shared:
        up[here] += total
    else:
        for d in range(devices):
            up[here + chosen[d]] += sent[d]
    if tier + 1 < tiers:
        for d in range(devices):
            sums[tier + 1, d] += sent[d]
    sent[:] = 0


@nan_free_kernel
def group_loads(
    demand: Array, group: Cells, choice: Cells, shared: bool, up: Array, down: Array
) -> None:
    """Add to up, down [B, cells] the bytes out of and into groups, for demand [B, N, N].

    Rows are added up once; each tier then starts from the sums of the tier below.
    """
    tiers, devices = group.shape
    sums = np.zeros((tiers, devices), dtype=demand.dtype)  # bytes the group at hand sends, by tier
    arriving = np.zeros((tiers, devices), dtype=demand.dtype)
    zero = demand.dtype.type(0)
    for b in range(len(demand)):
        arriving[:] = 0
        for source in range(devices):
            row, below = demand[b, source], sums[1]
            total = zero
            for d in range(devices):
                amount = row[d] if d != source else zero
                below[d] += amount
                total += amount
            up[b, group[0, source]] += total
            for t in range(1, tiers):
                here = group[t, source]
                if source + 1 < devices and group[t, source + 1] == here:
                    break
                _leave(sums, arriving, up[b], group, choice, shared, t, here)
        for t in range(tiers):
            for d in range(devices):
                down[b, group[t, d] + choice[t, d]] += arriving[t, d]


@nan_free_kernel
def worst_pairs(
    up: Array,
    down: Array,
    group: Cells,
    choice: Cells,
    shared: bool,
    demand: Array,
    offset: Array,
    worst: Array,
) -> None:
    """Fill worst [B]: over pairs with demand, the largest of their cells' values + offset [N, N].

    Devices of one switch share all but their own link: what lies between is found once for them.
    """
    tiers, devices = group.shape
    zero = demand.dtype.type(0)
    arriving = np.zeros((tiers, devices), dtype=demand.dtype)
    leaving = np.zeros(devices, dtype=demand.dtype)
    beyond = np.zeros(devices, dtype=demand.dtype)
    for b in range(len(demand)):
        for t in range(tiers):
            for d in range(devices):
                arriving[t, d] = down[b, group[t, d] + choice[t, d]]
        best = zero
        for source in range(devices):
            if source == 0 or group[1, source] != group[1, source - 1]:
                beyond[:] = arriving[0]
                for t in range(1, tiers):
                    of, into, here = group[t], arriving[t], group[t, source]
                    if shared:
                        leaving[:] = up[b, here]
                    else:
                        for d in range(devices):
                            leaving[d] = up[b, here + choice[t, d]]
                    for d in range(devices):
                        use = max(leaving[d], into[d])
                        use = use if of[d] != here else zero
                        beyond[d] = max(beyond[d], use)
            first = up[b, group[0, source]]
            row, add = demand[b, source], offset[source]
            for d in range(devices):
                total = max(first, beyond[d]) + add[d]
                total = total if row[d] > 0 and d != source else zero
                best = max(best, total)
        worst[b] = best
