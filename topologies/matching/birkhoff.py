"""Birkhoff-von Neumann: a demand taken apart into matchings, lit for the shortest possible time.

Every matrix whose rows and columns all have one sum is a positive combination of permutations
(Birkhoff 1946), of at most (N-1)^2 + 1 of them (Marcus and Ree 1959). The demand is filled up to
such a matrix as in Solstice (Liu et al., CoNEXT 2015), first where there already is demand, and
matchings are looked for among its large entries before the small ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from topomoe.topologies.kernel import kernel
from topomoe.topologies.matching.schedule import Step
from topomoe.topologies.topology import BoolArray, FloatArray, IntArray

# Whole units to count demand in, so that subtraction is exact; sums stay below 2^53.
_UNITS = 2.0**44


def stuff(demand: IntArray) -> IntArray:
    """Return a matrix >= demand [N, N] whose rows and columns all sum to its largest sum."""
    full = demand.copy()
    total = int(max(full.sum(axis=0).max(), full.sum(axis=1).max()))
    row_slack, column_slack = total - full.sum(axis=1), total - full.sum(axis=0)
    for used in (True, False):
        for i, j in np.argwhere((demand > 0) == used).tolist():
            extra = min(row_slack[i], column_slack[j])
            full[i, j] += extra
            row_slack[i] -= extra
            column_slack[j] -= extra
    return full


def decompose(demand: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return successors [K, N] and weights [K] whose permutations sum to at least demand [N, N].

    A device that is its own successor idles. The weights sum to the largest row or column sum.
    Whole demands are taken apart exactly; others are rounded up by at most 2^-44 of that sum.
    """
    total = float(max(demand.sum(axis=0).max(), demand.sum(axis=1).max()))
    whole = total < 2.0**53 and bool(np.all(demand == np.rint(demand)))
    unit = 1.0 if whole else total / _UNITS
    if total == 0.0:
        return np.empty((0, len(demand)), dtype=np.int64), np.empty(0)
    full = stuff(np.ceil(demand / unit).astype(np.int64))
    devices = len(demand)
    successor = np.full(devices, -1, dtype=np.int64)
    successors = np.empty(((devices - 1) ** 2 + 1, devices), dtype=np.int64)
    weight = np.empty(len(successors), dtype=np.int64)
    count = _peel(full, successor, successors, weight)
    return successors[:count], weight[:count].astype(np.float64) * unit


def birkhoff(demand: FloatArray, rate: float, degree: int) -> Iterator[Step]:
    """Yield each matching, largest weight first, and its seconds; all ports of a device together.

    rate: bytes/s of one circuit. With ``degree`` ports a device lights that many parallel circuits
    to its one successor, which keeps the total at the bound max(row or column sum) / device rate.
    """
    successors, weight = decompose(demand)
    device = np.arange(len(demand))
    for k in np.argsort(-weight, kind="stable"):
        busy = successors[k] != device
        pairs = np.stack([device[busy], successors[k][busy]], axis=-1)
        yield np.repeat(pairs, degree, axis=0), float(weight[k]) / (degree * rate)


@kernel
def _peel(full: IntArray, successor: IntArray, successors: IntArray, weight: IntArray) -> int:
    """Take perfect matchings off ``full`` until it is empty; return how many.

    Entries below a threshold are passed over until no matching is left above it; then it halves.
    """
    devices = len(full)
    predecessor = np.full(devices, -1, dtype=np.int64)
    threshold = 1
    while threshold * 2 <= full.max():
        threshold *= 2
    count = 0
    while full[0].sum() > 0:
        complete = True
        for source in range(devices):
            if successor[source] < 0 and not _augment(
                full, threshold, source, successor, predecessor
            ):
                complete = False
                break
        if not complete:
            threshold //= 2
            continue
        smallest = full[0, successor[0]]
        for source in range(devices):
            smallest = min(smallest, full[source, successor[source]])
        successors[count] = successor
        weight[count] = smallest
        count += 1
        for source in range(devices):
            destination = successor[source]
            full[source, destination] -= smallest
            if full[source, destination] < threshold:
                successor[source] = -1
                predecessor[destination] = -1
    return count


@kernel
def _augment(
    full: IntArray,
    threshold: int,
    source: int,
    successor: IntArray,
    predecessor: IntArray,
) -> bool:
    """Give ``source`` a successor along an alternating path, found breadth first; or say no."""
    devices = len(full)
    seen: BoolArray = np.zeros(devices, dtype=np.bool_)
    came_from = np.empty(devices, dtype=np.int64)
    queue = np.empty(devices, dtype=np.int64)
    queue[0] = source
    head, tail = 0, 1
    while head < tail:
        at = queue[head]
        head += 1
        for destination in range(devices):
            if seen[destination] or full[at, destination] < threshold:
                continue
            seen[destination] = True
            came_from[destination] = at
            if predecessor[destination] >= 0:
                queue[tail] = predecessor[destination]
                tail += 1
                continue
            end = destination
            while True:
                start = came_from[end]
                following = successor[start]
                successor[start] = end
                predecessor[end] = start
                if start == source:
                    return True
                end = following
    return False
