"""Device loads on the grid as text: numbers where they fit, else shades."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from topomoe.step import FloatArray

MOST_ROWS, MOST_COLUMNS, NUMBERS = 16, 64, 8  # of a panel; columns up to which numbers fit
_SHADES = " .:-=+*#%@"


def device_grid(devices: int, grid: tuple[int, int] | None) -> tuple[int, int]:
    """Return rows x columns to draw devices on: the grid, else the most square one that fits."""
    if grid is not None:
        return grid
    columns = next(c for c in range(int(np.sqrt(devices)), 0, -1) if devices % c == 0)
    return devices // columns, columns


def text_grids(panels: Mapping[str, FloatArray], grid: tuple[int, int]) -> list[str]:
    """Return lines that show panels of device load / mean [N] side by side, by title.

    Of grids with more than 16 rows or 64 columns a place is the largest of the devices there. The
    shades have one scale, whose ends the last line gives.
    """
    folded = {title: _folded(load.reshape(grid)) for title, load in panels.items()}
    rows, columns = next(iter(folded.values())).shape
    low = min(float(load.min()) for load in folded.values())
    high = max(float(load.max()) for load in folded.values())

    def line(values: FloatArray) -> str:
        if columns <= NUMBERS:
            return " ".join(f"{value:4.2f}" for value in values)
        place = (values - low) / max(high - low, np.finfo(float).tiny) * len(_SHADES)
        return "".join(_SHADES[min(int(p), len(_SHADES) - 1)] for p in place)

    width = max(*(len(title) for title in folded), len(line(np.ones(columns))))
    lines = ["   ".join(title.ljust(width) for title in folded).rstrip()]
    for row in range(rows):
        cells = [line(load[row]).ljust(width) for load in folded.values()]
        lines.append("   ".join(cells).rstrip())
    if columns > NUMBERS:
        lines.append(f"shades: '{_SHADES}' from {low:.2f} to {high:.2f}")
    if (rows, columns) != grid:
        lines.append(f"a place is the largest of {grid[0] // rows or 1} or more devices")
    return lines


def _folded(load: FloatArray) -> FloatArray:
    """Return the loads [R, C] of at most 16 x 64 places, each the largest of its devices."""
    for axis, most in ((0, MOST_ROWS), (1, MOST_COLUMNS)):
        size = load.shape[axis]
        if size > most:
            step = -(-size // most)
            load = np.maximum.reduceat(load, np.arange(0, size, step), axis=axis)
    return load
