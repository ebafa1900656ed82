"""Figure of routers: how even the load is against how undecided the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.lines import Line2D

from topomoe.plots.router_style import legend_above, router_styles, scale
from topomoe.plots.style import new_figure
from topomoe.router_results import RouterResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "router_balance"
TITLE = "Balance of load and entropy of the gate"
CAPTION = (
    "Coefficient of variation of the load of experts before any drop, mean over layers (0 is "
    "even), against the entropy of the gate's probabilities over that of even ones (1 is "
    "undecided): a point a router, seed and capacity factor; a larger one has a larger factor."
)
COLUMNS = ("router", "capacity_factor", "seed", "load_cv", "gate_entropy")
_SIZES = (14.0, 60.0)  # square points


def draw(results: RouterResults) -> Figure | None:
    """Return a point a router, seed and capacity factor; None where the run has no such results.

    Raises:
        InputError: a column is missing.
    """
    quality = results.rows("quality", COLUMNS, "pareto")
    if quality.empty:
        return None
    looks = router_styles(quality["router"])
    order = quality["capacity_factor"].where(quality["capacity_factor"] > 0).rank(method="dense")
    order = order.fillna(order.max() + 1).fillna(1.0)  # no capacity factor: above all
    share = (order - 1) / max(1.0, float(order.max()) - 1)
    size = _SIZES[0] + share * (_SIZES[1] - _SIZES[0])
    figure = new_figure(4.4, 7.0)
    axis = figure.subplots()
    entries = []
    for router, (colour, marker) in looks.items():
        own = quality["router"] == router
        axis.scatter(
            quality.loc[own, "gate_entropy"],
            quality.loc[own, "load_cv"],
            s=size[own],
            marker=marker,
            color=colour,
            alpha=0.75,
            edgecolors="white",
            linewidths=0.5,
            clip_on=False,  # expert choice is even: at 0
            zorder=3,
            label=router,
        )
        entries.append(Line2D([], [], color=colour, linestyle="none", marker=marker, label=router))
    axis.set_xlabel("entropy of the gate / that of even probabilities")
    axis.set_ylabel("coefficient of variation of expert load")
    scale(axis.yaxis, [0.0, *quality["load_cv"]])
    axis.set_ylim(bottom=0)
    axis.grid()
    legend_above(figure, entries, 6)
    return figure
