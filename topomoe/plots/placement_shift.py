"""Leave one load out: balance on what a placement was not made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from topomoe.plots.style import BLACK, ROUTINGS, new_figure

if TYPE_CHECKING:
    import pandas as pd

RECORD = "shift"
NAME = "placement_shift"
TITLE = "Balance on a load left out"
CAPTION = (
    "Largest over mean device load, mean over layers, on each load by a placement made from the "
    "others: bars are means over the loads, marks single loads (the rightmost is the worst). "
    "Static: the placement's own shares; per batch: the best shares for the load served. "
    "Hindsight is made from the load it serves."
)


def draw(rows: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Return a panel a routing, a bar a method."""
    routings, methods = list(dict.fromkeys(rows["routing"])), list(dict.fromkeys(rows["method"]))
    places = np.arange(len(methods))
    figure = new_figure(1.0 + 0.34 * len(methods))
    axes = figure.subplots(1, len(routings), sharey=True, sharex=True, squeeze=False)[0]
    for axis, routing in zip(axes, routings, strict=True):
        own = rows[rows["routing"] == routing]
        for place, method in zip(places, methods, strict=True):
            values = own.loc[own["method"] == method, "max_over_mean"].to_numpy()
            axis.barh(
                place,
                values.mean() - 1.0,
                left=1.0,
                height=0.6,
                color=ROUTINGS[place % 10],
                alpha=0.6,
            )
            axis.plot(values, np.full(len(values), place), "|", color=BLACK, markersize=8)
            axis.annotate(
                f"{values.mean():.3f}, worst {values.max():.3f}",
                (values.max(), place),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=7.5,
            )
        axis.set_title(f"shares {routing}")
        axis.set_xlabel("largest / mean device load")
        axis.grid(axis="x")
    reach = float(rows["max_over_mean"].max()) - 1.0
    axes[0].set_xlim(1.0, 1.0 + 1.45 * max(reach, 0.02))
    axes[0].set_yticks(places, methods)
    axes[0].invert_yaxis()
    for axis in axes:
        axis.tick_params(axis="y", length=0)
    return figure
