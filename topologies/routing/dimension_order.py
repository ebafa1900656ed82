"""Dimension-order routing on a mesh or torus: along the column first (dimension 0), then the row.

Link loads are sums along rings of two marginals of the demand: what moves in each column from row
to row, and what moves in each row from column to column. No [L, N*N] matrix is formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.routing.dimension_order_kernels import ring_load, ring_time, segment_max
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import FloatArray, IntArray, Topology

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TIES = ("balanced", "plus")


@dataclass(frozen=True)
class GridLinks:
    """Link ids by place: each device (i, j) has at most one a direction; -1 where none."""

    row_up: IntArray  # [R, C] to row i + 1
    row_down: IntArray  # [R, C] to row i - 1
    column_up: IntArray  # [R, C] to column j + 1
    column_down: IntArray  # [R, C] to column j - 1


def directions(size: int, wraps: bool, tie: str) -> NDArray[np.int8]:
    """Return +1 or -1 for the way from a to b along a dimension, [size, size]; 0 where a = b.

    On a ring the short way; at distance size/2 ``balanced`` sends even a up and odd a down,
    ``plus`` always up.
    """
    a, b = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    if not wraps:
        return np.asarray(np.sign(b - a), dtype=np.int8)
    ahead = (b - a) % size
    up = 2 * ahead < size
    at_tie = 2 * ahead == size
    up |= at_tie & ((a % 2 == 0) | (tie == "plus"))
    return np.asarray(np.where(a == b, 0, np.where(up, 1, -1)), dtype=np.int8)


def dimension_order(topology: Topology, tie: str = "balanced") -> DimensionOrderRouting:
    """Return dimension-order routing; ``tie`` says which way pairs half a ring apart go."""
    if tie not in TIES:
        raise unknown("tie rule", tie, TIES)
    kind, grid = topology.parameters.get("kind"), topology.grid
    if kind not in ("mesh", "torus") or grid is None:
        raise InputError(f"dimension-order needs a mesh or torus topology, got {topology.name}")
    if topology.parameters["twist"]:
        raise InputError(f"dimension-order has no path over the twist of {topology.name}: use ecmp")
    return DimensionOrderRouting(topology, grid, kind == "torus", tie)


class DimensionOrderRouting(Routing):
    """One path a pair: rows first, then columns, whatever the sizes."""

    def __init__(self, topology: Topology, grid: tuple[int, int], wraps: bool, tie: str) -> None:
        """Find the links by place and the way each pair of rows and of columns goes."""
        super().__init__(topology, f"dimension-order-{tie}" if wraps else "dimension-order")
        rows, columns = self.grid = grid
        device = np.arange(rows * columns).reshape(rows, columns)
        self.links = GridLinks(
            *(
                topology.link_ids(device, np.roll(device, -step, axis=axis))
                for axis in (0, 1)
                for step in (1, -1)
            )
        )
        self.row_way = directions(rows, wraps, tie)
        self.column_way = directions(columns, wraps, tie)

    def _by_place(self, value: NDArray[Any]) -> tuple[NDArray[Any], ...]:
        """Return ``value[L]`` by place and direction: [R, C], columns [C, R]; 0 where none."""
        padded = np.append(value, value.dtype.type(0))
        links = self.links
        return (
            padded[links.row_up],
            padded[links.row_down],
            np.ascontiguousarray(padded[links.column_up].T),
            np.ascontiguousarray(padded[links.column_down].T),
        )

    def link_load(self, demand: NDArray[Any]) -> NDArray[Any]:
        """Return the bytes on each link, [B, L]."""
        rows, columns = self.grid
        links = self.links
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        ring_load(
            demand.reshape(len(demand), rows, columns, rows * columns),
            (0,) * columns,
            self.row_way,
            self.column_way,
            links.row_up,
            links.row_down,
            links.column_up,
            links.column_down,
            load,
        )
        return load

    def transfer_time(
        self,
        demand: NDArray[Any],
        offset: FloatArray | None = None,
        capacity: FloatArray | None = None,
    ) -> NDArray[np.float64]:
        """Return seconds [B]; see ``Routing.transfer_time``."""
        rows, columns = self.grid
        dtype = demand.dtype
        left = self.topology.capacity if capacity is None else capacity
        row_up, row_down, column_up, column_down = self._by_place((1.0 / left).astype(dtype))
        add = np.zeros((0, 0), dtype=dtype) if offset is None else offset.astype(dtype)
        time = np.zeros(len(demand))
        shaped = demand.reshape(len(demand), rows, columns, rows * columns)
        width = (0,) * columns
        ring_time(
            shaped,
            width,
            self.row_way,
            self.column_way,
            row_up,
            row_down,
            column_up,
            column_down,
            add,
            time,
        )
        return time

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over a pair's links, [N, N]; 0 on the diagonal."""
        rows, columns = self.grid
        row_up, row_down, column_up, column_down = self._by_place(value)
        along_column = np.zeros((rows, rows, columns), dtype=value.dtype)
        along_row = np.zeros((columns, columns, rows), dtype=value.dtype)
        segment_max(self.row_way, row_up, row_down, along_column)
        segment_max(self.column_way, column_up, column_down, along_row)
        first = along_column.transpose(0, 2, 1)[:, :, :, None]  # [i, j, i', 1]
        second = along_row.transpose(0, 2, 1)[None]  # [1, j, i', j']
        return np.maximum(first, second).reshape((self.topology.num_devices,) * 2)

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the sum of value over a pair's links, [N, N]."""
        row_up, row_down, column_up, column_down = self._by_place(value)
        first = _segment_sum(self.row_way, row_up, row_down).transpose(0, 2, 1)[:, :, :, None]
        second = _segment_sum(self.column_way, column_up, column_down).transpose(0, 2, 1)[None]
        return np.asarray((first + second).reshape((self.topology.num_devices,) * 2))

    @cached_property
    def matrix(self) -> csr_array[Any, Any]:
        """The fractions (all 1) as a sparse matrix [L, N*N]."""
        from scipy.sparse import csr_array

        rows, columns = self.grid
        devices = rows * columns
        device = np.arange(devices)
        source, destination = (x.reshape(-1) for x in np.meshgrid(device, device, indexing="ij"))
        at = np.stack([source // columns, source % columns])
        goal = np.stack([destination // columns, destination % columns])
        way = (
            self.row_way[at[0], goal[0]].astype(np.int64),
            self.column_way[at[1], goal[1]].astype(np.int64),
        )
        up = (self.links.row_up, self.links.column_up)
        down = (self.links.row_down, self.links.column_down)
        used, pairs = [], []
        for axis, size in ((0, rows), (1, columns)):
            moving = np.flatnonzero(at[axis] != goal[axis])
            while len(moving):
                i, j = at[:, moving]
                ahead = way[axis][moving] > 0
                used.append(np.where(ahead, up[axis][i, j], down[axis][i, j]))
                pairs.append(moving)
                at[axis, moving] = (at[axis, moving] + way[axis][moving]) % size
                moving = moving[at[axis, moving] != goal[axis, moving]]
        link = np.concatenate(used) if used else np.empty(0, dtype=np.int64)
        pair = np.concatenate(pairs) if pairs else np.empty(0, dtype=np.int64)
        shape = (self.topology.num_links, devices * devices)
        return csr_array((np.ones(len(link)), (link, pair)), shape=shape)


def _segment_sum(way: NDArray[np.int8], up: FloatArray, down: FloatArray) -> FloatArray:
    """Return the sum of the links' values from a to b, [size, size, lines]."""
    size = len(way)
    out = np.zeros((size, size, up.shape[1]))
    for sign, value in ((1, up), (-1, down)):
        at = np.arange(size)
        total = np.zeros((size, up.shape[1]))
        for _ in range(size - 1):
            total = total + value[at]
            at = (at + sign) % size
            reached = way[np.arange(size), at] == sign
            out[np.arange(size)[reached], at[reached]] = total[reached]
    return out
