"""Balance of single batches over their size, by placement and replica routing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from topomoe.plots.placement_compute import thousands
from topomoe.plots.style import (
    MARKERS,
    ROUTINGS,
    label_below,
    new_figure,
    panel_rows,
    panels,
)

if TYPE_CHECKING:
    import pandas as pd

RECORD = "batch"
NAME = "placement_batches"
TITLE = "Balance of single batches"
CAPTION = (
    "Largest over mean device load of single batches, 99th percentile over batches and layers "
    "(lines) and mean (dashed), over the tokens a device. iid: every token's experts drawn from "
    "the training loads by themselves; trace: held-out requests, whose tokens resemble each other. "
    "Some layers, the same for all."
)
_DRAWS = {"iid": "iid tokens", "trace": "held-out requests"}
_ACROSS = 2


def draw(rows: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Return a panel a draw and placement, a line a replica routing."""
    kinds = list(rows[["draw", "placement"]].drop_duplicates().itertuples(index=False, name=None))
    kinds.sort(key=lambda kind: list(_DRAWS).index(kind[0]))
    routings = list(dict.fromkeys(rows["replica_routing"]))
    across = max(_ACROSS, len(kinds) // 2)
    figure = new_figure(0.8 + 2.9 * panel_rows(len(kinds), across))
    axes = panels(figure, len(kinds), columns=across)
    for number, (axis, (drawn, placement)) in enumerate(zip(axes, kinds, strict=True)):
        own = rows[(rows["draw"] == drawn) & (rows["placement"] == placement)]
        for place, routing in enumerate(routings):
            line = own[own["replica_routing"] == routing].sort_values("tokens_per_device")
            colour = ROUTINGS[place % len(ROUTINGS)]
            sizes = line["tokens_per_device"]
            axis.plot(
                sizes,
                line["max_over_mean_p99"],
                marker=MARKERS[place % len(MARKERS)],
                markersize=4,
                color=colour,
                label=routing,
            )
            axis.plot(sizes, line["max_over_mean"], "--", color=colour, linewidth=0.9)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(sorted(rows["tokens_per_device"].unique())))
        axis.xaxis.set_major_formatter(FuncFormatter(thousands))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(f"{placement}, {_DRAWS[drawn]}")
        axis.grid(axis="y")
        if number % across == 0:
            axis.set_ylabel("largest / mean device load")
    axes[0].set_ylim(1.0, min(2.0, float(axes[0].get_ylim()[1])))
    label_below(axes, "tokens a device", across)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
