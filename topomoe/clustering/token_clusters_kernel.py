"""Compiled parts of token clustering: overlaps with centroids, and assignment in order of time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel


@kernel
def overlaps(
    experts: NDArray[np.int16], positions: NDArray[np.int64], member: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Return how many picks of each position the centroids hold, [n, C].

    experts [M, P, K]; positions [n]; member [M, E, C], 1 where centroid c holds e in layer m.
    """
    out = np.zeros((positions.size, member.shape[2]), dtype=np.int32)
    for m in range(experts.shape[0]):
        for i in range(positions.size):
            for k in range(experts.shape[2]):
                expert = experts[m, positions[i], k]
                if expert < 0:
                    break
                held = member[m, expert]
                for c in range(held.size):
                    out[i, c] += held[c]
    return out


@kernel
def pick_counts(
    experts: NDArray[np.int16],
    positions: NDArray[np.int64],
    label: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Add the picks of the positions [n] with a label [n] >= 0 to counts [C, M, E]."""
    for m in range(experts.shape[0]):
        for i in range(positions.size):
            if label[i] >= 0:
                for k in range(experts.shape[2]):
                    expert = experts[m, positions[i], k]
                    if expert < 0:
                        break
                    counts[label[i], m, expert] += 1


@kernel
def assign_in_order(
    overlap: NDArray[np.int32],
    request_start: NDArray[np.int64],
    first: NDArray[np.int64],
    causal: bool,
    pin_after: int,
    capacity: int,
) -> NDArray[np.int64]:
    """Return the cluster of every position, [P], from overlap [P, C] of its request so far.

    A position without history takes ``first`` [Q] of its request. Not ``causal``: its own picks
    alone count. ``pin_after`` n >= 0: only the first n positions count, and the ones before the
    n-th take ``first``. A cluster takes at most ``capacity`` positions, the earliest ones; the rest
    take their next best with room.
    """
    positions, clusters = overlap.shape
    out = np.empty(positions, dtype=np.int64)
    room = np.full(clusters, capacity)
    history = np.empty(clusters, dtype=np.int64)
    for request in range(request_start.size - 1):
        history[:] = 0
        for p in range(request_start[request], request_start[request + 1]):
            age = p - request_start[request]
            # Before it has a history, all others are equally far behind the first choice.
            seen = age > 0 and age >= pin_after
            best, most = -1, -1
            for c in range(clusters):
                if room[c] == 0:
                    continue
                if not causal:
                    score = int(overlap[p, c])
                elif seen:
                    score = int(history[c])
                else:
                    score = 1 if c == first[request] else 0
                if score > most:
                    best, most = c, score
            out[p] = best
            room[best] -= 1
            if pin_after < 0 or age < pin_after:
                for c in range(clusters):
                    history[c] += overlap[p, c]
    return out


@kernel
def deal_by_row(
    length: NDArray[np.int64], preference: NDArray[np.int32], rows: int, columns: int
) -> NDArray[np.int64]:
    """Return the device of each piece [n]: in the first of its rows [n, H] that has room.

    The T tokens, ``length`` [n] >= 1 a piece, are shared evenly over rows: a row has room while
    half of the piece fits its part, and where none of a piece's rows has, it goes to the one with
    most. Within a row it goes to the device with the fewest tokens.
    """
    tokens = length.sum()
    room = np.empty(rows, dtype=np.int64)
    for row in range(rows):
        room[row] = tokens * (row + 1) // rows - tokens * row // rows
    held = np.zeros(rows * columns, dtype=np.int64)
    out = np.empty(length.size, dtype=np.int64)
    for i in range(length.size):
        row = int(np.argmax(room))
        for wanted in preference[i]:
            if 2 * room[wanted] >= length[i]:
                row = int(wanted)
                break
        device = row * columns + int(np.argmin(held[row * columns : (row + 1) * columns]))
        room[row] -= length[i]
        held[device] += length[i]
        out[i] = device
    return out
