"""Time of the MoE layers after failures, over that of the intact topology."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from topomoe.degradation import INTACT
from topomoe.plots.style import GREY, columns_of, new_figure, topology_styles
from topomoe.study_results import StudyResults

if TYPE_CHECKING:
    import pandas as pd

NAME = "degradation"
TITLE = "Failures"
CAPTION = (
    "Mean time of the MoE layers after failures over that of the same topology intact: mean over "
    "the random draws and their range (band or stroke). Traffic goes around what has failed; "
    "experts move to the surviving devices, which share the same tokens. A hollow marker says that "
    "some draws cut devices off: the largest part goes on without them."
)


def applies(results: StudyResults) -> bool:
    """Return whether the study let something fail."""
    return bool((results.rows("failure")["scenario"] != INTACT).any())


def draw(results: StudyResults) -> Figure:
    """Return a panel a kind of random failure, and one for the failures given by name."""
    return draw_rows(results.rows("failure"), results.topology_label)


def draw_rows(rows: pd.DataFrame, label: Callable[[str], str] = str) -> Figure:
    """Return the figure of ``topomoe.degradation.failure_rows``."""
    failed = rows[rows["scenario"] != INTACT]
    by_panel: dict[str, list[str]] = {}
    for name in failed["scenario"].unique():
        kind, _, value = str(name).partition(":")
        panel = kind if value.isdecimal() and kind.endswith("s") else "named"
        by_panel.setdefault(panel, []).append(str(name))
    topologies = tuple(str(name) for name in rows["topology"].unique())
    figure = new_figure(3.4)
    # Panels count different things: they share no x axis.
    axes: list[Axes] = list(figure.subplots(1, len(by_panel), sharey=True, squeeze=False)[0])
    for axis, (panel, scenarios) in zip(axes, by_panel.items(), strict=True):
        _panel(axis, failed, topologies, panel, scenarios)
    axes[0].set_ylabel("MoE layers, time over intact")
    found = {
        label: handle
        for axis in reversed(axes)  # the first panel's handle stays
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    names = [name for name in topologies if name in found]
    figure.legend(
        [found[name] for name in names],
        [label(name) for name in names],
        loc="outside upper center",
        ncols=columns_of(len(names), 8),
    )
    return figure


def _panel(
    axis: Axes,
    failed: pd.DataFrame,
    topologies: tuple[str, ...],
    panel: str,
    scenarios: list[str],
) -> None:
    counted = panel != "named"
    lines = counted and len(scenarios) > 1
    if counted:
        scenarios = sorted(scenarios, key=lambda name: int(name.split(":")[1]))
    places = np.arange(len(scenarios), dtype=np.float64)
    for number, (name, style) in enumerate(topology_styles(topologies).items()):
        own = failed[failed["topology"] == name].groupby("scenario")
        ratio = own["ratio"].agg(["mean", "min", "max"]).reindex(scenarios)
        there = ratio["mean"].notna().to_numpy()
        if not there.any():
            continue
        cut_off = (own["parts"].max().reindex(scenarios) > 1).to_numpy()[there]
        # Side by side where no line tells the marks apart.
        aside = 0.0 if lines else 0.6 * ((number + 0.5) / len(topologies) - 0.5)
        x = places[there] + aside
        mean, low, high = (ratio[side].to_numpy()[there] for side in ("mean", "min", "max"))
        line = {**style, "linewidth": style["linewidth"] if lines else 0.0}
        axis.plot(x, mean, **line, markersize=4.5, label=name)
        hollow = {"markerfacecolor": "white", "markeredgecolor": style["color"]}
        axis.plot(
            x[cut_off],
            mean[cut_off],
            linewidth=0.0,
            marker=style["marker"],
            markersize=4.5,
            **hollow,
        )
        if lines:
            axis.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        else:
            axis.vlines(x, low, high, color=style["color"], linewidth=1.2)
    axis.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
    axis.grid(axis="y")
    axis.set_title(f"random {panel}" if counted else "named failures")
    labels = [name.split(":")[1] for name in scenarios] if counted else scenarios
    axis.set_xticks(places, labels)
    axis.margins(x=0.08 if lines else 0.5 / len(scenarios))
    axis.set_xlabel(f"failed {panel}" if counted else "")
