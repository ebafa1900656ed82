"""Figure of routers: how their perplexity falls in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.plots.router_style import legend_above, router_styles, scale
from topomoe.plots.style import new_figure, panel_rows, panels
from topomoe.router_results import RouterResults, capacities, capacity_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "router_curves"
TITLE = "Training curves"
CAPTION = (
    "Perplexity of the validation text by tokens trained on, a panel a capacity factor: the mean "
    "over seeds and the range of the seeds. Expert choice sees later tokens, so that its curve "
    "compares with none. The first measurements, far above, are cut off."
)
COLUMNS = ("router", "capacity_factor", "seed", "tokens", "perplexity")
_ACROSS = 2
_HIGHEST = 6.0  # times the least perplexity; what is above is cut off


def draw(results: RouterResults) -> Figure | None:
    """Return a panel a capacity factor, a line a router; None where there is no such curve.

    Raises:
        InputError: a column is missing.
    """
    curve = results.rows("curve", COLUMNS, "pareto")
    if curve.empty:
        curve = results.rows("curve", COLUMNS)
    if curve.empty:
        return None
    curve = curve.dropna(subset=["perplexity"])
    factors, looks = capacities(curve), router_styles(curve["router"])
    across = min(_ACROSS, len(factors))
    figure = new_figure(0.7 + 2.9 * panel_rows(len(factors), across))
    axes = panels(figure, len(factors), columns=across)
    for axis, factor in zip(axes, factors, strict=True):
        own = curve[curve["capacity_factor"] == factor]
        for router, (colour, _) in looks.items():
            _line(axis, own[own["router"] == router], router, colour)
        axis.set_title(f"capacity factor {capacity_text(factor)}", loc="left", fontweight="bold")
        axis.grid()
    for axis in axes[-across:]:
        axis.set_xlabel("tokens trained on (millions)")
    for axis in axes[::across]:
        axis.set_ylabel("validation perplexity")
    least = float(curve["perplexity"].min())
    scale(axes[0].yaxis, np.minimum(curve["perplexity"], _HIGHEST * least))
    shown = {
        str(label): handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    legend_above(figure, [shown[router] for router in looks])
    return figure


def _line(axis: Axes, rows: pd.DataFrame, router: str, colour: str) -> None:
    if rows.empty:
        return
    table = rows.pivot_table(index="tokens", columns="seed", values="perplexity", sort=True)
    table = table.interpolate(method="index", limit_area="inside")
    at = 1e-6 * table.index.to_numpy(dtype=np.float64)
    axis.fill_between(
        at, table.min(axis=1), table.max(axis=1), color=colour, alpha=0.25, linewidth=0
    )
    marker = "o" if len(at) == 1 else None
    axis.plot(at, table.mean(axis=1), color=colour, linewidth=1.5, marker=marker, label=router)
