"""Figure of an evaluation: every policy's held-out cost with its interval, a panel a scenario."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D

from topomoe.plots.evaluation_rows import (
    CLAIRVOYANT,
    KINDS,
    RATIO,
    agent_lines,
    by_scenario,
    column_beside,
    kind_of,
    kinds_legend,
    scenario_panels,
    sorted_by_cost,
)
from topomoe.plots.style import BLACK, GREY

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

NAME = "policies"
COLUMNS = (RATIO, f"{RATIO}_low", f"{RATIO}_high")
_REGRET = "regret_closed"


def draw(summary: pd.DataFrame) -> Figure:
    """Return the cost over never-switch, interquartile mean and 95 % interval, best at the top.

    Agents so dear that the others would lie on one another are cut off, with an arrow.
    """
    scenarios = by_scenario(summary)
    figure, axes = scenario_panels(scenarios, "held-out cost / never-switch")
    for axis, rows in zip(axes, scenarios.values(), strict=True):
        _panel(axis, sorted_by_cost(rows))
    interval = Line2D([], [], color=GREY, linewidth=4, alpha=0.4, label="95 % interval")
    kinds_legend(figure, list(summary["agent"]), interval)
    return figure


def _panel(axis: Axes, rows: pd.DataFrame) -> None:
    middle, low, high = (rows[column].to_numpy(dtype=np.float64) for column in COLUMNS)
    low, high = np.where(np.isfinite(low), low, middle), np.where(np.isfinite(high), high, middle)
    left, right = _limits(low, high)
    agents = list(rows["agent"])
    axis.axvline(1.0, color=GREY, linestyle="--", linewidth=1.0)
    for line, agent in enumerate(agents):
        if not np.isfinite(middle[line]):
            continue
        colour = KINDS[kind_of(agent)]
        if agent == CLAIRVOYANT:
            axis.axvline(middle[line], color=BLACK, linestyle=":", linewidth=1.0)
        ends = np.clip([low[line], high[line]], left, right)
        axis.hlines(line, *ends, color=colour, linewidth=4, alpha=0.4)
        beyond = middle[line] > right
        axis.plot(
            min(middle[line], right),
            line,
            marker=">" if beyond else "o",
            color=colour,
            markersize=5,
            clip_on=False,
            zorder=3,
        )
    column_beside(axis, 0, "ratio", [_text(value, "{:.3f}") for value in middle])
    if _REGRET in rows:
        shares = rows[_REGRET].to_numpy(dtype=np.float64)
        column_beside(axis, 1, "regret\nclosed", [_share(share) for share in shares])
    agent_lines(axis, agents)
    axis.set_xlim(left, right)


def _limits(low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[float, float]:
    """Return the axis: all of what gains, and about as far again beyond 1."""
    ends = np.concatenate([[1.0], low, high])
    ends = ends[np.isfinite(ends)]
    least = float(ends.min())
    right = min(float(ends.max()), 1.0 + max(0.05, 1.2 * (1.0 - least)))
    pad = 0.04 * max(right - least, 0.05)
    return least - pad, right + pad


def _text(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else "n/a"


def _share(value: float) -> str:
    return "< -100 %" if value < -1 else _text(100 * value, "{:.0f} %")
