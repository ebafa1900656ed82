"""The device grid as a picture: device load, link load and circuits, in plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.errors import InputError

CELL, GAP = 18, 30  # pixels of a device, and between two
PITCH, MARGIN = CELL + GAP, GAP
_WIDEST = 4  # pixels of the busiest link's line
_BACKGROUND = np.array([255, 255, 255], dtype=np.uint8)
_FRAME = np.array([90, 90, 90], dtype=np.uint8)
_IDLE = np.array([250, 250, 250], dtype=np.float64)
_DEVICE = np.array([8, 69, 148], dtype=np.float64)
_QUIET = np.array([215, 215, 215], dtype=np.float64)
_BUSY = np.array([165, 15, 21], dtype=np.float64)
_DARK = np.array([254, 217, 142], dtype=np.float64)
_LIT = np.array([217, 95, 14], dtype=np.float64)
_BOW = PITCH // 2  # pixels by which a line bows out that would pass over devices
_TINY = float(np.finfo(np.float64).tiny)
IntArray = NDArray[np.int64]


def grid_picture(
    grid: tuple[int, int],
    device_load: ArrayLike,
    links: ArrayLike | None = None,
    link_load: ArrayLike = (),
    circuits: ArrayLike = (),
    circuit_load: ArrayLike | None = None,
) -> NDArray[np.uint8]:
    """Return uint8 [rows * 48 + 30, columns * 48 + 30, 3]: a square a device, a line a link.

    A device is the bluer, a link the redder and wider (from grey), a circuit the darker and wider
    (from light orange), the more it carries, relative to the busiest device, or link or circuit.
    Of two directions the busier one is drawn.
    Lines between devices that are not neighbours bow out, past the devices between them; one
    between the two ends of a row or column, as a torus has, is a stub at each of the two.

    Args:
        grid: rows and columns; device d is in row d // columns.
        device_load: float [N], >= 0, in any unit.
        links: int [L, 2], the devices at both ends; one whose end is no device (0..N-1), such as a
            switch, is not drawn. None: no links.
        link_load: float [L], >= 0, in any unit.
        circuits: int [X, 2], devices that a circuit joins; may be empty.
        circuit_load: float [X], in the unit of ``link_load``. None: all as busy as the busiest.

    Raises:
        InputError: a shape or a number is wrong.
    """
    rows, columns = grid
    load = _loads(device_load, "device_load", rows * columns)
    load = load / max(float(load.max()), _TINY)
    pairs = _pairs(() if links is None else links, "links")
    joined = _pairs(circuits, "circuits")
    busy = _loads(link_load, "link_load", len(pairs))
    busiest = max(float(busy.max(initial=0.0)), _TINY)
    lit = np.full(len(joined), busiest)
    if circuit_load is not None:
        lit = _loads(circuit_load, "circuit_load", len(joined))
        busiest = max(busiest, float(lit.max(initial=0.0)))
    image = np.tile(_BACKGROUND, (rows * PITCH + MARGIN, columns * PITCH + MARGIN, 1))
    for ends, loads, low, high in ((pairs, busy, _QUIET, _BUSY), (joined, lit, _DARK, _LIT)):
        for first, second, share in _drawn(ends, loads / busiest, rows * columns):
            colour = np.rint(low + share * (high - low)).astype(np.uint8)
            width = 1 + round(share * (_WIDEST - 1))
            for begin, end in _strokes(grid, first, second):
                _line(image, begin, end, colour, width)
    for device, share in enumerate(load):
        row, column = divmod(device, columns)
        top, left = MARGIN + row * PITCH, MARGIN + column * PITCH
        image[top : top + CELL, left : left + CELL] = _FRAME
        shade = np.rint(_IDLE + share * (_DEVICE - _IDLE)).astype(np.uint8)
        image[top + 1 : top + CELL - 1, left + 1 : left + CELL - 1] = shade
    return image


def _drawn(
    pairs: IntArray, share: NDArray[np.float64], devices: int
) -> list[tuple[int, int, float]]:
    """Return each pair of devices once, with its larger share; the busiest last, so on top."""
    largest: dict[tuple[int, int], float] = {}
    for (first, second), value in zip(pairs.tolist(), share.tolist(), strict=True):
        pair = min(first, second), max(first, second)
        if first != second and pair[0] >= 0 and pair[1] < devices:
            largest[pair] = max(value, largest.get(pair, 0.0))
    return [(*pair, value) for pair, value in sorted(largest.items(), key=lambda item: item[1])]


def _centre(device: int, columns: int) -> IntArray:
    return MARGIN + CELL // 2 + PITCH * np.array(divmod(device, columns), dtype=np.int64)


def _strokes(grid: tuple[int, int], first: int, second: int) -> list[tuple[IntArray, IntArray]]:
    """Return the one line between two devices, or two stubs where the link wraps around."""
    columns = grid[1]
    begin, end = _centre(first, columns), _centre(second, columns)
    apart = (end - begin) // PITCH
    for axis, size in enumerate(grid):
        if size > 2 and apart[axis] == size - 1 and not apart[1 - axis]:
            stub = np.zeros(2, dtype=np.int64)
            stub[axis] = CELL // 2 + GAP // 2
            return [(begin, begin - stub), (end, end + stub)]
    return [(begin, end)]


def _line(
    image: NDArray[np.uint8], begin: IntArray, end: IntArray, colour: NDArray[np.uint8], width: int
) -> None:
    """Draw a straight line, or one that bows out (a quadratic Bezier curve) past a neighbour."""
    along = (end - begin).astype(np.float64)
    length = float(np.hypot(*along))
    bow = 2.0 * _BOW / length if length > PITCH else 0.0
    middle = (begin + end) / 2 + bow * np.array([-along[1], along[0]])
    t = np.linspace(0.0, 1.0, 2 * int(length) + 2)[:, None]
    curve = (1 - t) ** 2 * begin + 2 * t * (1 - t) * middle + t**2 * end
    spread = np.arange(width) - width // 2
    row, column = np.rint(curve).astype(np.int64).T
    for down in spread:
        for right in spread:
            image[row + down, column + right] = colour


def _loads(value: ArrayLike, name: str, count: int) -> NDArray[np.float64]:
    load = np.asarray(value, dtype=np.float64)
    if load.shape != (count,):
        raise InputError(f"{name} must have shape [{count}], got {list(load.shape)}")
    if not np.isfinite(load).all() or (load < 0).any():
        raise InputError(f"{name} must be finite and >= 0")
    return load


def _pairs(value: ArrayLike, name: str) -> IntArray:
    pairs = np.asarray(value)
    if not pairs.size:
        return np.zeros((0, 2), dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise InputError(f"{name} must be whole numbers of shape [., 2], got {list(pairs.shape)}")
    return pairs.astype(np.int64)
