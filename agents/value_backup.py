"""One step of dynamic programming over all epochs and configurations at once, compiled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel

FloatArray = NDArray[np.float64]


@nan_free_kernel
def backup(
    value: FloatArray,
    switch: FloatArray,
    migration: FloatArray,
    outcome: FloatArray,
    paid_switch: FloatArray,
    paid_migration: FloatArray,
) -> FloatArray:
    """Return the cost of each epoch and what follows, [n, K], where the best switch is taken.

    From j the choice is the k of least ``value[i, k] + switch[j, k] + migration[i, j % P, k]``, the
    current one in a tie; it costs ``outcome[i, k] + paid_switch[j, k] + paid_migration[i, j % P,
    k]``.

    Args:
        value, outcome: [n, K], of the epoch and what follows under k, as believed and as it was.
        switch, paid_switch: [K, K].
        migration, paid_migration: [n, P, K], beside that, by the placement before.
    """
    rows, count = value.shape
    placements = migration.shape[1]
    result = np.empty((rows, count))
    move = np.empty(count)
    for row in range(rows):
        for old in range(count):
            placement = old % placements
            # Two short loops, a minimum and a search, are vectorised; one with both is not.
            least = np.inf
            for new in range(count):
                move[new] = value[row, new] + switch[old, new] + migration[row, placement, new]
                least = min(least, move[new])
            best = old
            if least < move[old]:
                best = 0
                while move[best] != least:
                    best += 1
            result[row, old] = (
                outcome[row, best] + paid_switch[old, best] + paid_migration[row, placement, best]
            )
    return result
