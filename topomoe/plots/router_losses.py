"""Figure of routers: what fine-tuning with each balance loss buys, and its price."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from matplotlib.lines import Line2D

from topomoe.plots.router_style import legend_above, others_styles, scale
from topomoe.plots.style import BLACK, GREY, MARKERS, new_figure
from topomoe.router_results import RouterResults

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

NAME = "router_losses"
TITLE = "Balance losses"
CAPTION = (
    "Fine-tuning with each balance loss: an arrow from the Gini coefficient and held-out "
    "perplexity before to those after, means over seeds; the small points are the seeds after. A "
    "marker a weight. Fine-tuning without a loss (none) is what the others are to be held against."
)
COLUMNS = (
    "balance_loss",
    "weight",
    "seed",
    "perplexity_before",
    "perplexity_after",
    "gini_before",
    "gini_after",
)
_WITHOUT = "none"


def draw(results: RouterResults) -> Figure | None:
    """Return an arrow a loss and weight; None where the run has no such results.

    Raises:
        InputError: a column is missing.
    """
    rows = results.rows("loss", COLUMNS)
    if rows.empty:
        return None
    looks = others_styles(name for name in rows["balance_loss"] if name != _WITHOUT)
    colours = {_WITHOUT: GREY} | {name: colour for name, (colour, _) in looks.items()}
    weights = sorted(rows.loc[rows["balance_loss"] != _WITHOUT, "weight"].unique())
    marker = {weight: MARKERS[place % len(MARKERS)] for place, weight in enumerate(weights)}
    figure = new_figure(4.8, 8.0)
    axis = figure.subplots()
    for key, own in rows.groupby(["balance_loss", "weight"], sort=False):
        loss, weight = cast("tuple[str, float]", key)
        mean = own[list(COLUMNS[3:])].mean()
        start = (mean["gini_before"], mean["perplexity_before"])
        end = (mean["gini_after"], mean["perplexity_after"])
        axis.annotate(
            "",
            end,
            start,
            arrowprops={
                "arrowstyle": "-|>",
                "color": colours[loss],
                "linewidth": 1.2,
                "alpha": 0.7,
                "shrinkA": 0,
                "shrinkB": 3,
            },
        )
        shape = "*" if loss == _WITHOUT else marker[weight]
        axis.plot(*end, shape, color=colours[loss], markersize=8 if shape == "*" else 6, zorder=3)
        axis.scatter(
            own["gini_after"], own["perplexity_after"], s=8, color=colours[loss], alpha=0.5
        )
    before = rows.groupby("seed")[["gini_before", "perplexity_before"]].first()
    axis.plot(
        before["gini_before"],
        before["perplexity_before"],
        "o",
        markerfacecolor="white",
        color=BLACK,
        markersize=4,
        zorder=4,
    )
    scale(axis.xaxis, [0.0, *rows["gini_before"], *rows["gini_after"]])
    axis.set_xlim(left=0)
    scale(axis.yaxis, [*rows["perplexity_before"], *rows["perplexity_after"]])
    axis.set_xlabel("Gini coefficient of expert load, mean over layers")
    axis.set_ylabel("held-out perplexity")
    axis.grid()
    entries: list[Artist] = [
        Line2D([], [], linestyle="none", marker="o", color=BLACK, markerfacecolor="white")
    ]
    entries[0].set_label("before, each seed")
    entries += [
        Line2D([], [], color=colours[name], label=name, linewidth=2)
        for name in colours
        if name in set(rows["balance_loss"])
    ]
    entries += [
        Line2D([], [], linestyle="none", marker=shape, color="#555555", label=f"weight {weight:g}")
        for weight, shape in marker.items()
    ]
    legend_above(figure, entries, 6)
    return figure
