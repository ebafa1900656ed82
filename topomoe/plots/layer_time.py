"""Where in the model the time goes: the fastest and the slowest combination, layer by layer."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from topomoe.plots.style import PARTS, new_figure
from topomoe.study_results import StudyResults

NAME = "layer_time"
TITLE = "Layer by layer"
CAPTION = (
    "Mean time of each MoE layer, by part, for the fastest and the slowest combination of topology "
    "and placement under default routings, each on its own scale (one panel where there is one "
    "combination): a layer that stands out has hot "
    "experts that the placement leaves together, or far from those who ask for them."
)
_COLUMNS = ("dispatch", "combine", "compute", "backward")


def draw(results: StudyResults) -> Figure:
    """Return stacked bars over layers for the fastest and the slowest combination."""
    ordered = results.defaults.sort_values("moe_s", kind="stable")
    chosen = [("fastest: ", ordered.iloc[0]), ("slowest: ", ordered.iloc[-1])]
    if len(ordered) == 1:
        chosen = [("", ordered.iloc[0])]
    figure = new_figure(3.8)
    axes = figure.subplots(1, len(chosen), sharex=True, squeeze=False)[0]
    for axis, (which, row) in zip(axes, chosen, strict=True):
        group = (str(row["placement"]), str(row["replica_routing"]))
        layers = results.rows("layer", group, topology=row["topology"], routing=row["routing"])
        number = layers["layer"].to_numpy()
        below = np.zeros(len(layers))
        for part in _COLUMNS:
            seconds = layers[f"{part}_s"].to_numpy()
            if seconds.any():
                axis.bar(number, 1e6 * seconds, 0.8, 1e6 * below, color=PARTS[part], label=part)
                below = below + seconds
        label = results.topology_label(str(row["topology"]))
        axis.set_title(f"{which}{label}, {results.group_label(group)}")
        axis.set_xlabel("MoE layer")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(axis="y")
        axis.margins(x=0.01)
        axis.set_ylabel("time a layer (us)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
