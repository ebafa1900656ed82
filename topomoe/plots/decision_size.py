"""Figure of a study of decisions: cost over never-switch by the number of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topomoe.plots.decision_rows import check_columns
from topomoe.plots.evaluation_rows import CLAIRVOYANT, NEVER, by_scenario
from topomoe.plots.style import BLACK, GREY, ROUTINGS, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "gain_by_devices"
COLUMNS = ("scenario", "devices", "agent", "ratio", "low", "high")


def draw(frame: pd.DataFrame) -> Figure:
    """Return a panel a scenario, a line an agent: held-out cost over never-switch by devices.

    Raises:
        InputError: a column is missing, or there is no row.
    """
    check_columns(frame, COLUMNS, NAME)
    scenarios = by_scenario(frame)
    figure = new_figure(3.4)
    axes = figure.subplots(1, len(scenarios), sharey=True, squeeze=False)[0]
    agents = [agent for agent in dict.fromkeys(frame["agent"]) if agent != NEVER]
    devices = sorted(int(count) for count in frame["devices"].unique())
    for axis, (scenario, rows) in zip(axes, scenarios.items(), strict=True):
        axis.axhline(1.0, color=GREY, linestyle="--", linewidth=1.0, label=NEVER)
        for number, agent in enumerate(agents):
            _line(axis, rows[rows["agent"] == agent].sort_values("devices"), agent, number, devices)
        axis.set_xticks(range(len(devices)), [str(count) for count in devices])
        axis.set_xlabel("devices")
        axis.set_title(scenario, loc="left", fontweight="bold")
        axis.grid()
    axes[0].set_ylabel("held-out cost / never-switch")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


def _line(axis: Axes, own: pd.DataFrame, agent: str, number: int, devices: list[int]) -> None:
    bound = agent == CLAIRVOYANT
    colour = BLACK if bound else ROUTINGS[number % len(ROUTINGS)]
    places = [devices.index(int(count)) for count in own["devices"]]
    axis.plot(
        places,
        own["ratio"],
        color=colour,
        linestyle=":" if bound else "-",
        marker=None if bound else "o",
        markersize=4,
        label=agent,
    )
    if not bound:
        axis.fill_between(places, own["low"], own["high"], color=colour, alpha=0.15, linewidth=0)
