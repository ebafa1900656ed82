"""Figure of routers: what assigning tokens otherwise costs in perplexity, and saves in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from topomoe.plots.router_style import legend_above, router_styles, scale, spread
from topomoe.plots.style import BLACK, GREY, MARKERS, new_figure, panel_rows, panels
from topomoe.router_results import ORIGINAL, RouterResults, assignment_points

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "router_assignments"
TITLE = "Assignment changes at inference"
CAPTION = (
    "Held-out perplexity, measured with the tokens assigned otherwise than the router would, "
    "against the time this saves: 99th percentile of the time of the MoE layers, below that of "
    "the original assignment. Means over seeds; small points are the seeds, crosses their range. "
    "Lower and further to the right is better."
)
_ACROSS = 2


def draw(results: RouterResults) -> Figure | None:
    """Return a panel a network; None where the run has no such results.

    Raises:
        InputError: a column is missing, or a router lacks its original assignment.
    """
    points = assignment_points(results)
    if points.empty:
        return None
    points = points.assign(saved=100 * (1 - points["moe_p99_s"] / points["original_p99_s"]))
    found = dict(iter(points.groupby("network", sort=False)))
    looks = router_styles(points["router"])
    names = [ORIGINAL, *dict.fromkeys(name for name in points["assignment"] if name != ORIGINAL)]
    marker = {name: MARKERS[place % len(MARKERS)] for place, name in enumerate(names)}
    figure = new_figure(0.9 + 3.6 * panel_rows(len(found), _ACROSS))
    axes = panels(figure, len(found), columns=_ACROSS, sharex=False)
    for axis, (network, rows) in zip(axes, found.items(), strict=True):
        _panel(axis, rows, looks, marker)
        axis.set_title(str(network), loc="left", fontweight="bold")
        axis.set_xlabel("p99 time saved (%)")
    for axis in axes[::_ACROSS]:
        axis.set_ylabel("held-out perplexity")
    scale(axes[0].yaxis, points["perplexity"])
    legend_above(figure, _legend(looks, marker), 6)
    return figure


def _panel(
    axis: Axes,
    rows: pd.DataFrame,
    looks: dict[str, tuple[str, str]],
    marker: dict[str, str],
) -> None:
    axis.axvline(0.0, color=GREY, linestyle="--", linewidth=1.0)
    for router, (colour, _) in looks.items():
        own = rows[rows["router"] == router]
        for name, shape in marker.items():
            seeds = own[own["assignment"] == name]
            if seeds.empty:
                continue
            spread(axis, seeds["saved"], seeds["perplexity"], colour)
            axis.plot(
                float(np.mean(seeds["saved"])),
                float(np.mean(seeds["perplexity"])),
                shape,
                color=colour,
                markersize=7,
                markeredgecolor="white",
                markeredgewidth=0.5,
                zorder=3,
            )
    axis.grid()


def _legend(looks: dict[str, tuple[str, str]], marker: dict[str, str]) -> list[Artist]:
    entries: list[Artist] = [
        Line2D([], [], linestyle="none", marker=shape, color=BLACK, markersize=6, label=name)
        for name, shape in marker.items()
    ]
    if len(looks) > 1:
        entries += [
            Line2D([], [], color=colour, linewidth=5, label=router)
            for router, (colour, _) in looks.items()
        ]
    return entries
