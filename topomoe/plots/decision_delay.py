"""Figure of a study of decisions: cost against switching delay, by phase length and redundancy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from topomoe.plots.decision_rows import (
    check_columns,
    delay_column,
    delay_label,
    delay_text,
    redundancy_levels,
)
from topomoe.plots.evaluation_rows import CLAIRVOYANT, NEVER
from topomoe.plots.style import BLACK, GREY, ROUTINGS, columns_of, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "cost_by_delay"
COLUMNS = ("agent", "ratio")
_LEVEL_TICKS = 4
_TOP = 1.25  # at least; what is dearer is cut off


def draw(frame: pd.DataFrame) -> Figure:
    """Return held-out cost over never-switch against the delay of a switch.

    Args:
        frame: columns delay_s (or delay_epochs), agent and ratio; also low and high (95 %
            interval), phase_epochs (a column of panels each), and redundancy or slots (a row of
            panels each).

    Raises:
        InputError: a column is missing, or there is no row.
    """
    delay = delay_column(frame)
    check_columns(frame, (delay, *COLUMNS), NAME)
    levels = redundancy_levels(frame)
    phases = sorted(frame["phase_epochs"].unique()) if "phase_epochs" in frame else [None]
    agents = [agent for agent in dict.fromkeys(frame["agent"]) if agent != NEVER]
    figure = new_figure(0.9 + 2.3 * len(levels))
    grid = figure.subplots(len(levels), len(phases), sharex=True, sharey=True, squeeze=False)
    delays = np.sort(frame[delay].unique())
    for row, (level, own) in zip(grid, levels.items(), strict=True):
        for axis, phase in zip(row, phases, strict=True):
            chosen = own if phase is None else own[own["phase_epochs"] == phase]
            _panel(axis, chosen, agents, delays, delay)
            title = "" if phase is None else f"phases of {phase:g} epochs"
            axis.set_title(", ".join(text for text in (title, level) if text), loc="left")
        row[0].set_ylabel("held-out cost / never-switch")
    known = frame["ratio"].to_numpy(dtype=np.float64)
    known = known[np.isfinite(known)]
    least = min(1.0, float(known.min(initial=1.0)))
    top = min(max(1.05, float(known.max(initial=1.0))), max(_TOP, 2.0 - least))
    grid[0, 0].set_ylim(least - 0.03, top)
    for axis in grid[-1]:
        axis.set_xlabel(delay_label(delay))
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns_of(len(labels), 6))
    return figure


def _panel(
    axis: Axes, rows: pd.DataFrame, agents: Sequence[str], delays: np.ndarray, delay: str
) -> None:
    at = _places(delays)
    axis.axhline(1.0, color=GREY, linestyle="--", linewidth=1.0, label=NEVER)
    for number, agent in enumerate(agents):
        own = rows[rows["agent"] == agent].sort_values(delay)
        bound = agent == CLAIRVOYANT
        colour = BLACK if bound else ROUTINGS[number % len(ROUTINGS)]
        x = at[np.searchsorted(delays, own[delay].to_numpy())]
        if "low" in own and "high" in own and not bound:
            axis.fill_between(x, own["low"], own["high"], color=colour, alpha=0.18, linewidth=0)
        axis.plot(
            x,
            own["ratio"],
            color=colour,
            linestyle=":" if bound else "-",
            marker=None if bound else "o",
            markersize=3,
            linewidth=1.5,
            label=agent,
        )
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(list(at)))
    axis.xaxis.set_minor_locator(NullLocator())
    names = dict(zip(at.tolist(), delays.tolist(), strict=True))

    def text(place: float, _position: int | None = None) -> str:
        nearest = min(names, key=lambda known: abs(known - place))
        return delay_text(names[nearest], delay)

    axis.xaxis.set_major_formatter(FuncFormatter(text))
    if len(at) > _LEVEL_TICKS:
        axis.tick_params(axis="x", rotation=60)
    axis.grid()


def _places(delays: np.ndarray) -> np.ndarray:
    """Return where delays lie on a log axis: no delay a decade before the least."""
    some = delays[delays > 0]
    least = float(some.min()) if some.size else 1.0
    return np.where(delays > 0, delays, least / 10)
