"""Figure of a study of decisions: what switching whole fabrics gains, by the number of devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from topomoe.durations import duration_text
from topomoe.plots.decision_rows import check_columns
from topomoe.plots.evaluation_rows import CLAIRVOYANT, NEVER
from topomoe.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILLION,
    new_figure,
)
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "gain_by_scale"
COLUMNS = ("record", "accounting", "devices", "delay_s", "agent", "ratio", "ratio_to_mean")
_BASES = {"ratio_to_mean": "the mean of the statics", "ratio": "the best static"}
_AGENTS = {
    "rule": (VERMILLION, "s", "OptiMoE's rule"),
    "greedy": (ORANGE, "v", "greedy"),
    "hysteresis": (BLUE, "o", "hysteresis, tuned in training"),
    CLAIRVOYANT: (BLACK, "D", "clairvoyant"),
}
_OTHERS = (PURPLE, GREEN)
_TITLES = {"path-latency": "path latency alone"}
_LEAST = -30.0  # percent; what is worse is cut off


def draw(
    frame: pd.DataFrame, published: Mapping[int, float] | None = None, delay: float | None = None
) -> Figure:
    """Return the gain over the mean of the statics, and over the best one, against devices.

    Args:
        frame: rows of record ``agent`` with columns accounting (a column of panels each), devices,
            delay_s, agent, ratio and ratio_to_mean, and the ends of their intervals (_low, _high).
        published: gains over the mean of the statics as published, by devices.
        delay: seconds of a switch to show; None: the least above 0, or 0.

    Raises:
        InputError: a column is missing, or there is no row for the delay.
    """
    check_columns(frame, COLUMNS, NAME)
    agents = frame[frame["record"] == "agent"]
    check_columns(agents, (), NAME)
    delays = sorted(agents["delay_s"].unique())
    shown = next((d for d in delays if d > 0), delays[0]) if delay is None else delay
    rows = agents[agents["delay_s"] == shown]
    if rows.empty:
        raise InputError(f"delay must be one of {delays}, got {shown}")
    accountings = list(dict.fromkeys(rows["accounting"]))
    figure = new_figure(5.6)
    grid = figure.subplots(2, len(accountings), sharex=True, sharey="row", squeeze=False)
    devices = sorted(int(count) for count in rows["devices"].unique())
    for column, accounting in enumerate(accountings):
        own = rows[rows["accounting"] == accounting]
        for axis, base in zip(grid[:, column], _BASES, strict=True):
            _panel(axis, own, base, devices)
        known = {d: gain for d, gain in (published or {}).items() if d in devices}
        if known:
            grid[0, column].plot(
                [devices.index(d) for d in known],
                [100 * gain for gain in known.values()],
                color=GREY,
                linestyle="--",
                marker="x",
                label="published by OptiMoE",
            )
        grid[0, column].set_title(_TITLES.get(accounting, accounting), loc="left")
        grid[1, column].set_xlabel("devices")
    for axis, base in zip(grid[:, 0], _BASES.values(), strict=True):
        axis.set_ylabel(f"time saved against\n{base} (%)")
    cost = "switches not charged" if shown == 0 else f"a switch takes {duration_text(shown)}"
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=3, title=cost.replace("us", "µs")
    )
    return figure


def _panel(axis: Axes, rows: pd.DataFrame, base: str, devices: list[int]) -> None:
    axis.axhline(0.0, color=GREY, linewidth=1.0)
    if base == "ratio_to_mean":
        # The best static's own gain over the mean: their ratios to one cost, divided.
        best = rows.assign(gain=rows["ratio_to_mean"] / rows["ratio"]).groupby("devices")["gain"]
        gains = 100 * (1 - best.first())
        places = [devices.index(int(count)) for count in gains.index]
        axis.plot(places, gains, color=GREEN, linewidth=4, alpha=0.5, label="the best static")
    spare = iter(_OTHERS * len(rows))
    worst = 0.0
    for agent in dict.fromkeys(rows["agent"]):
        if agent in (NEVER, "static-best"):
            continue
        colour, marker, label = _AGENTS.get(agent, (next(spare), "^", agent))
        own = rows[rows["agent"] == agent].sort_values("devices")
        places = [devices.index(int(count)) for count in own["devices"]]
        gain = 100 * (1 - own[base].to_numpy(dtype=np.float64))
        worst = min(worst, float(np.nanmin(gain, initial=0.0)))
        # All of them often lie on one another: the bound is hollow and around the others.
        bound = agent == CLAIRVOYANT
        axis.plot(
            places,
            gain,
            color=colour,
            linestyle=":" if bound else "-",
            marker=marker,
            markersize=9 if bound else 5,
            markerfacecolor="none" if bound else colour,
            label=label,
        )
        if f"{base}_low" in own:
            high, low = (100 * (1 - own[f"{base}_{end}"]) for end in ("low", "high"))
            axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.set_xticks(range(len(devices)), [str(count) for count in devices])
    if worst < _LEAST:
        axis.set_ylim(bottom=_LEAST)
    axis.grid()
