"""The demand that circuits are chosen for, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from topomoe.topologies.checked import MOST_BYTES, numbers
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import FloatArray


def demand_matrix(demand: Any, field: str = "demand") -> FloatArray:
    """Return a copy of demand [N, N] in bytes with an empty diagonal: self traffic is no flow.

    Raises InputError where it is not square, has fewer than two devices, or an entry off the
    diagonal is negative, infinite, NaN or above ``MOST_BYTES``.
    """
    matrix = numbers(demand, field).copy()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{field} must be square [N, N], got shape {matrix.shape}")
    if len(matrix) < 2:
        raise InputError(f"{field} must join at least 2 devices, got shape {matrix.shape}")
    np.fill_diagonal(matrix, 0.0)
    wrong = ~np.isfinite(matrix) | (matrix < 0)
    if wrong.any():
        source, destination = np.argwhere(wrong)[0]
        raise InputError(
            f"{field} must be finite and >= 0, device {source} to {destination} has "
            f"{matrix[source, destination]:g}"
        )
    if matrix.max() > MOST_BYTES:
        raise InputError(f"{field} must be <= {MOST_BYTES:g} bytes a pair, got {matrix.max():g}")
    return matrix
