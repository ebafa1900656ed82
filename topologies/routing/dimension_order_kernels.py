"""Compiled ring sums and ring maxima behind dimension-order routing.

Shapes: rows R, columns C; demand [B, R, C, R*C]; a value by place is [R, C] for links along a
column and [C, R] for links along a row, so that the last axis runs over parallel lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel
from topomoe.topologies.topology import IntArray

Array = NDArray[Any]
Ways = NDArray[np.int8]


@nan_free_kernel
def group_sums(row: Array, width: int, out: Array) -> None:
    """Fill out [n] with the sums of each ``width`` entries of row [n * width].

    Loops of a length known when they are compiled are up to twice as fast on short groups.
    """
    if width == 8:
        for group in range(len(out)):
            total = row[group * 8]
            for c in range(1, 8):
                total += row[group * 8 + c]
            out[group] = total
    elif width == 4:
        for group in range(len(out)):
            total = row[group * 4]
            for c in range(1, 4):
                total += row[group * 4 + c]
            out[group] = total
    else:
        for group in range(len(out)):
            total = row.dtype.type(0)
            for c in range(width):
                total += row[group * width + c]
            out[group] = total


@nan_free_kernel
def marginals(
    demand: Array, columns_first: bool, by_row: Array, by_column: Array, gather: Array
) -> None:
    """Fill by_row [R, R, C]: bytes from row i to i' in column j; by_column [C, C, R] likewise.

    demand [R, C, R*C]; gather [max(R, C), R*C] is scratch. Rows first, a pair changes row in its
    source's column and column in its destination's row; columns first the other way round.
    """
    rows, columns, devices = demand.shape
    gather[:] = 0
    if columns_first:
        sums = np.empty((rows, columns), dtype=demand.dtype)
        for i in range(rows):
            for j in range(columns):
                for d in range(devices):
                    gather[i, d] += demand[i, j, d]
                sums[i] = 0
                for k in range(rows):
                    for c in range(columns):
                        sums[i, c] += demand[i, j, k * columns + c]
                for c in range(columns):
                    by_column[j, c, i] = sums[i, c]
            for k in range(rows):
                for c in range(columns):
                    by_row[i, k, c] = gather[i, k * columns + c]
        return
    sums = np.empty((columns, rows), dtype=demand.dtype)
    for i in range(rows):
        for j in range(columns):
            for d in range(devices):
                gather[j, d] += demand[i, j, d]
            group_sums(demand[i, j], columns, sums[j])
        for k in range(rows):
            for j in range(columns):
                by_row[i, k, j] = sums[j, k]
    for j in range(columns):
        for k in range(rows):
            for c in range(columns):
                by_column[j, c, k] = gather[j, k * columns + c]


@nan_free_kernel
def line_load(way: Ways, moved: Array, up: Array, down: Array) -> None:
    """Add to up, down [size, lines] the bytes ``moved`` [size, size, lines] on each link out."""
    size, lines = moved.shape[0], moved.shape[2]
    up[:] = 0
    down[:] = 0
    for a in range(size):
        for b in range(size):
            at = a
            if way[a, b] > 0:
                while at != b:
                    for line in range(lines):
                        up[at, line] += moved[a, b, line]
                    at = at + 1 if at + 1 < size else 0
            elif way[a, b] < 0:
                while at != b:
                    for line in range(lines):
                        down[at, line] += moved[a, b, line]
                    at = at - 1 if at > 0 else size - 1


@nan_free_kernel
def segment_max(way: Ways, up: Array, down: Array, out: Array) -> None:
    """Fill out [size, size, lines] with the largest link value on the way from a to b."""
    size, lines = up.shape
    for a in range(size):
        at = a
        for _ in range(size - 1):
            after = at + 1 if at + 1 < size else 0
            if way[a, after] <= 0:
                break
            for line in range(lines):
                out[a, after, line] = max(out[a, at, line], up[at, line])
            at = after
        at = a
        for _ in range(size - 1):
            after = at - 1 if at > 0 else size - 1
            if way[a, after] >= 0:
                break
            for line in range(lines):
                out[a, after, line] = max(out[a, at, line], down[at, line])
            at = after


@nan_free_kernel
def ring_load(
    demand: Array,
    columns_first: bool,
    row_way: Ways,
    column_way: Ways,
    row_up: IntArray,
    row_down: IntArray,
    column_up: IntArray,
    column_down: IntArray,
    load: Array,
) -> None:
    """Fill load [B, L]; the link ids by place are [R, C]."""
    rows, columns = row_up.shape
    by_row = np.zeros((rows, rows, columns), dtype=demand.dtype)
    by_column = np.zeros((columns, columns, rows), dtype=demand.dtype)
    gather = np.zeros((max(rows, columns), rows * columns), dtype=demand.dtype)
    up0 = np.zeros((rows, columns), dtype=demand.dtype)
    down0 = np.zeros((rows, columns), dtype=demand.dtype)
    up1 = np.zeros((columns, rows), dtype=demand.dtype)
    down1 = np.zeros((columns, rows), dtype=demand.dtype)
    for b in range(demand.shape[0]):
        marginals(demand[b], columns_first, by_row, by_column, gather)
        line_load(row_way, by_row, up0, down0)
        line_load(column_way, by_column, up1, down1)
        for i in range(rows):
            for j in range(columns):
                # += because in a ring of two both ways are the same link, one of them unused
                if row_up[i, j] >= 0:
                    load[b, row_up[i, j]] += up0[i, j]
                if row_down[i, j] >= 0:
                    load[b, row_down[i, j]] += down0[i, j]
                if column_up[i, j] >= 0:
                    load[b, column_up[i, j]] += up1[j, i]
                if column_down[i, j] >= 0:
                    load[b, column_down[i, j]] += down1[j, i]


@nan_free_kernel
def worst_rows_first(
    demand: Array, worst_row: Array, worst_column: Array, gather: Array, offset: Array
) -> Any:
    """Return the largest over pairs with demand [R, C, N] of the worst of both ways + offset.

    On the diagonal both are 0 and so must be the offset.
    """
    rows, columns, devices = demand.shape
    for j in range(columns):
        for k in range(rows):
            for c in range(columns):
                gather[j, k * columns + c] = worst_column[j, c, k]
    first = np.empty(devices, dtype=demand.dtype)
    zero = demand.dtype.type(0)
    worst = zero
    for i in range(rows):
        for j in range(columns):
            for k in range(rows):
                for c in range(columns):
                    first[k * columns + c] = worst_row[i, k, j]
            for d in range(devices):
                total = max(first[d], gather[j, d]) + offset[i * columns + j, d]
                worst = max(worst, total if demand[i, j, d] > 0 else zero)
    return worst


@nan_free_kernel
def worst_columns_first(demand: Array, worst_row: Array, worst_column: Array, offset: Array) -> Any:
    """Return the same where each pair moves along its source's row, then down a column."""
    rows, columns = demand.shape[:2]
    zero = demand.dtype.type(0)
    first = np.empty(columns, dtype=demand.dtype)
    worst = zero
    for i in range(rows):
        for j in range(columns):
            for c in range(columns):
                first[c] = worst_column[j, c, i]
            for k in range(rows):
                for c in range(columns):
                    d = k * columns + c
                    total = max(first[c], worst_row[i, k, c]) + offset[i * columns + j, d]
                    total = total if demand[i, j, d] > 0 else zero
                    worst = max(worst, total)
    return worst


@nan_free_kernel
def ring_worst(
    demand: Array,
    columns_first: bool,
    row_way: Ways,
    column_way: Ways,
    row_up: IntArray,
    row_down: IntArray,
    column_up: IntArray,
    column_down: IntArray,
    use: Array,
    offset: Array,
    worst: Array,
) -> None:
    """Fill worst [B]: over pairs with demand, the largest ``use`` [B, L] on the way + offset."""
    rows, columns = row_up.shape
    up0 = np.zeros((rows, columns), dtype=demand.dtype)
    down0 = np.zeros((rows, columns), dtype=demand.dtype)
    up1 = np.zeros((columns, rows), dtype=demand.dtype)
    down1 = np.zeros((columns, rows), dtype=demand.dtype)
    worst_row = np.zeros((rows, rows, columns), dtype=demand.dtype)
    worst_column = np.zeros((columns, columns, rows), dtype=demand.dtype)
    gather = np.zeros((columns, rows * columns), dtype=demand.dtype)
    for b in range(len(demand)):
        for i in range(rows):
            for j in range(columns):
                if row_up[i, j] >= 0:
                    up0[i, j] = use[b, row_up[i, j]]
                if row_down[i, j] >= 0:
                    down0[i, j] = use[b, row_down[i, j]]
                if column_up[i, j] >= 0:
                    up1[j, i] = use[b, column_up[i, j]]
                if column_down[i, j] >= 0:
                    down1[j, i] = use[b, column_down[i, j]]
        segment_max(row_way, up0, down0, worst_row)
        segment_max(column_way, up1, down1, worst_column)
        if columns_first:
            worst[b] = worst_columns_first(demand[b], worst_row, worst_column, offset)
        else:
            worst[b] = worst_rows_first(demand[b], worst_row, worst_column, gather, offset)
