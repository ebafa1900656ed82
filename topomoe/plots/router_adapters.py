"""Figure of routers: perplexity after fine-tuning low-rank adapters, by what they train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.plots.router_style import legend_above, others_styles
from topomoe.plots.style import GREY, new_figure
from topomoe.router_results import RouterResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "router_adapters"
TITLE = "Adapters"
CAPTION = (
    "Held-out perplexity after fine-tuning by the number of parameters trained, a line a kind of "
    "adapter over its ranks (the small numbers): means over seeds, bars their range. Dashed: "
    "before."
)
COLUMNS = (
    "variant",
    "rank",
    "trained_parameters",
    "seed",
    "perplexity_before",
    "perplexity_after",
)


def draw(results: RouterResults) -> Figure | None:
    """Return a line a variant; None where the run has no such results.

    Raises:
        InputError: a column is missing.
    """
    rows = results.rows("adapter", COLUMNS)
    if rows.empty:
        return None
    figure = new_figure(4.2, 7.5)
    axis = figure.subplots()
    before = float(rows["perplexity_before"].mean())
    axis.axhline(before, color=GREY, linestyle="--", linewidth=1.0, label="before")
    for variant, (colour, marker) in others_styles(rows["variant"]).items():
        own = rows[rows["variant"] == variant]
        found = own.groupby("trained_parameters").agg(
            rank=("rank", "first"),
            mean=("perplexity_after", "mean"),
            low=("perplexity_after", "min"),
            high=("perplexity_after", "max"),
        )
        trained = found.index.to_numpy(dtype=np.float64)
        error = [found["mean"] - found["low"], found["high"] - found["mean"]]
        axis.errorbar(
            trained,
            found["mean"],
            error,
            color=colour,
            marker=marker,
            markersize=6,
            capsize=3,
            label=variant,
        )
        for at, (_, point) in zip(trained, found.iterrows(), strict=True):
            if len(found) > 1:
                axis.annotate(
                    f"{point['rank']:g}",
                    (at, point["mean"]),
                    xytext=(6, 4),
                    textcoords="offset points",
                    fontsize=7.5,
                    color=colour,
                )
    axis.set_xscale("log")
    axis.set_xlabel("parameters trained")
    axis.set_ylabel("held-out perplexity after")
    axis.grid()
    legend_above(figure, axis.get_legend_handles_labels()[0], 6)
    return figure
