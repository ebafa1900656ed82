"""Figure of routers: what a router's language costs on the network, quality against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from topomoe.plots.router_style import legend_above, router_styles, scale, spread
from topomoe.plots.style import BLACK, new_figure, panel_rows, panels
from topomoe.router_front import front, pareto_points
from topomoe.router_results import (
    NOT_CAUSAL,
    PERPLEXITY,
    POINT,
    RouterResults,
    capacities,
    capacity_text,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "router_pareto"
TITLE = "Perplexity against step time"
CAPTION = (
    "Held-out perplexity against the 99th percentile of the time that the MoE layers of a step "
    "take, a panel a network. A large point is a router at a capacity factor (its size), the mean "
    "over seeds, which are the small points; crosses are their range. Step line and rings: the "
    "Pareto front, what no other beats in both. Hollow: an expert that chooses its tokens sees "
    "later ones, so that its perplexity compares with none; filled, where it was measured, is its "
    "perplexity without them."
)
QUALITY = ("router", "capacity_factor", "seed", "perplexity")
STEP = ("router", "capacity_factor", "seed", "topology", "moe_p99_s")
_ACROSS = 2
_SIZES = (5.0, 8.5)  # points, of the least and the greatest capacity factor


def draw(results: RouterResults) -> Figure | None:
    """Return a panel a network; None where the run has no such results.

    Raises:
        InputError: a column is missing.
    """
    quality = results.rows("quality", QUALITY, "pareto")
    steps = results.rows("step", STEP, "pareto")
    if quality.empty or steps.empty:
        return None
    points = pareto_points(quality, steps).assign(ms=lambda rows: 1e3 * rows["moe_p99_s"])
    found = dict(iter(points.groupby("network", sort=False)))
    looks, factors = router_styles(points["router"]), capacities(points)
    size = dict(zip(factors, np.linspace(*_SIZES, len(factors)), strict=True))
    figure = new_figure(0.9 + 3.9 * panel_rows(len(found), _ACROSS))
    axes = panels(figure, len(found), columns=_ACROSS, sharex=False)
    for axis, (network, rows) in zip(axes, found.items(), strict=True):
        _panel(axis, rows, looks, size)
        axis.set_title(str(network), loc="left", fontweight="bold")
        axis.set_xlabel("MoE layers of a step, p99 (ms)")
        scale(axis.xaxis, rows["ms"])
    for axis in axes[::_ACROSS]:
        axis.set_ylabel("held-out perplexity")
        scale(axis.yaxis, np.concatenate([points["perplexity"], points[PERPLEXITY]]))
    legend_above(figure, _legend(points, looks, size), 7)
    return figure


def _panel(
    axis: Axes,
    rows: pd.DataFrame,
    looks: dict[str, tuple[str, str]],
    size: dict[float, float],
) -> None:
    for router, (colour, marker) in looks.items():
        own = rows[rows["router"] == router]
        seen = ("perplexity", PERPLEXITY) if router in NOT_CAUSAL else (PERPLEXITY,)
        means = own.groupby("capacity_factor")[["ms", *seen]].mean()
        for column in seen:
            if means[column].isna().all():
                continue
            for factor, point in means.iterrows():
                seeds = own[own["capacity_factor"] == factor]
                spread(axis, seeds["ms"], seeds[column], colour)
                axis.plot(
                    point["ms"],
                    point[column],
                    marker,
                    color=colour,
                    markerfacecolor=colour if column == PERPLEXITY else "white",
                    markersize=size[float(str(factor))],
                    markeredgecolor="white" if column == PERPLEXITY else colour,
                    markeredgewidth=0.5 if column == PERPLEXITY else 1.2,
                    zorder=3,
                )
            order = [factor for factor in size if factor in means.index]
            path = means.loc[order]
            axis.plot(path["ms"], path[column], color=colour, linewidth=0.8, alpha=0.6, zorder=2)
    _front(axis, rows)
    axis.grid()


def _front(axis: Axes, rows: pd.DataFrame) -> None:
    means = rows.groupby(POINT, sort=False)[["ms", PERPLEXITY]].mean()
    best = means[front(rows)["front"].loc[means.index]].sort_values("ms")
    axis.step(best["ms"], best[PERPLEXITY], where="post", color=BLACK, linewidth=1.1, zorder=2.5)
    axis.plot(
        best["ms"],
        best[PERPLEXITY],
        "o",
        markersize=14,
        markerfacecolor="none",
        color=BLACK,
        markeredgewidth=0.8,
        zorder=4,
    )


def _legend(
    points: pd.DataFrame, looks: dict[str, tuple[str, str]], size: dict[float, float]
) -> list[Artist]:
    entries: list[Artist] = []
    measured = points.groupby("router")[PERPLEXITY].count()
    for router, (colour, marker) in looks.items():
        shared: dict[str, Any] = {
            "color": colour,
            "linestyle": "none",
            "marker": marker,
            "markersize": 7,
        }
        if router in NOT_CAUSAL:
            label = f"{router} (sees later tokens)"
            entries.append(Line2D([], [], markerfacecolor="white", label=label, **shared))
        if router not in NOT_CAUSAL or measured[router]:
            label = f"{router}, causal" if router in NOT_CAUSAL else router
            entries.append(Line2D([], [], label=label, **shared))
    entries.append(
        Line2D(
            [],
            [],
            color=BLACK,
            linewidth=1.1,
            marker="o",
            markersize=11,
            markerfacecolor="none",
            markeredgewidth=0.8,
            label="Pareto front",
        )
    )
    if len(size) > 1:
        entries += [
            Line2D(
                [],
                [],
                color="#555555",
                marker="o",
                linestyle="none",
                markersize=points_across,
                label=f"capacity {capacity_text(factor)}",
            )
            for factor, points_across in size.items()
        ]
    return entries
