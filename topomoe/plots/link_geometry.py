"""Where each link of a topology is drawn on the grid of its devices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

_STUB = 0.42  # length of what is drawn of a link that leaves the grid on one side


@dataclass(frozen=True, eq=False)
class LinkKinds:
    """Links by how they are drawn, each a mask [L]."""

    up: BoolArray  # device to switch
    down: BoolArray  # switch to device
    near: BoolArray  # between devices side by side
    wrap: BoolArray  # between opposite edges of the grid
    chord: BoolArray  # between any other devices
    upper: BoolArray  # between switches


def link_kinds(source: IntArray, target: IntArray, grid: tuple[int, int]) -> LinkKinds:
    """Sort links [L] between nodes (devices first, row by row) by how they are drawn.

    A link from edge to edge of the grid is a wrap only where all device links are wraps or between
    neighbours, as in a torus, twisted or not; among circuits it is one more chord.
    """
    rows, columns = grid
    devices = rows * columns
    from_device, to_device = source < devices, target < devices
    between = from_device & to_device
    down = np.abs(target // columns - source // columns)
    across = np.abs(target % columns - source % columns)
    near = between & (down + across == 1)
    side = between & (columns > 2) & (across == columns - 1)
    edge = between & (rows > 2) & (down == rows - 1) & (across == 0)
    wrap = ~near & (side | edge)
    if (between & ~near & ~wrap).any():
        wrap = np.zeros_like(near)
    return LinkKinds(
        up=from_device & ~to_device,
        down=~from_device & to_device,
        near=near,
        wrap=wrap,
        chord=between & ~near & ~wrap,
        upper=~from_device & ~to_device,
    )


def near_segments(source: IntArray, target: IntArray, columns: int, beside: float) -> FloatArray:
    """Return the segments [n, 2, 2] of links between neighbours, ``beside`` to the right."""
    ends = np.stack([_place(source, columns), _place(target, columns)], axis=1)
    way = ends[:, 1] - ends[:, 0]
    right = np.stack([-way[:, 1], way[:, 0]], axis=1) * beside
    return ends + right[:, None]


def wrap_segments(
    source: IntArray, target: IntArray, grid: tuple[int, int], beside: float
) -> FloatArray:
    """Return two stubs a wrap, [2 n, 2, 2]: where it leaves the grid, then where it comes back."""
    columns = grid[1]
    start, end = _place(source, columns), _place(target, columns)
    step = end - start
    sideways = (np.abs(step[:, 0]) == columns - 1) & (columns > 2)
    way = np.where(
        sideways[:, None],
        np.stack([-np.sign(step[:, 0]), np.zeros(len(step))], axis=1),
        np.stack([np.zeros(len(step)), -np.sign(step[:, 1])], axis=1),
    )
    right = np.stack([-way[:, 1], way[:, 0]], axis=1) * beside
    leaves = np.stack([start, start + _STUB * way], axis=1)
    returns = np.stack([end - _STUB * way, end], axis=1)
    return np.concatenate([leaves + right[:, None], returns + right[:, None]])


def chord_curves(source: IntArray, target: IntArray, columns: int) -> FloatArray:
    """Return the control points [n, 3, 2] of slightly bent lines between any two devices."""
    start, end = _place(source, columns), _place(target, columns)
    way = end - start
    bend = np.stack([-way[:, 1], way[:, 0]], axis=1) * 0.12
    return np.stack([start, (start + end) / 2 + bend, end], axis=1)


def overhang(curves: FloatArray, grid: tuple[int, int]) -> float:
    """Return how far curves [n, 3, 2] leave the grid of devices, in cells; 0 where none does."""
    if not len(curves):
        return 0.0
    part = np.linspace(0.0, 1.0, 17)
    weights = np.stack([(1 - part) ** 2, 2 * part * (1 - part), part**2], axis=1)
    points = weights @ curves  # [n, 17, 2], Bezier curves of the second degree
    last = np.array([grid[1] - 1, grid[0] - 1])
    return float(max(0.0, -points.min(), (points - last).max()))


def half_cells(device: IntArray, columns: int, upward: bool, half: float) -> FloatArray:
    """Return triangles [n, 3, 2]: the upper or lower half of each device's square cell."""
    centre = _place(device, columns)
    corners = (
        [(-half, half), (-half, -half), (half, -half)]
        if upward
        else [(-half, half), (half, half), (half, -half)]
    )
    return np.asarray(centre[:, None] + np.array(corners)[None])


def tiers(source: IntArray, target: IntArray, devices: int) -> IntArray:
    """Return how many links each node is from the nearest device; devices are tier 0."""
    nodes = int(max(source.max(), target.max())) + 1
    tier = np.where(np.arange(nodes) < devices, 0, nodes)
    while True:
        before = tier.copy()
        np.minimum.at(tier, target, tier[source] + 1)
        np.minimum.at(tier, source, tier[target] + 1)
        if (tier == before).all():
            return tier


def _place(device: IntArray, columns: int) -> FloatArray:
    """Return x (column) and y (row) of devices, [n, 2]."""
    return np.stack([device % columns, device // columns], axis=1).astype(np.float64)
