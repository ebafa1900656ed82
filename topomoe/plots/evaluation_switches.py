"""Figure of an evaluation: how often each policy changes topology, and how often placement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch

from topomoe.plots.evaluation_rows import (
    RATIO,
    agent_lines,
    by_scenario,
    column_beside,
    scenario_panels,
    sorted_by_cost,
)
from topomoe.plots.style import BLUE, ORANGE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "switches"
_PARTS = {"topology": ORANGE, "placement": BLUE}
_DEAR = 1.1  # times never-switch: agents above it do not stretch the axis
COLUMNS = tuple(f"{part}_switches_per_100_epochs" for part in _PARTS)


def draw(summary: pd.DataFrame) -> Figure:
    """Return switches per 100 epochs, a panel a scenario, in the order of the costs.

    Bars of agents that cost far more than never-switch (random, say) may be cut off, with an arrow.
    """
    scenarios = by_scenario(summary)
    figure, axes = scenario_panels(scenarios, "switches per 100 epochs")
    for axis, rows in zip(axes, scenarios.values(), strict=True):
        _panel(axis, sorted_by_cost(rows))
    handles = [Patch(color=colour, label=part) for part, colour in _PARTS.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    places = np.arange(len(rows))
    rates = rows[list(COLUMNS)].to_numpy(dtype=np.float64)
    shown = np.nan_to_num(rates)
    sane = rows[RATIO].to_numpy(dtype=np.float64) <= _DEAR
    most = 1.1 * max(1.0, float(shown[sane].max() if sane.any() else shown.max()))
    for number, (part, colour) in enumerate(_PARTS.items()):
        height = places + 0.19 * (2 * number - 1)
        axis.barh(height, np.minimum(shown[:, number], most), height=0.36, color=colour)
        beyond = shown[:, number] > most
        if beyond.any():
            arrows = np.full(beyond.sum(), most), height[beyond]
            axis.plot(*arrows, ">", markersize=4, color=colour, clip_on=False)
        texts = [f"{rate:.1f}" if np.isfinite(rate) else "n/a" for rate in rates[:, number]]
        column_beside(axis, number, part, texts)
    agent_lines(axis, list(rows["agent"]))
    axis.set_xlim(0, most)
