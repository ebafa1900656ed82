"""Plan over forecast epochs: what each configuration leads to, with later switches in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel

FloatArray = NDArray[np.float64]


@nan_free_kernel
def lookahead(stage: FloatArray, price: FloatArray) -> FloatArray:
    """Return the least forecast cost of all stages for each configuration in the first, [n, K].

    Dynamic programming backwards: V_g[k] = stage[g, k] + min_j (price[k, j] + V_{g+1}[j]).

    Args:
        stage: float64 [n, G, K], forecast cost of G stages of one or more epochs.
        price: float64 [K, K], of switching between stages; zero diagonal.
    """
    rows, stages, count = stage.shape
    out = np.empty((rows, count))
    reach = np.empty(count)
    # Rows of the transpose, so that the innermost loop runs along memory.
    into = price.T.copy()
    for row in range(rows):
        value = out[row]
        value[:] = stage[row, stages - 1]
        for g in range(stages - 2, -1, -1):
            reach[:] = value
            for j in range(count):
                for k in range(count):
                    reach[k] = min(reach[k], into[j, k] + value[j])
            for k in range(count):
                value[k] = stage[row, g, k] + reach[k]
    return out
