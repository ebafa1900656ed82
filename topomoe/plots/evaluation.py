"""Figures of trainings and evaluations: learning curves, policies compared, who switched when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topomoe.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    look,
    new_figure,
    save,
)
from topomoe.run_folder import RunFolder
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_COLOURS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, YELLOW, BLACK, GREY)
_EPOCHS_SHOWN = 100
_COLUMNS = {
    "curve": ("seed", "timesteps", "cost_relative_to_never_switch"),
    "summary": (
        "ratio_to_never_switch",
        "ratio_to_never_switch_low",
        "ratio_to_never_switch_high",
        "switches_per_100_epochs",
    ),
    "timeline": ("seed", "episode", "epoch", "choice", "configuration"),
}


def draw_evaluation(folder: RunFolder) -> list[Path]:
    """Draw what the run holds: learning_curve, policies and timeline, as PNG and PDF."""
    results = folder.results()
    missing = [column for column in ("record", "agent", "switching") if column not in results]
    for record, columns in _COLUMNS.items():
        if not missing and (results["record"] == record).any():
            missing = [column for column in columns if column not in results]
    if missing:
        raise InputError(f"{folder.path}: results.parquet lacks column {missing[0]}")
    figures = folder.path / "figures"
    paths: list[Path] = []
    with look():
        for record, name, draw in (
            ("curve", "learning_curve", _learning_curve),
            ("summary", "policies", _policies),
            ("timeline", "timeline", _timeline),
        ):
            rows = results[results["record"] == record]
            if len(rows):
                figure = new_figure(_height(record, rows))
                draw(figure, rows)
                _mark(figure, rows)
                paths += save(figure, figures, name)
    return paths


def _height(record: str, rows: pd.DataFrame) -> float:
    note = 0.25 * _hypothetical(rows)
    if record == "curve":
        return 3.4 + note
    return 1.4 + note + 0.42 * rows["agent"].nunique()


def _hypothetical(rows: pd.DataFrame) -> bool:
    return bool((rows["switching"] == "hypothetical").any())


def _mark(figure: Any, rows: pd.DataFrame) -> None:
    """Say so on the figure where no switch turns the configurations into each other."""
    if _hypothetical(rows):
        # Below the axes: legends outside them are above, where they would lie on a title.
        figure.supxlabel("hypothetical: no switch turns these fabrics into each other", fontsize=9)


def _learning_curve(figure: Any, rows: pd.DataFrame) -> None:
    axes = figure.add_subplot()
    runs = sorted({(a, int(s)) for a, s in zip(rows["agent"], rows["seed"], strict=True)})
    for number, (agent, seed) in enumerate(runs):
        part = rows[(rows["agent"] == agent) & (rows["seed"] == seed)]
        axes.plot(
            part["timesteps"] / 1e3,
            part["cost_relative_to_never_switch"],
            color=_COLOURS[number % len(_COLOURS)],
            label=f"{agent}, seed {seed}",
        )
    axes.axhline(1.0, color=GREY, linestyle="--", linewidth=1.0)
    axes.annotate(
        "never switch", (1.0, 1.0), xycoords=("axes fraction", "data"), ha="right", va="bottom"
    )
    axes.set_xlabel("training epochs experienced (thousands)")
    axes.set_ylabel("episode cost / never switch,\ntraining episodes")
    axes.legend()


def _policies(figure: Any, rows: pd.DataFrame) -> None:
    """Cost over never switching, interquartile mean with its 95 % interval, best at the top."""
    rows = rows.sort_values("ratio_to_never_switch", ascending=False, kind="stable")
    axes, switches = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    at = np.arange(len(rows))
    middle = rows["ratio_to_never_switch"].to_numpy()
    low = rows["ratio_to_never_switch_low"].to_numpy()
    high = rows["ratio_to_never_switch_high"].to_numpy()
    axes.errorbar(
        middle,
        at,
        xerr=[middle - low, high - middle],
        fmt="o",
        color=BLUE,
        ecolor=SKY,
        elinewidth=4,
    )
    for y, value in zip(at, middle, strict=True):
        axes.annotate(
            f"{value:.3f}", (value, y), xytext=(0, 6), textcoords="offset points", ha="center"
        )
    axes.axvline(1.0, color=GREY, linestyle="--", linewidth=1.0)
    axes.set_yticks(at, rows["agent"])
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlabel("held-out episode cost / never switch (interquartile mean, 95 % interval)")
    switches.barh(at, rows["switches_per_100_epochs"], color=ORANGE, height=0.5)
    switches.set_xlim(0, max(1.0, 1.05 * float(rows["switches_per_100_epochs"].max())))
    switches.set_xlabel("switches per 100 epochs")


def _timeline(figure: Any, rows: pd.DataFrame) -> None:
    """The configuration of each agent in each epoch of the first held-out episode."""
    first = rows[rows["episode"] == rows["episode"].min()]
    first = first[first["seed"] == first.groupby("agent")["seed"].transform("min")]
    agents = list(dict.fromkeys(first["agent"]))
    names = dict(
        sorted(
            {
                int(c): n for c, n in zip(first["choice"], first["configuration"], strict=True)
            }.items()
        )
    )
    axes = figure.add_subplot()
    for line, agent in enumerate(reversed(agents)):
        part = first[first["agent"] == agent].sort_values("epoch").head(_EPOCHS_SHOWN)
        for choice in names:
            chosen = part.loc[part["choice"] == choice, "epoch"] - part["epoch"].min()
            axes.broken_barh(
                [(float(epoch), 1.0) for epoch in chosen],
                (line - 0.35, 0.7),
                color=_COLOURS[choice % len(_COLOURS)],
                linewidth=0,
            )
    for choice, name in names.items():
        axes.plot([], [], color=_COLOURS[choice % len(_COLOURS)], linewidth=6, label=name)
    axes.set_yticks(range(len(agents)), list(reversed(agents)))
    axes.set_xlim(0, min(_EPOCHS_SHOWN, int(first.groupby("agent").size().max())))
    axes.set_xlabel("epoch of the first held-out episode")
    figure.legend(loc="outside upper center", ncols=min(6, len(names)))
