"""Figure of a study of decisions: what switching topologies, placements, and both costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.plots.decision_rows import check_columns
from topomoe.plots.evaluation_rows import CLAIRVOYANT, NEVER
from topomoe.plots.style import BLACK, BLUE, GREY, VERMILLION, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "gains_apart"
COLUMNS = ("scenario", "switches", "agent", "ratio", "low", "high")
_CHOICES = {"topology": "topology\nalone", "placement": "placement\nalone", "both": "both"}
_COLOURS = {CLAIRVOYANT: BLACK, "best rule": BLUE}
_WIDTH = 0.29


def draw(frame: pd.DataFrame) -> Figure:
    """Return a panel a scenario: held-out cost over never-switch by what may be switched.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    check_columns(frame, COLUMNS, NAME)
    scenarios = list(dict.fromkeys(frame["scenario"]))
    agents = [agent for agent in dict.fromkeys(frame["agent"]) if agent != NEVER]
    figure = new_figure(3.6)
    axes = figure.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
    for axis, scenario in zip(axes, scenarios, strict=True):
        _panel(axis, frame[frame["scenario"] == scenario], agents)
        axis.set_title(scenario, loc="left", fontweight="bold")
    axes[0].set_ylabel("held-out cost / never-switch")
    axes[0].set_ylim(max(0.0, float(frame["low"].min()) - 0.06), 1.04)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, agents: list[str]) -> None:
    axis.axhline(1.0, color=GREY, linestyle="--", linewidth=1.0, label=NEVER)
    choices = [choice for choice in _CHOICES if choice in set(rows["switches"])]
    for number, agent in enumerate(agents):
        own = rows[rows["agent"] == agent].set_index("switches").reindex(choices)
        x = np.arange(len(choices)) + _WIDTH * (number - (len(agents) - 1) / 2)
        ratio = own["ratio"].to_numpy(dtype=np.float64)
        error = np.stack([ratio - own["low"], own["high"] - ratio])
        colour = _COLOURS.get(agent, VERMILLION)
        axis.errorbar(x, ratio, error, fmt="o", color=colour, capsize=3, markersize=5, label=agent)
        for place, value, low in zip(x, ratio, own["low"], strict=True):
            if np.isfinite(value):
                axis.annotate(
                    f"{value:.3f}",
                    (place, low),
                    xytext=(0, -5),
                    textcoords="offset points",
                    ha="center",
                    va="top",
                    fontsize=6.5,
                    color=colour,
                )
    axis.set_xticks(range(len(choices)), [_CHOICES[choice] for choice in choices])
    axis.set_xlim(-0.5, len(choices) - 0.5)
    axis.grid(axis="y")
