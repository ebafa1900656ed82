"""What moving a few expert copies buys: balance against migrated bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from topomoe.plots.style import BLACK, BLUE, MARKERS, VERMILLION, columns_of, new_figure

if TYPE_CHECKING:
    import pandas as pd

RECORD = "moves"
NAME = "placement_moves"
TITLE = "Balance by moved copies"
CAPTION = (
    "Largest over mean device load, mean over layers, against the weights that move: from eplb on "
    "the earlier half of the training requests (left end) by rebalancing with so many copies a "
    "layer (line, small numbers), and by placing anew with each method (other marks)."
)


def draw(rows: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Return a panel for training and one for held-out requests."""
    figure = new_figure(4.2)
    axes = figure.subplots(1, 2, sharey=True)
    gigabytes = 1e-9 * rows["migration_bytes"]
    path = rows["candidate"].isin(["stay", "rebalance"])
    others = list(dict.fromkeys(rows.loc[~path, "candidate"]))
    for axis, part, colour, title in (
        (axes[0], "train", BLUE, "training requests"),
        (axes[1], "test", VERMILLION, "held-out requests"),
    ):
        values = rows[f"{part}_max_over_mean"]
        line = rows[path].sort_values(["migration_bytes", "candidate"], kind="stable").index
        axis.plot(
            gigabytes[line], values[line], "-o", color=colour, markersize=4, label="rebalance"
        )
        labelled: set[float] = set()
        for index in line:
            limit, at = rows.loc[index, "most_moves"], float(gigabytes[index])
            served = rows.loc[index, "candidate"] == "stay"
            if at in labelled and not served:
                continue  # more were allowed, none was moved
            labelled.add(at)
            axis.annotate(
                "as served" if served else "any" if limit == float("inf") else f"{limit:g}",
                (at, values[index]),
                xytext=(5, 3),
                textcoords="offset points",
                fontsize=7,
            )
        for number, name in enumerate(others):
            own = rows["candidate"] == name
            axis.plot(
                gigabytes[own],
                values[own],
                MARKERS[(number + 1) % len(MARKERS)],
                color=BLACK,
                markerfacecolor="none",
                label=name,
            )
        axis.set_title(title)
        axis.set_xlabel("migration (GB)")
        axis.grid()
    axes[0].set_ylabel("largest / mean device load")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns_of(len(labels), 8))
    return figure
