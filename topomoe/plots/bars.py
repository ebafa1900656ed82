"""Stacked bars of a step's parts, a panel a placement, a bar a topology."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from topomoe.plots.style import (
    BLACK,
    GREEN,
    PARTS,
    VERMILLION,
    label_below,
    new_figure,
    panel_rows,
    panels,
)
from topomoe.study_results import Group, StudyResults

_COLUMNS = {
    "dispatch": "dispatch_s",
    "combine": "combine_s",
    "compute": "compute_s",
    "backward": "backward_s",
    "attention and dense": "other_s",
}


def stacked_bars(results: StudyResults, whole_step: bool) -> Figure:
    """Return the figure of the MoE layers alone, or of the whole step."""
    count = len(results.groups)
    bars = len(results.topologies)
    figure = new_figure(0.9 + panel_rows(count) * (0.75 + 0.3 * bars))
    what = "step" if whole_step else "moe"
    largest = max(float(results.defaults[f"{what}_p99_s"].max()), _sums(results, whole_step))
    parts = [
        part
        for part, column in _COLUMNS.items()
        if (results.defaults[column] > 0).any() and (whole_step or column != "other_s")
    ]
    axes = panels(figure, count)
    for axis, group in zip(axes, results.groups, strict=True):
        _panel(axis, results, group, parts, what)
        axis.set_xlim(0, 1.22e3 * largest)
        axis.set_title(results.group_label(group))
    label_below(axes, "whole step (ms)" if whole_step else "MoE layers, a step (ms)")
    axes[0].invert_yaxis()
    found = zip(*axes[0].get_legend_handles_labels(), strict=True)
    drawn = sorted(found, key=lambda pair: parts.index(pair[1]) if pair[1] in parts else len(parts))
    figure.legend(
        [handle for handle, _ in drawn],
        [label for _, label in drawn],
        loc="outside upper center",
        ncols=len(drawn) if len(drawn) <= 6 else 4,
    )
    return figure


def _sums(results: StudyResults, whole_step: bool) -> float:
    columns = [c for c in _COLUMNS.values() if whole_step or c != "other_s"]
    return float(results.defaults[columns].sum(axis=1).max())


def _panel(axis: Axes, results: StudyResults, group: Group, parts: list[str], what: str) -> None:
    rows = results.of_group(group)
    places = np.arange(len(rows))
    left = np.zeros(len(rows))
    for part in parts:
        seconds = rows[_COLUMNS[part]].to_numpy()
        axis.barh(
            places, 1e3 * seconds, left=1e3 * left, height=0.66, color=PARTS[part], label=part
        )
        left = left + seconds
    mean, p99 = rows[f"{what}_s"].to_numpy(), rows[f"{what}_p99_s"].to_numpy()
    axis.vlines(
        1e3 * rows["network_bound_s"].to_numpy(),
        places - 0.44,
        places + 0.44,
        color=BLACK,
        linewidth=1.6,
        label="bound on dispatch + combine",
    )
    if abs(mean - left).max() > 1e-9 * mean.max():
        axis.plot(
            1e3 * mean,
            places,
            "o",
            color="white",
            markeredgecolor=BLACK,
            markersize=4.5,
            label="mean, overlapped",
        )
    reach = np.maximum(p99, left)
    apart = 0.0
    if what == "step" and results.has_intervals:
        low, high = rows["step_low_s"].to_numpy(), rows["step_high_s"].to_numpy()
        reach = np.maximum(reach, high)
        apart = 0.17  # the interval and the percentile lie at about the same time
        axis.hlines(
            places + apart,
            1e3 * low,
            1e3 * high,
            color=GREEN,
            linewidth=2.2,
            label="95 % interval of the mean",
        )
    axis.plot(
        1e3 * p99, places - apart, "D", color=VERMILLION, markersize=3.2, label="99th percentile"
    )
    for place, value, end in zip(places, mean, reach, strict=True):
        axis.annotate(
            _short(1e3 * value),
            (1e3 * end, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axis.set_yticks(places, [results.topology_label(name) for name in rows["topology"]])
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _short(value: float) -> str:
    """Return three significant digits, never in powers of ten.

    >>> _short(13.704), _short(1234.5), _short(0.02345)
    ('13.7', '1234', '0.0234')
    """
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}" if value >= 0.1 else f"{value:.3g}"
