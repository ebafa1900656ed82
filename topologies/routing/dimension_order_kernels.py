"""Compiled ring sums and ring maxima behind dimension-order routing.

Shapes: rows R, columns C; demand [B, R, C, R*C]; a value by place is [R, C] for links along a
column and [C, R] for links along a row, so that the last axis runs over parallel lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import nan_free_kernel
from topomoe.topologies.topology import FloatArray, IntArray

Array = NDArray[Any]
Ways = NDArray[np.int8]


@nan_free_kernel
def group_sums(row: Array, width: tuple[int, ...], out: Array) -> None:
    """Fill out [n] with the sums of each len(width) entries of row [n * len(width)].

    The width comes as a tuple so that it is known when the loop is compiled: five times faster.
    """
    for group in range(len(out)):
        total = row[group * len(width)]
        for c in range(1, len(width)):
            total += row[group * len(width) + c]
        out[group] = total


@nan_free_kernel
def marginals(
    demand: Array, width: tuple[int, ...], by_row: Array, by_column: Array, gather: Array
) -> None:
    """Fill by_row [R, R, C]: bytes from row i to i' in column j; by_column [C, C, R] likewise.

    demand [R, C, R*C]; width has C entries; gather [C, R*C] is scratch.
    """
    rows, columns, devices = demand.shape
    sums = np.empty((columns, rows), dtype=demand.dtype)
    gather[:] = 0
    for i in range(rows):
        for j in range(columns):
            for d in range(devices):
                gather[j, d] += demand[i, j, d]
            group_sums(demand[i, j], width, sums[j])
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
    width: tuple[int, ...],
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
    gather = np.zeros((columns, rows * columns), dtype=demand.dtype)
    up0 = np.zeros((rows, columns), dtype=demand.dtype)
    down0 = np.zeros((rows, columns), dtype=demand.dtype)
    up1 = np.zeros((columns, rows), dtype=demand.dtype)
    down1 = np.zeros((columns, rows), dtype=demand.dtype)
    for b in range(demand.shape[0]):
        marginals(demand[b], width, by_row, by_column, gather)
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
def scale_and_max(load: Array, inverse: Array) -> Any:
    """Multiply load by the inverse capacity in place; return the largest."""
    worst = load.dtype.type(0)
    for a in range(load.shape[0]):
        for line in range(load.shape[1]):
            load[a, line] *= inverse[a, line]
            worst = max(worst, load[a, line])
    return worst


@nan_free_kernel
def ring_time(
    demand: Array,
    width: tuple[int, ...],
    row_way: Ways,
    column_way: Ways,
    inverse_row_up: Array,
    inverse_row_down: Array,
    inverse_column_up: Array,
    inverse_column_down: Array,
    offset: Array,
    time: FloatArray,
) -> None:
    """Fill time [B]: max load/capacity or, with offset [N, N], max over pairs of worst + offset."""
    rows, columns = inverse_row_up.shape
    by_row = np.zeros((rows, rows, columns), dtype=demand.dtype)
    by_column = np.zeros((columns, columns, rows), dtype=demand.dtype)
    gather = np.zeros((columns, rows * columns), dtype=demand.dtype)
    up0 = np.zeros((rows, columns), dtype=demand.dtype)
    down0 = np.zeros((rows, columns), dtype=demand.dtype)
    up1 = np.zeros((columns, rows), dtype=demand.dtype)
    down1 = np.zeros((columns, rows), dtype=demand.dtype)
    worst_row = np.zeros((rows, rows, columns), dtype=demand.dtype)
    worst_column = np.zeros((columns, columns, rows), dtype=demand.dtype)
    for b in range(demand.shape[0]):
        marginals(demand[b], width, by_row, by_column, gather)
        line_load(row_way, by_row, up0, down0)
        line_load(column_way, by_column, up1, down1)
        worst = max(
            max(scale_and_max(up0, inverse_row_up), scale_and_max(down0, inverse_row_down)),
            max(scale_and_max(up1, inverse_column_up), scale_and_max(down1, inverse_column_down)),
        )
        if len(offset) == 0:
            time[b] = worst
            continue
        segment_max(row_way, up0, down0, worst_row)
        segment_max(column_way, up1, down1, worst_column)
        for j in range(columns):
            for k in range(rows):
                for c in range(columns):
                    gather[j, k * columns + c] = worst_column[j, c, k]
        worst = demand.dtype.type(0)
        for i in range(rows):
            for j in range(columns):
                for k in range(rows):
                    first = worst_row[i, k, j]
                    for c in range(len(width)):
                        d = k * columns + c
                        total = max(first, gather[j, d]) + offset[i * columns + j, d]
                        total = total if demand[b, i, j, d] > 0 else demand.dtype.type(0)
                        worst = max(worst, total)
        time[b] = worst
