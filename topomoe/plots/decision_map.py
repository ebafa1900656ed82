"""Figure of a study of decisions: where switching pays, by delay and phase length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.patches import Patch, Rectangle

from topomoe.plots.decision_rows import (
    check_columns,
    delay_column,
    delay_label,
    delay_text,
    redundancy_levels,
)
from topomoe.plots.evaluation_rows import CLAIRVOYANT, NEVER
from topomoe.plots.style import BLACK, GREY, new_figure, panel_rows
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "where_switching_pays"
COLUMNS = ("phase_epochs", "agent", "ratio")
_ACROSS = 3
_LEAST = 0.05  # the colours span at least this much gain
_DARK = 0.55  # shades from which on text is white


def draw(frame: pd.DataFrame, agent: str = "") -> Figure:
    """Return a panel a redundancy, a cell a delay and phase length, coloured by what is saved.

    A cell says the ratio of the cost to never-switch's, and under it the clairvoyant's. Hatched is
    never-switch's region: it is what is chosen there, or the ratio's 95 % interval reaches 1.

    Args:
        frame: columns delay_s (or delay_epochs), phase_epochs, agent and ratio; also high (upper
            end of the 95 % interval), redundancy or slots (a panel each), and chosen (true for the
            agent that was chosen beforehand for the cell).
        agent: whose ratio; "": the chosen one's.

    Raises:
        InputError: a column is missing, there is no row, or two agents are chosen for a cell.
    """
    delay = delay_column(frame)
    check_columns(frame, (delay, *COLUMNS, *(() if agent else ("chosen",))), NAME)
    wanted = frame["agent"] == agent if agent else frame["chosen"].eq(True)
    check_columns(frame[wanted], (), NAME)
    levels = redundancy_levels(frame)
    across = min(_ACROSS, len(levels))
    phases = frame["phase_epochs"].nunique()
    figure = new_figure(0.9 + panel_rows(len(levels), across) * (0.75 + 0.5 * phases))
    down = panel_rows(len(levels), across)
    axes = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel())
    for spare in axes[len(levels) :]:
        spare.remove()
    gain = 1.0 - float(frame.loc[wanted, "ratio"].min())
    norm = Normalize(0.0, max(gain, _LEAST))
    for axis, (level, rows) in zip(axes, levels.items(), strict=False):
        _panel(axis, rows, wanted.loc[rows.index], frame, norm)
        axis.set_title(level, loc="left")
    axes = axes[: len(levels)]
    for axis in axes[-across:]:
        axis.set_xlabel(delay_label(delay))
        axis.tick_params(labelbottom=True)
    for axis in axes[::across]:
        axis.set_ylabel("epochs a phase lasts")
    hatched = Patch(
        facecolor="white", edgecolor=GREY, hatch="////", label="never switching is best"
    )
    who = agent or "the agent chosen on validation episodes"
    title = f"held-out cost / never-switch of {who} ({CLAIRVOYANT}'s in brackets)"
    figure.legend(handles=[hatched], loc="outside upper center", title=title)
    return figure


def _panel(
    axis: Axes, rows: pd.DataFrame, wanted: pd.Series, frame: pd.DataFrame, norm: Normalize
) -> None:
    delay = delay_column(frame)
    delays = sorted(frame[delay].unique())
    phases = sorted(frame["phase_epochs"].unique())
    shown = _cells(rows[wanted])
    bound = _cells(rows[rows["agent"] == CLAIRVOYANT])
    for cell, row in shown.items():
        place = (delays.index(cell[0]), phases.index(cell[1]))
        below = f"\n({bound[cell]['ratio']:.3f})" if cell in bound else ""
        _draw_cell(axis, place, row, below, norm)
    axis.set_xlim(-0.5, len(delays) - 0.5)
    axis.set_ylim(-0.5, len(phases) - 0.5)
    axis.set_xticks(range(len(delays)), [delay_text(d, delay) for d in delays])
    axis.set_yticks(range(len(phases)), [f"{phase:g}" for phase in phases])
    axis.tick_params(length=0)


def _cells(rows: pd.DataFrame) -> dict[tuple[float, float], pd.Series]:
    """Return the one row of each delay and phase length."""
    cells: dict[tuple[float, float], pd.Series] = {}
    delay = delay_column(rows)
    for _, row in rows.iterrows():
        cell = (row[delay], row["phase_epochs"])
        if cell in cells:
            raise InputError(
                f"results.parquet holds two rows for {delay} {cell[0]:g}, phase_epochs "
                f"{cell[1]:g} of {NAME}: {cells[cell]['agent']} and {row['agent']}"
            )
        cells[cell] = row
    return cells


def _draw_cell(
    axis: Axes, place: tuple[int, int], row: pd.Series, below: str, norm: Normalize
) -> None:
    ratio = float(row["ratio"])
    stays = row["agent"] == NEVER or not float(row.get("high", ratio)) < 1.0
    shade = float(norm(max(0.0, 1.0 - ratio)))
    axis.add_patch(
        Rectangle(
            (place[0] - 0.5, place[1] - 0.5),
            1,
            1,
            facecolor="white" if stays else colormaps["YlGn"](shade),
            edgecolor="#BBBBBB" if stays else "white",
            hatch="////" if stays else None,
            linewidth=0.0 if stays else 0.8,
        )
    )
    axis.text(
        *place,
        f"{ratio:.3f}{below}",
        ha="center",
        va="center",
        fontsize=7,
        color="white" if not stays and shade > _DARK else BLACK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8} if stays else None,
    )
