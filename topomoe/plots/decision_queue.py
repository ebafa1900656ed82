"""Figure of a study of decisions: agents with and without what is known of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topomoe.plots.decision_rows import check_columns
from topomoe.plots.evaluation_rows import CLAIRVOYANT, by_scenario
from topomoe.plots.style import BLACK, BLUE, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "queue_features"
COLUMNS = ("scenario", "agent", "queue", "ratio", "low", "high")


def draw(frame: pd.DataFrame) -> Figure:
    """Return a panel a scenario, a line an agent: its cost with and without queue features.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    check_columns(frame, COLUMNS, NAME)
    scenarios = by_scenario(frame)
    figure = new_figure(2.9)
    axes = figure.subplots(1, len(scenarios), squeeze=False)[0]
    for axis, (scenario, rows) in zip(axes, scenarios.items(), strict=True):
        _panel(axis, rows)
        axis.set_title(scenario, loc="left", fontweight="bold")
        axis.set_xlabel("held-out cost / never-switch")
    found = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=len(found))
    return figure


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    axis.axvline(1.0, color=GREY, linestyle="--", linewidth=1.0, label="never-switch")
    bound = rows[rows["agent"] == CLAIRVOYANT]
    if len(bound):
        axis.axvline(float(bound["ratio"].iloc[0]), color=BLACK, linestyle=":", label=CLAIRVOYANT)
    agents = [agent for agent in dict.fromkeys(rows["agent"]) if agent != CLAIRVOYANT]
    for line, agent in enumerate(agents):
        for queue, colour, label in ((True, BLUE, "with the queue"), (False, ORANGE, "without")):
            own = rows[(rows["agent"] == agent) & (rows["queue"].astype(bool) == queue)]
            for _, row in own.iterrows():
                shift = -0.14 if queue else 0.14
                axis.errorbar(
                    [row["ratio"]],
                    [line + shift],
                    xerr=[[row["ratio"] - row["low"]], [row["high"] - row["ratio"]]],
                    fmt="o",
                    color=colour,
                    capsize=3,
                    markersize=5,
                    label=label,
                )
    axis.set_yticks(range(len(agents)), agents)
    axis.set_ylim(len(agents) - 0.5, -0.5)
    axis.grid(axis="x")
