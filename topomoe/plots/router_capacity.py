"""Figure of routers: drops, perplexity and tokens a second by capacity factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.lines import Line2D

from topomoe.plots.router_style import OTHERS, legend_above
from topomoe.plots.style import BLACK, MARKERS, new_figure
from topomoe.router_results import PERPLEXITY, RouterResults, comparable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Looks = dict[tuple[str, int], tuple[str, str, Any]]  # colour, marker, line style

NAME = "router_capacity"
TITLE = "Capacity factor, drops and throughput"
CAPTION = (
    "By capacity factor: share of assignments (a token and one of its experts) that find their "
    "expert full, held-out perplexity, and tokens in a second of wall time of a forward and a "
    "backward pass. A panel a number of experts, a colour a number of experts a token; means over "
    "seeds. Seconds are of the machine that ran it and differ from run to run."
)
QUALITY = (
    "router",
    "capacity_factor",
    "experts",
    "top_k",
    "seed",
    "assignment_drop_rate",
    "perplexity",
)
TIMES = (
    "router",
    "capacity_factor",
    "experts",
    "top_k",
    "seed",
    "phase",
    "tokens",
    "wall_seconds",
)
_SPEED = "thousand tokens a second"
_STYLES = ("-", "--", ":", "-.")


def draw(results: RouterResults) -> Figure | None:
    """Return a column of panels a number of experts; None where the run has no such results.

    Raises:
        InputError: a column is missing.
    """
    quality = results.rows("quality", QUALITY, "capacity")
    if quality.empty:
        return None
    times = results.timings(TIMES, "capacity")
    rows = [
        ("dropped assignments (%)", quality.assign(y=100 * quality["assignment_drop_rate"])),
        ("held-out perplexity", quality.assign(y=comparable(quality)[PERPLEXITY])),
    ]
    if len(times):
        own = times[times["phase"] == "train"]
        rows.append((_SPEED, own.assign(y=1e-3 * own["tokens"] / own["wall_seconds"])))
    experts = sorted(int(count) for count in quality["experts"].unique())
    looks = {
        (router, top_k): (
            OTHERS[n % len(OTHERS)],
            MARKERS[n % len(MARKERS)],
            _STYLES[place % len(_STYLES)],
        )
        for place, router in enumerate(dict.fromkeys(quality["router"]))
        for n, top_k in enumerate(sorted(int(k) for k in quality["top_k"].unique()))
    }
    figure = new_figure(0.9 + 2.1 * len(rows))
    grid = figure.subplots(len(rows), len(experts), sharex=True, sharey="row", squeeze=False)
    for line, (label, values) in zip(grid, rows, strict=True):
        for axis, count in zip(line, experts, strict=True):
            _panel(axis, values[values["experts"] == count], looks)
        line[0].set_ylabel(label)
        if label != rows[1][0]:
            line[0].set_ylim(bottom=0)
    for axis, count in zip(grid[0], experts, strict=True):
        axis.set_title(f"{count} experts", loc="left", fontweight="bold")
    for axis in grid[-1]:
        axis.set_xlabel("capacity factor")
    legend_above(figure, _legend(looks))
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, looks: Looks) -> None:
    for (router, top_k), (colour, marker, style) in looks.items():
        own = rows[(rows["router"] == router) & (rows["top_k"] == top_k)]
        own = own[own["capacity_factor"] > 0]
        mean = own.groupby("capacity_factor")["y"].mean()
        axis.plot(mean.index, mean, color=colour, marker=marker, linestyle=style, markersize=4.5)
    axis.grid()


def _legend(looks: Looks) -> list[Artist]:
    colours = {top_k: (colour, marker) for (_, top_k), (colour, marker, _) in looks.items()}
    styles = {router: style for (router, _), (_, _, style) in looks.items()}
    entries: list[Artist] = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, label=f"top {top_k}")
        for top_k, (colour, marker) in colours.items()
    ]
    if len(styles) > 1:
        entries += [
            Line2D([], [], color=BLACK, linestyle=style, label=router)
            for router, style in styles.items()
        ]
    return entries
