"""What the figures of an evaluation share: its scenarios, and kinds of agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D

from topomoe.plots.style import BLACK, BLUE, GREY, VERMILLION, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEVER, CLAIRVOYANT = "never-switch", "clairvoyant"
RATIO = "ratio_to_never_switch"
_FIXED = (NEVER, "static-best")
_RULES = (
    "random",
    "rotor",
    "eplb",
    "periodic-eplb",
    "greedy",
    "hysteresis",
    "ema-mpc",
    "forecast",
    "work-function",
    "rule",
    "lazy-experts",
    "guarded",
    "annealing",
)
KINDS = {"learned": VERMILLION, "rule": BLUE, "fixed": GREY, "clairvoyant": BLACK}
_ACROSS = 2  # panels
_LINE = 0.235  # inches an agent


def kind_of(agent: str) -> str:
    """Return which of ``KINDS`` an agent is; whatever is not built in was learned."""
    if agent == CLAIRVOYANT:
        return CLAIRVOYANT
    if agent in _FIXED:
        return "fixed"
    return "rule" if agent in _RULES else "learned"


def kinds_legend(figure: Figure, agents: Sequence[str], *others: Artist) -> None:
    """Say above the figure which colour is which kind of agent, of those there are."""
    handles: list[Artist] = [
        Line2D([], [], marker="o", color=colour, label=kind)
        for kind, colour in KINDS.items()
        if any(kind_of(agent) == kind for agent in agents)
    ]
    handles += others
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def by_scenario(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each scenario, in their order; one without a name where none is named."""
    if "scenario" not in rows:
        return {"": rows}
    names = rows["scenario"].fillna("").astype(str)
    return {name: rows[names == name] for name in dict.fromkeys(names)}


def sorted_by_cost(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the agents, cheapest first; those whose cost is not known last."""
    return rows.sort_values(RATIO, kind="stable", na_position="last")


def scenario_panels(scenarios: dict[str, pd.DataFrame], label: str) -> tuple[Figure, list[Axes]]:
    """Return a figure with a titled panel a scenario, each tall enough for its agents."""
    across = min(_ACROSS, len(scenarios))
    down = -(-len(scenarios) // across)
    lines = np.zeros(across * down, dtype=np.int64)
    lines[: len(scenarios)] = [len(rows) for rows in scenarios.values()]
    tallest = lines.reshape(down, across).max(axis=1)
    heights = 0.6 + _LINE * tallest
    figure = new_figure(0.75 + float((0.3 + heights).sum()))
    grid = figure.subplots(down, across, squeeze=False, height_ratios=heights)
    axes: list[Axes] = list(grid.ravel())
    for spare in axes[len(scenarios) :]:
        spare.remove()
    axes = axes[: len(scenarios)]
    for axis, name in zip(axes, scenarios, strict=True):
        axis.set_title(name, loc="left", fontweight="bold", pad=8)
    for axis in axes[-across:]:
        axis.set_xlabel(label)
    return figure, axes


def agent_lines(axis: Axes, agents: Sequence[str]) -> None:
    """Name the agents at the left, the first at the top."""
    axis.set_yticks(range(len(agents)), list(agents))
    axis.set_ylim(len(agents) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def column_beside(axis: Axes, place: int, title: str, texts: Sequence[str]) -> None:
    """Write a text beside every line, in the column ``place`` (0, 1) right of the panel."""
    shared: dict[str, Any] = {"textcoords": "offset points", "ha": "right"}
    right = 46 + 46 * place
    for line, text in enumerate(texts):
        axis.annotate(
            text,
            (1.0, line),
            xycoords=("axes fraction", "data"),
            xytext=(right, 0),
            va="center",
            fontsize=8,
            **shared,
        )
    axis.annotate(
        title,
        (1.0, 1.0),
        xycoords="axes fraction",
        xytext=(right, 2),
        va="bottom",
        fontsize=7.5,
        color="#555555",
        linespacing=0.9,
        **shared,
    )
