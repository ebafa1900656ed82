"""The methods side by side: balance on training and held-out requests, traffic, step time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from topomoe.plots.style import BLACK, BLUE, VERMILLION, new_figure, topology_styles

if TYPE_CHECKING:
    import pandas as pd

RECORD = "method"
NAME = "placement_methods"
TITLE = "Placement methods"
CAPTION = (
    "Left: largest over mean device load, mean (circle) and worst layer (bar's end), on the "
    "requests a placement was made from and on held-out ones; black: no placement is below it on "
    "the training requests. Middle: bytes between rows of the grid, a held-out token and layer, by "
    "replica routing. Right: time of the MoE layers of a step on held-out batches, median (mark) "
    "and 99th percentile (bar's end), under the replica routing with which the method is fastest "
    "on the first topology, which stands under its name."
)

SHADES = ("#D9D9D9", "#A8CBE0", "#EBCB9A", "#B5D6B2", "#D8B9D9")


def draw(rows: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Return three panels with a line a method; each with its best replica routing."""
    steps = results[results["record"] == "step"]
    names = tuple(dict.fromkeys(steps["topology"]))
    first = steps[steps["topology"] == names[0]].sort_values("moe_p50_s", kind="stable")
    best = first.drop_duplicates("method").set_index("method")["replica_routing"]
    methods = list(dict.fromkeys(rows["method"]))
    places = np.arange(len(methods))
    figure = new_figure(1.3 + 0.45 * len(methods))
    balance, traffic, seconds = figure.subplots(1, 3, sharey=True, width_ratios=(3, 2, 3))
    layers = results[results["record"] == "layer"]
    bound = layers.groupby("method")["train_bound_max_over_mean"].mean().loc[methods]
    for part, label, colour, apart in (
        ("train", "training requests", BLUE, -0.13),
        ("test", "held-out requests", VERMILLION, 0.13),
    ):
        column = f"{part}_max_over_mean"
        grouped = layers.groupby("method")[column]
        mean, worst = grouped.mean().loc[methods], grouped.max().loc[methods]
        balance.hlines(places + apart, mean, worst, color=colour, linewidth=2.0)
        balance.plot(mean, places + apart, "o", color=colour, markersize=5, label=label)
    balance.vlines(
        bound, places - 0.33, places + 0.33, color=BLACK, linewidth=1.4, label="bound, training"
    )
    balance.set_xlabel("largest / mean device load")
    routings = list(dict.fromkeys(rows["replica_routing"]))
    height = 0.78 / len(routings)
    for number, name in enumerate(routings):
        own = rows[rows["replica_routing"] == name].set_index("method").loc[methods]
        kilobytes = 1e-3 * own["cross_row_bytes"]
        at = places + height * (number - (len(routings) - 1) / 2)
        shade = SHADES[number % len(SHADES)]
        traffic.barh(at, kilobytes, height=0.9 * height, color=shade, label=name)
        for place, value in zip(at, kilobytes, strict=True):
            traffic.annotate(
                f"{value:.1f}",
                (value, place),
                xytext=(-3, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=7.0,
            )
    traffic.set_xlabel("between rows (KB a token and layer)")
    steps = steps[steps["replica_routing"] == best.loc[steps["method"]].to_numpy()]
    styles = topology_styles(names)
    for number, name in enumerate(names):
        own = steps[steps["topology"] == name].set_index("method").loc[methods]
        at = places + 0.26 * (number - (len(names) - 1) / 2)
        colour, marker = styles[name]["color"], styles[name]["marker"]
        low, high = 1e3 * own["moe_p50_s"], 1e3 * own["moe_p99_s"]
        seconds.hlines(at, low, high, color=colour, linewidth=2.0)
        seconds.plot(low, at, marker, color=colour, markersize=5, linestyle="", label=name)
    seconds.set_xlabel("MoE layers, a step (ms)")
    seconds.set_xlim(left=0)
    balance.set_yticks(places, [f"{m}\n{best[m]}" for m in methods])
    balance.invert_yaxis()
    for axis in (balance, traffic, seconds):
        axis.grid(axis="x")
        axis.tick_params(axis="y", length=0)
        axis.xaxis.set_major_locator(MaxNLocator(5))
    for axis in (balance, traffic, seconds):
        axis.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=3 if axis is balance else 2,
            columnspacing=1.0,
            handletextpad=0.3,
        )
    return figure
