"""Demands side by side: 16 at a time, so that a loop over links works on whole vectors.

The number of lanes comes as a tuple of that length, so that it is known when a loop is compiled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel

Lanes = tuple[int, ...]
LANES = 16  # demands swept together: one cache line of float32
_MOST_DEVICES = 1024  # beyond, 16 demands side by side take hundreds of megabytes


def lanes_for(demand: NDArray[Any]) -> Lanes:
    """Return how many demands of [B, N, N] to sweep together: 16, or 1 if few or very large."""
    few = len(demand) < 3 or demand.shape[1] > _MOST_DEVICES
    return (0,) if few else (0,) * LANES


@nan_free_kernel
def source_lanes(
    demand: NDArray[Any], first: int, width: int, source: int, rows: NDArray[Any], out: NDArray[Any]
) -> None:
    """Fill out [N, lanes] with ``source``'s rows of the demands [B, N, N] from ``first`` on.

    The rows pass through ``rows`` [lanes, N + 16], padded so that no two fall on the same cache
    lines: several times as fast as gathering across demands.
    """
    devices = demand.shape[1]
    for lane in range(width):
        for destination in range(devices):
            rows[lane, destination] = demand[first + lane, source, destination]
    for destination in range(devices):
        for lane in range(out.shape[1]):
            out[destination, lane] = rows[lane, destination]


@nan_free_kernel
def lane_rows(demand: NDArray[Any], side: Lanes) -> NDArray[Any]:
    """Return the scratch that ``source_lanes`` needs; lanes without a demand stay 0."""
    return np.zeros((len(side), demand.shape[1] + 16), dtype=demand.dtype)
