"""Figure of a training: learning curves, their mean and spread over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.plots.evaluation_rows import by_scenario
from topomoe.plots.style import GREY, ROUTINGS, columns_of, new_figure, panel_rows, panels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "learning_curve"
COST = "cost_relative_to_never_switch"
COLUMNS = ("seed", "timesteps", COST)
_ACROSS = 2


def draw(curve: pd.DataFrame) -> Figure:
    """Return cost over experience: thin lines are seeds, the band their range, bold the mean."""
    scenarios = by_scenario(curve)
    figure = new_figure(0.6 + 2.9 * panel_rows(len(scenarios), _ACROSS))
    axes = panels(figure, len(scenarios), sharey=False, columns=_ACROSS)
    agents = list(dict.fromkeys(curve["agent"]))
    for axis, (name, rows) in zip(axes, scenarios.items(), strict=True):
        axis.set_title(name, loc="left", fontweight="bold")
        axis.axhline(1.0, color=GREY, linestyle="--", linewidth=1.0)
        axis.annotate(
            "never-switch",
            (1.0, 1.0),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color="#555555",
        )
        for number, agent in enumerate(agents):
            colour = ROUTINGS[number % len(ROUTINGS)]
            _agent(axis, rows[rows["agent"] == agent], str(agent), colour)
        axis.grid()
    for axis in axes[-_ACROSS:]:
        axis.set_xlabel("training epochs experienced (thousands)")
    axes[0].set_ylabel("episode cost / never-switch,\ntraining episodes")
    shown: dict[str, Artist] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            shown.setdefault(str(label), handle)
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside upper center",
        ncols=columns_of(len(shown), 5),
    )
    return figure


def _agent(axis: Axes, rows: pd.DataFrame, agent: str, colour: str) -> None:
    if rows.empty:
        return
    table = rows.pivot_table(index="timesteps", columns="seed", values=COST, sort=True)
    table = table.interpolate(method="index", limit_area="inside")
    at = table.index.to_numpy(dtype=np.float64) / 1e3
    seeds = len(table.columns)
    label = f"{agent}, {seeds} seeds" if seeds > 1 else agent
    if seeds > 1:
        axis.plot(at, table, color=colour, linewidth=0.6, alpha=0.6)
        low, high = table.min(axis=1), table.max(axis=1)
        axis.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
    marker = "o" if len(at) == 1 else None
    axis.plot(at, table.mean(axis=1), color=colour, linewidth=2.0, marker=marker, label=label)
