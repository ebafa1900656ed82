"""Transfer time of four synthetic traffic patterns by how uneven they are."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from topomoe.plots.style import (
    columns_of,
    label_below,
    log_ticks,
    new_figure,
    panels,
    topology_styles,
)
from topomoe.study_results import StudyResults
from topomoe.study_rows import PATTERN_BYTES_PER_PAIR

NAME = "pattern_time"
TITLE = "Traffic patterns"


def caption(results: StudyResults) -> str:
    """Return the caption for the patterns and levels of the run."""
    rows = results.rows("pattern")
    count = rows["pattern"].nunique()
    same = (
        f" in all {count} panels, so all lines start at the same points"
        if count > 1 and (rows["level"] == 0).any()
        else ""
    )
    return (
        f"Time to deliver one synthetic demand of {PATTERN_BYTES_PER_PAIR / 1024:g} KiB a pair of "
        "devices on average, mean over seeded draws (solid) and 99th percentile (dotted, top of "
        "the band), against how far the pattern is from uniform: level 0 is exactly uniform"
        f"{same}."
    )


def draw(results: StudyResults) -> Figure:
    """Return a panel a pattern and a line a topology."""
    rows = results.rows("pattern")
    patterns = list(rows["pattern"].unique())
    figure = new_figure(3.6 if len(patterns) > 1 else 4.0)
    axes = panels(figure, len(patterns))
    for axis, pattern in zip(axes, patterns, strict=True):
        _panel(axis, results, pattern)
        axis.set_title(pattern)
    label_below(axes, "level (0 uniform, 1 full pattern)")
    low, high = axes[0].get_ylim()  # shared by all
    axes[0].yaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axes[0].yaxis.set_minor_locator(NullLocator())
    axes[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0].set_ylabel("transfer time (ms, log scale)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns_of(len(labels), 8))
    return figure


def _panel(axis: Axes, results: StudyResults, pattern: str) -> None:
    for name, style in topology_styles(results.topologies).items():
        rows = results.rows("pattern", pattern=pattern, topology=name)
        times = 1e3 * rows.groupby("level")["time_s"].agg(mean="mean", p99=_p99)
        level = times.index.to_numpy(dtype=float)
        axis.plot(level, times["mean"], **style, markersize=4.5, label=results.topology_label(name))
        axis.plot(level, times["p99"], color=style["color"], linewidth=0.9, linestyle=":")
        axis.fill_between(
            level, times["mean"], times["p99"], color=style["color"], alpha=0.15, linewidth=0
        )
    axis.set_yscale("log")
    axis.grid()


def _p99(times: object) -> float:
    import numpy as np

    return float(np.percentile(np.asarray(times), 99))
