"""Which device each token of a batch starts on.

A batch is a run of pieces: single tokens in decode, contiguous parts of a request otherwise. Every
policy puts all of a piece on one device, but for ``uniform``, which draws each token's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORIGINS = ("uniform", "round-robin", "domain-affine", "clustered")

IntArray = NDArray[np.int64]


def uniform(tokens: int, num_devices: int, rng: np.random.Generator) -> NDArray[np.int32]:
    """Draw every token's device evenly, [T]."""
    return rng.integers(num_devices, size=tokens, dtype=np.int32)


def round_robin(piece: IntArray, num_devices: int) -> NDArray[np.int32]:
    """Deal pieces to devices in turn; ``piece`` [T] is each token's piece, counted from 0."""
    return (piece % num_devices).astype(np.int32)


def domain_affine(
    piece: IntArray, piece_domain: NDArray[np.int32], rows: IntArray, columns: int
) -> NDArray[np.int32]:
    """Deal each domain's pieces in turn to the devices of the domain's rows of the grid.

    ``piece`` [T] as above, ``piece_domain`` [pieces], ``rows`` [D, 2] as ``domain_rows`` gives
    them. Domains that share a row take turns on it.
    """
    first, count = rows[piece_domain].T
    order = np.argsort(first, kind="stable")
    ordered = first[order]
    turn = np.empty_like(order)
    turn[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    device = first * columns + turn % (count * columns)
    return np.asarray(device[piece], dtype=np.int32)


def by_row(
    piece: IntArray, preference: NDArray[np.int32], rows: int, columns: int
) -> NDArray[np.int32]:
    """Deal pieces to the devices of the rows that they prefer, every row with as many tokens.

    ``piece`` [T] as above, ``preference`` [pieces, H] rows of the grid, best first. A piece goes to
    the first of them that has room in the batch, else to the one with most room; there, to the
    device with the fewest tokens.
    """
    from topomoe.clustering.token_clusters_kernel import deal_by_row

    length = np.bincount(piece, minlength=len(preference))
    return deal_by_row(length, preference, rows, columns)[piece].astype(np.int32)


def domain_rows(mix: NDArray[np.float64], rows: int) -> IntArray:
    """Share out the rows of a grid to domains in proportion to ``mix`` [D]: (first, count), [D, 2].

    Every domain with any share gets at least one row; each further row goes to the domain with the
    largest share / (rows + 1/2) (Sainte-Lague). Where domains outnumber rows, each gets the one row
    in which the middle of its share falls.
    """
    share = mix / mix.sum()
    present = np.flatnonzero(mix > 0)
    table = np.tile(np.array([0, 1], dtype=np.int64), (len(mix), 1))
    if len(present) > rows:
        middle = np.cumsum(share) - share / 2
        table[:, 0] = np.minimum((middle * rows).astype(np.int64), rows - 1)
        return table
    count = np.ones(len(present), dtype=np.int64)
    for _ in range(rows - len(present)):
        count[np.argmax(share[present] / (count + 0.5))] += 1
    table[present] = np.stack([np.cumsum(count) - count, count], axis=1)
    return table
