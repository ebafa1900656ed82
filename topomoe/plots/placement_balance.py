"""Whether a placement's balance holds on requests it was not made from."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from topomoe.plots.style import (
    BLACK,
    BLUE,
    COLUMNS,
    VERMILLION,
    label_below,
    new_figure,
    panel_rows,
    panels,
)
from topomoe.study_results import StudyResults

NAME = "placement_balance"
TITLE = "Balance of the placements"
CAPTION = (
    "Load of the busiest device over the mean, layer by layer: on the requests a placement was "
    "made from (hollow), on held-out ones (filled), and the least that is possible on the former "
    "(line); the distance from hollow to filled is what the placement does not know of new "
    "requests."
)


def draw(results: StudyResults) -> Figure:
    """Return a panel a placement with training, held-out and least possible max/mean."""
    placements = list(dict.fromkeys(placement for placement, _ in results.groups))
    figure = new_figure(0.7 + 2.9 * panel_rows(len(placements)))
    axes = panels(figure, len(placements))
    for number, (axis, placement) in enumerate(zip(axes, placements, strict=True)):
        replicas = next(r for p, r in results.groups if p == placement)
        rows = results.rows("placement", (placement, replicas))
        layer = rows["layer"].to_numpy()
        train, test = rows["train_max_over_mean"], rows["max_over_mean"]
        axis.vlines(layer, train, test, color="#BBBBBB", linewidth=0.9)
        axis.plot(
            layer,
            train,
            "o",
            color=BLUE,
            markerfacecolor="white",
            markersize=4.5,
            label="training requests",
        )
        axis.plot(layer, test, "o", color=VERMILLION, markersize=4.0, label="held-out requests")
        axis.plot(
            layer,
            rows["bound_max_over_mean"],
            color=BLACK,
            linewidth=1.2,
            drawstyle="steps-mid",
            label="least possible, training",
        )
        axis.set_title(placement)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(axis="y")
        if number % COLUMNS == 0:
            axis.set_ylabel("busiest device / mean")
    label_below(axes, "MoE layer")
    axes[0].set_ylim(bottom=min(1.0, float(axes[0].get_ylim()[0])))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
