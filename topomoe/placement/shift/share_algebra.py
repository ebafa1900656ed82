"""The rows of the share programme as an operator, and the dense solution of their normal equations.

Rows: devices x domains, then shares >= 0 of free slots, then of base slots, then above >= 0.
Columns: free slots, the level, one ``above`` a domain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

Floats = NDArray[np.float64]


@kernel
def transposed(
    out: Floats,
    dual: Floats,
    start: NDArray[np.int64],
    touch: NDArray[np.int64],
    sign: Floats,
    free: NDArray[np.int64],
    slot_expert: NDArray[np.int32],
    load: Floats,
    devices: int,
    experts: int,
) -> None:
    """Add the transposed rows times ``dual`` to ``out``."""
    domains, number = load.shape[1], free_count(start)
    rows = devices * domains
    for n in range(devices):
        here = dual[n * domains : (n + 1) * domains]
        for p in range(start[n], start[n + 1]):
            expert = slot_expert[free[touch[p]]]
            out[touch[p]] += sign[p] * (here * load[expert]).sum()
        out[number] -= here.sum()
        out[number + 1 :] -= here
    for v in range(number):
        expert = slot_expert[free[v]]
        out[v] += dual[rows + number + expert] - dual[rows + v]
    out[number + 1 :] -= dual[rows + number + experts :]


@kernel
def free_count(start: NDArray[np.int64]) -> int:
    """Return the free variables: each touches two devices, or one of them twice."""
    return int(start[-1]) // 2


@kernel
def apply(
    change_slack: Floats,  # written: minus the rows times ``x``
    x: Floats,
    start: NDArray[np.int64],
    touch: NDArray[np.int64],
    sign: Floats,
    free: NDArray[np.int64],
    slot_expert: NDArray[np.int32],
    load: Floats,
    devices: int,
    experts: int,
) -> None:
    """Write how the slacks change with ``x``: minus the rows times it."""
    domains, number = load.shape[1], free_count(start)
    rows = devices * domains
    for n in range(devices):
        here = change_slack[n * domains : (n + 1) * domains]
        here[:] = x[number] + x[number + 1 :]
        for p in range(start[n], start[n + 1]):
            here -= sign[p] * x[touch[p]] * load[slot_expert[free[touch[p]]]]
    change_slack[rows + number : rows + number + experts] = 0.0
    for v in range(number):
        change_slack[rows + v] = x[v]
        change_slack[rows + number + slot_expert[free[v]]] -= x[v]
    change_slack[rows + number + experts :] = x[number + 1 :]


@kernel
def assemble(
    hessian: Floats,  # written, lower half
    theta: Floats,
    start: NDArray[np.int64],
    touch: NDArray[np.int64],
    sign: Floats,
    free: NDArray[np.int64],
    slot_expert: NDArray[np.int32],
    load: Floats,
    devices: int,
    experts: int,
) -> None:
    """Write rows' * theta * rows."""
    domains, number = load.shape[1], free_count(start)
    rows = devices * domains
    hessian[:] = 0.0
    for n in range(devices):
        here = theta[n * domains : (n + 1) * domains]
        for p in range(start[n], start[n + 1]):
            i, expert = touch[p], slot_expert[free[touch[p]]]
            priced = sign[p] * here * load[expert]
            hessian[number, i] -= priced.sum()
            hessian[number + 1 :, i] -= priced
            for q in range(start[n], start[n + 1]):
                j = touch[q]
                if j <= i:
                    other = load[slot_expert[free[j]]]
                    hessian[i, j] += sign[q] * (priced * other).sum()
        hessian[number, number] += here.sum()
        hessian[number + 1 :, number] += here
        for d in range(domains):
            hessian[number + 1 + d, number + 1 + d] += here[d]
    for v in range(number):
        hessian[v, v] += theta[rows + v]
        expert = slot_expert[free[v]]
        for other in range(v + 1):
            if slot_expert[free[other]] == expert:
                hessian[v, other] += theta[rows + number + expert]
    for d in range(domains):
        at = number + 1 + d
        hessian[at, at] += theta[rows + number + experts + d]


@kernel
def factor(matrix: Floats) -> bool:
    """Replace the lower half by its Cholesky factor; False where rounding makes it fail."""
    size = matrix.shape[0]
    for i in range(size):
        for j in range(i):
            row, above = matrix[i, :j], matrix[j, :j]
            matrix[i, j] = (matrix[i, j] - (row * above).sum()) / matrix[j, j]
        own = matrix[i, :i]
        pivot = matrix[i, i] * (1.0 + 1e-13) - (own * own).sum()
        if not pivot > 0.0:
            return False
        matrix[i, i] = np.sqrt(pivot)
    return True


@kernel
def substitute(factor: Floats, right: Floats) -> None:
    """Solve factor factor' x = right in place."""
    size = right.size
    for i in range(size):
        right[i] = (right[i] - (factor[i, :i] * right[:i]).sum()) / factor[i, i]
    for i in range(size - 1, -1, -1):
        right[i] /= factor[i, i]
        right[:i] -= factor[i, :i] * right[i]
