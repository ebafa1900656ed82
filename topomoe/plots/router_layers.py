"""Figure of routers: imbalance of the experts in every layer, trained here and of real models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from topomoe.moe.published_loads import PUBLISHED
from topomoe.plots.router_style import beside_colours, legend_above, router_styles
from topomoe.plots.style import BLACK, GREY, new_figure
from topomoe.router_results import (
    TRAINED,
    UNIFORM,
    RouterResults,
    at_reference,
    capacity_text,
    layer_rows,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "router_layers"
TITLE = "Imbalance by layer, beside real models"
CAPTION = (
    "Gini coefficient of the experts' load before any drop (0 is even), by layer: routers trained "
    "here, the mean over seeds and their range, at one capacity factor; models in use, from their "
    "captured routing; and what is published, from the least to the greatest (means over layers; "
    "of switch-base-8 the mean and the greatest layer). Dotted: what a router would show that "
    "picks evenly at random, on as many tokens."
)
_COLUMNS_WIDE = (3, 3, 1.6)
_LINE = 1.3


def draw(results: RouterResults) -> Figure | None:
    """Return the Gini by layer beside published ranges; None where there is no such row.

    Raises:
        InputError: a column is missing.
    """
    rows = layer_rows(results)
    if rows.empty:
        return None
    trained, real = rows[rows["source"] == TRAINED], rows[rows["source"] != TRAINED]
    shown = [(own, what) for own, what in ((trained, "router"), (real, "source")) if len(own)]
    figure = new_figure(4.2)
    widths = [_COLUMNS_WIDE[0]] * len(shown) + [_COLUMNS_WIDE[2]]
    grid = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)
    axes, beside = list(grid[0][:-1]), grid[0][-1]
    entries: list[Artist] = []
    for axis, (own, what) in zip(axes, shown, strict=True):
        if what == "router":
            own = at_reference(own)
        colours = (
            {name: colour for name, (colour, _) in router_styles(own[what]).items()}
            if what == "router"
            else beside_colours(own[what])
        )
        for name, colour in colours.items():
            _line(axis, own[own[what] == name], colour)
        entries += [
            Line2D([], [], color=colour, linewidth=_LINE, label=name)
            for name, colour in colours.items()
        ]
        axis.set_title(_title(own, what), loc="left", fontweight="bold")
        axis.set_xlabel("MoE layer")
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    if rows[UNIFORM].notna().any():
        entries.append(Line2D([], [], color=BLACK, linestyle=":", label="even at random"))
    _published(beside)
    axes[0].set_ylabel("Gini coefficient of expert load")
    axes[0].set_ylim(bottom=0)
    for axis in (*axes, beside):
        axis.grid(axis="y")
    legend_above(figure, entries, 6)
    return figure


def _title(rows: pd.DataFrame, what: str) -> str:
    if what == "source":
        return "models in use"
    if "capacity_factor" not in rows:
        return "trained here"
    return f"trained here, capacity factor {capacity_text(rows['capacity_factor'].iloc[0])}"


def _line(axis: Axes, rows: pd.DataFrame, colour: str) -> None:
    layers = rows.groupby("layer")["gini"].agg(["mean", "min", "max"])
    marker = "o" if len(layers) < 12 else None
    axis.plot(
        layers.index,
        layers["mean"],
        color=colour,
        linewidth=_LINE,
        marker=marker,
        markersize=3.5,
        clip_on=False,  # expert choice is even: at 0
    )
    if (layers["max"] > layers["min"]).any():
        axis.fill_between(
            layers.index, layers["min"], layers["max"], color=colour, alpha=0.2, linewidth=0
        )
    even = rows.groupby("layer")[UNIFORM].mean().dropna()
    if len(even):
        axis.plot(even.index, even, color=BLACK, linestyle=":", linewidth=0.9)


def _published(axis: Axes) -> None:
    for place, published in enumerate(PUBLISHED):
        low, high = published.gini
        if high > low:
            axis.vlines(place, low, high, color=GREY, linewidth=7)
        else:
            axis.plot(place, low, "D", color=GREY, markersize=6)
    axis.set_xticks(
        range(len(PUBLISHED)),
        [own.model for own in PUBLISHED],
        rotation=45,
        ha="right",
        fontsize=7.5,
    )
    axis.set_xlim(-0.6, len(PUBLISHED) - 0.4)
    axis.set_title("published", loc="left", fontweight="bold")
