"""Expert compute of each placement method by batch size, over what no placement beats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from topomoe.plots.style import MARKERS, ROUTINGS, columns_of, label_below, new_figure, panels

if TYPE_CHECKING:
    import pandas as pd

RECORD = "compute"
NAME = "placement_compute"
TITLE = "Expert compute by batch size"
CAPTION = (
    "Seconds of the worst device's experts, mean over layers and sampled batches, over the bound "
    "for the expected loads (1: no placement computes faster): balance in tokens is not balance in "
    "seconds, as a sliver of an expert still reads all its weights. Batches are drawn from the "
    "training loads (left) and from the held-out ones (right)."
)


def draw(rows: pd.DataFrame, results: pd.DataFrame) -> Figure:
    """Return a panel a source of batches, a line a method."""
    served, methods = list(dict.fromkeys(rows["served"])), list(dict.fromkeys(rows["method"]))
    figure = new_figure(4.0)
    axes = panels(figure, len(served))
    for axis, name in zip(axes, served, strict=True):
        for number, method in enumerate(methods):
            own = rows[(rows["served"] == name) & (rows["method"] == method)]
            axis.plot(
                own["batch_tokens"],
                own["compute_s"] / own["bound_s"],
                marker=MARKERS[number % len(MARKERS)],
                color=ROUTINGS[number % len(ROUTINGS)],
                markersize=5,
                label=method,
            )
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(sorted(rows["batch_tokens"].unique())))
        axis.xaxis.set_major_formatter(FuncFormatter(thousands))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(f"batches from {name} loads")
        axis.grid(axis="y")
    axes[0].set_ylabel("worst device's seconds / bound")
    axes[0].set_ylim(bottom=min(1.0, float(axes[0].get_ylim()[0])))
    label_below(axes, "tokens a batch")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns_of(len(labels), 7))
    return figure


def thousands(value: float, _position: int | None = None) -> str:
    """Return 16384 as 16k.

    >>> thousands(512), thousands(16384)
    ('512', '16k')
    """
    return f"{value:g}" if value < 1024 else f"{value / 1024:g}k"
