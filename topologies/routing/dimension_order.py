"""Dimension-order routing on a mesh or torus: one dimension after the other, the short way.

In two dimensions link loads are sums along rings of two marginals of the demand: what moves in each
column from row to row, and what moves in each row from column to column. No [L, N*N] matrix is
formed. More dimensions go through next-hop tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.routing.dimension_order_kernels import (
    Ways,
    ring_load,
    ring_worst,
    segment_max,
)
from topomoe.topologies.routing.dimension_order_tables import (
    dimension_order_tables,
    directions,
    grid_shape,
)
from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import FloatArray, IntArray, Topology

if TYPE_CHECKING:
    from scipy.sparse import csr_array

TIES = ("balanced", "plus")
FIRST = ("rows", "columns")


@dataclass(frozen=True)
class GridLinks:
    """Link ids by place: each device (i, j) has at most one a direction; -1 where none."""

    row_up: IntArray  # [R, C] to row i + 1
    row_down: IntArray  # [R, C] to row i - 1
    column_up: IntArray  # [R, C] to column j + 1
    column_down: IntArray  # [R, C] to column j - 1


def dimension_order(
    topology: Topology, tie: str = "balanced", first: str = "rows"
) -> DimensionOrderRouting | NextHopRouting:
    """Return dimension-order routing over a mesh or torus of any number of dimensions.

    ``tie`` says which way pairs half a ring apart go (see ``directions``). ``first="rows"`` changes
    the row first, along the source's column: dimension 0 comes first. ``"columns"`` is the other
    way round; with more dimensions than two it takes them from the last to the first.
    """
    if tie not in TIES:
        raise unknown("tie rule", tie, TIES)
    if first not in FIRST:
        raise unknown("first dimension", first, FIRST)
    shape, wraps = grid_shape(topology, "dimension-order")
    name = f"dimension-order-{tie}" if wraps else "dimension-order"
    name += "-columns-first" if first == "columns" else ""
    if len(shape) == 2:
        grid = (shape[0], shape[1])
        return DimensionOrderRouting(topology, name, grid, wraps, tie, first == "columns")
    return dimension_order_tables(topology, name, shape, wraps, tie, first == "columns")


class DimensionOrderRouting(Routing):
    """One path a pair on a grid of two dimensions."""

    def __init__(
        self,
        topology: Topology,
        name: str,
        grid: tuple[int, int],
        wraps: bool,
        tie: str,
        columns_first: bool,
    ) -> None:
        """Find the links by place and the way each pair of rows and of columns goes."""
        super().__init__(topology, name)
        self.wraps, self.tie, self.columns_first = wraps, tie, columns_first
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
        _require_links(topology, self.links, wraps)

    @cached_property
    def tables(self) -> NextHopRouting:
        """The same routing by destination."""
        return dimension_order_tables(
            self.topology, self.name, self.grid, self.wraps, self.tie, self.columns_first
        )

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
        load = np.zeros((len(demand), self.topology.num_links), dtype=demand.dtype)
        ring_load(self._shaped(demand), *self._ways, load)
        return load

    def worst_pair(
        self, use: NDArray[Any], demand: NDArray[Any], offset: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the worst pair's seconds, [B]; see ``Routing.worst_pair``."""
        worst = np.zeros(len(demand), dtype=demand.dtype)
        ring_worst(self._shaped(demand), *self._ways, use, offset, worst)
        return worst

    def _shaped(self, demand: NDArray[Any]) -> NDArray[Any]:
        return demand.reshape(len(demand), *self.grid, self.topology.num_devices)

    @property
    def _ways(self) -> tuple[bool, Ways, Ways, IntArray, IntArray, IntArray, IntArray]:
        links = self.links
        return (
            self.columns_first,
            self.row_way,
            self.column_way,
            links.row_up,
            links.row_down,
            links.column_up,
            links.column_down,
        )

    def path_max(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the largest value over a pair's links, [N, N]; 0 on the diagonal."""
        rows, columns = self.grid
        row_up, row_down, column_up, column_down = self._by_place(value)
        along_column = np.zeros((rows, rows, columns), dtype=value.dtype)
        along_row = np.zeros((columns, columns, rows), dtype=value.dtype)
        segment_max(self.row_way, row_up, row_down, along_column)
        segment_max(self.column_way, column_up, column_down, along_row)
        pair = np.maximum(*self._by_pair(along_column, along_row))
        return np.asarray(pair.reshape((self.topology.num_devices,) * 2))

    def _by_pair(
        self, along_column: NDArray[Any], along_row: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return [R, R, C] and [C, C, R] so that they broadcast to pairs [i, j, i', j']."""
        column, row = along_column.transpose(0, 2, 1), along_row.transpose(0, 2, 1)
        if self.columns_first:  # along the source's row i, then the destination's column j'
            return along_column[:, None], along_row.transpose(2, 0, 1)[:, :, None]
        return column[:, :, :, None], row[None]

    def path_sum(self, value: FloatArray) -> FloatArray:
        """Return the sum of value over a pair's links, [N, N]."""
        row_up, row_down, column_up, column_down = self._by_place(value)
        along_column = _segment_sum(self.row_way, row_up, row_down)
        along_row = _segment_sum(self.column_way, column_up, column_down)
        first, second = self._by_pair(along_column, along_row)
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
        order = ((1, columns), (0, rows)) if self.columns_first else ((0, rows), (1, columns))
        for axis, size in order:
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


def _require_links(topology: Topology, links: GridLinks, wraps: bool) -> None:
    """Raise InputError where a link of the grid is gone, as after a failure."""
    for axis, ways in (
        (0, (links.row_up, links.row_down)),
        (1, (links.column_up, links.column_down)),
    ):
        size = ways[0].shape[axis]
        for step, ids in zip((1, -1), ways, strict=True):
            last = size - 1 if step > 0 else 0  # a mesh has no link beyond its edge
            inner = np.arange(size) != last
            needed = ids if wraps and size > 1 else np.compress(inner, ids, axis=axis)
            if (needed < 0).any():
                raise InputError(
                    f"dimension-order: {topology.name} lacks a link between neighbours: use ecmp"
                )


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
