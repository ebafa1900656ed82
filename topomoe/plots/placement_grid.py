"""Device loads on the grid before and after a placement: the picture of ``topomoe place``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from topomoe.plots.style import BLACK, log_ticks, look, new_figure, save
from topomoe.step import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NUMBERS = 256  # places up to which every one has its number
_NARROWEST = 1.05  # the colour scale spans at least 1 / 1.05 to 1.05


@dataclass(frozen=True, eq=False)
class GridPanel:
    """One panel: what it shows, and each device's load over the mean device's."""

    title: str
    load: FloatArray  # [N]


def draw_grids(panels: Sequence[Sequence[GridPanel]], grid: tuple[int, int], path: Path) -> None:
    """Write rows of panels on the device grid, one colour scale for all, as .png or .pdf."""
    with look():
        save(_figure(panels, grid), path.parent, path.stem, (path.suffix[1:],))


def _figure(panels: Sequence[Sequence[GridPanel]], grid: tuple[int, int]) -> Any:
    across = len(panels[0])
    loads = np.array([panel.load for row in panels for panel in row])
    positive = loads[loads > 0]
    # As far below 1 as above it, so that 1 is white; idle devices look like the coldest.
    top = max(_NARROWEST, float(positive.max()), min(8.0, 1.0 / float(positive.min())))
    tall = float(np.clip(4.4 * grid[0] / grid[1], 0.8, 4.0))
    figure = new_figure(0.7 + len(panels) * (tall + 0.45))
    axes = figure.subplots(len(panels), across, squeeze=False, sharex=True, sharey=True)
    norm = LogNorm(1.0 / top, top)
    image: Any = None
    for line, row in zip(axes, panels, strict=True):
        for axis, panel in zip(line, row, strict=True):
            image = _panel(axis, panel, grid, norm)
    for axis in axes[-1]:
        axis.set_xlabel("column of the grid")
    for axis in axes[:, 0]:
        axis.set_ylabel("row of the grid")
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=40, label="device load / mean")
    bar.ax.yaxis.set_major_locator(FixedLocator(sorted({1.0, *log_ticks(1.0 / top, top)})))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return figure


def _panel(axis: Axes, panel: GridPanel, grid: tuple[int, int], norm: LogNorm) -> Any:
    load = panel.load.reshape(grid)
    low, high = norm.vmin or 1.0, norm.vmax or 1.0
    shown = np.clip(load, low, high)
    image = axis.imshow(shown, norm=norm, cmap="PuOr_r", aspect="auto", interpolation="nearest")
    axis.set_title(panel.title)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    hottest = np.unravel_index(int(load.argmax()), grid)
    corner = hottest[1] - 0.5, hottest[0] - 0.5
    axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=BLACK, linewidth=1.6))
    if load.size <= _NUMBERS and grid[1] <= 16:
        dark = np.abs(np.log(shown)) > 0.6 * np.log(high)
        for (row, column), value in np.ndenumerate(load):
            axis.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=6.0,
                color="white" if dark[row, column] else BLACK,
            )
    return image
