"""What the figures of routers share: a colour and marker for each, legends, seeds' points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from topomoe.plots.style import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    INDIGO,
    MARKERS,
    OLIVE,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    WINE,
    columns_of,
    log_ticks,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_ROUTERS = {
    "top1": (SKY, "v"),
    "softk": (BLUE, "o"),
    "topk-hard": (PURPLE, "s"),
    "hash": (GREY, "X"),
    "expert-choice": (ORANGE, "D"),
    "bias-balanced": (GREEN, "^"),
}
_SPARE = ((VERMILLION, "P"), (INDIGO, "<"), (OLIVE, ">"), (BROWN, "p"), (WINE, "h"), (BLACK, "*"))
# Of losses, adapters, experts a token: what stands in a figure without routers.
OTHERS = (VERMILLION, BLUE, GREEN, PURPLE, ORANGE, SKY, INDIGO, OLIVE, WINE, BROWN)
_BESIDE = (
    VERMILLION,
    INDIGO,
    WINE,
    OLIVE,
    BROWN,
    BLACK,
)  # beside routers, of none of their colours
_WIDE = 3.0  # most over least from which an axis is logarithmic


def router_styles(routers: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each router, the same in all figures."""
    names = list(dict.fromkeys(routers))
    own = [name for name in names if name not in _ROUTERS]
    known = {name: look for name, look in _ROUTERS.items() if name in names}
    return known | {name: _SPARE[place % len(_SPARE)] for place, name in enumerate(own)}


def others_styles(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker of each name that is no router, in their order."""
    return {
        name: (OTHERS[place % len(OTHERS)], MARKERS[place % len(MARKERS)])
        for place, name in enumerate(dict.fromkeys(names))
    }


def beside_colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour of no router for each name that stands in a figure with routers."""
    return {name: _BESIDE[place % len(_BESIDE)] for place, name in enumerate(dict.fromkeys(names))}


def legend_above(figure: Figure, handles: Sequence[Artist], most: int = 8) -> None:
    """Put these above all panels, at most ``most`` in a row."""
    figure.legend(
        handles=list(handles),
        loc="outside upper center",
        ncols=columns_of(len(handles), most),
        columnspacing=1.2,
    )


def spread(axis: Axes, x: pd.Series[float], y: pd.Series[float], colour: str) -> None:
    """Draw a faint point for each seed, and a cross of their ranges at the mean."""
    if len(x) < 2:
        return
    faint: dict[str, Any] = {"color": colour, "alpha": 0.45, "linewidth": 0.8, "zorder": 1}
    axis.scatter(x, y, s=7, color=colour, alpha=0.45, linewidths=0, zorder=1)
    axis.hlines(float(y.mean()), float(x.min()), float(x.max()), **faint)
    axis.vlines(float(x.mean()), float(y.min()), float(y.max()), **faint)


def scale(axis: Axis, values: Iterable[float], form: str = "{:g}", pad: float = 0.05) -> None:
    """Limit an axis to these values; logarithmic, with round ticks, where they lie far apart."""
    known = np.array([value for value in values if np.isfinite(value)], dtype=np.float64)
    low, high = float(known.min()), float(known.max())
    axes = axis.axes
    limit = axes.set_xlim if axis.axis_name == "x" else axes.set_ylim  # type: ignore[attr-defined]
    if low > 0 and high / low >= _WIDE:
        (axes.set_xscale if axis.axis_name == "x" else axes.set_yscale)("log")  # type: ignore[attr-defined]
        room = (high / low) ** pad
        low, high = low / room, high * room
        axis.set_major_locator(FixedLocator(log_ticks(low, high)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: form.format(value)))
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        room = pad * max(high - low, 1e-3 * abs(high), 1e-12)
        low, high = low - room, high + room
    limit(low, high)
