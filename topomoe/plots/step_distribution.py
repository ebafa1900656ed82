"""How step times spread over batches."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from topomoe.plots.style import COLUMNS, columns_of, new_figure, topology_styles
from topomoe.study_results import StudyResults

NAME = "step_distribution"
TITLE = "Step times over batches"
CAPTION = (
    "Share of batches whose whole step took at most this long (top), and the same relative to each "
    "topology's own mean (below), where the spread shows: a steep curve means that batches differ "
    "little, a long right end is what the 99th percentile sees."
)


def draw(results: StudyResults) -> Figure:
    """Return, for each placement, the distribution of step times and of their deviation."""
    groups = results.groups
    across = min(len(groups), COLUMNS)
    down = -(-len(groups) // across)
    figure = new_figure(0.5 + 4.6 * down)
    grid = figure.subplots(2 * down, across, squeeze=False, sharey=True)
    first_time, first_spread = grid[0, 0], grid[1, 0]
    styles = topology_styles(results.topologies)
    for number in range(across * down):
        time, spread = (grid[2 * (number // across) + row, number % across] for row in (0, 1))
        if number >= len(groups):
            time.remove()
            spread.remove()
            continue
        if number:
            time.sharex(first_time)
            spread.sharex(first_spread)
        group = groups[number]
        for name in results.topologies:
            steps = results.rows(
                "step", group, topology=name, routing=results.default_routing[name]
            )["step_s"].to_numpy()
            ordered = np.sort(steps)
            share = np.arange(1, len(ordered) + 1) / len(ordered)
            look = {key: styles[name][key] for key in ("color", "linewidth")}
            label = results.topology_label(name)
            time.step(1e3 * ordered, share, where="post", label=label, **look)
            spread.step(100 * (ordered / ordered.mean() - 1), share, where="post", **look)
        time.set_title(results.group_label(group))
        time.set_xlabel("whole step (ms)")
        spread.set_xlabel("deviation from own mean (%)")
        for axis in (time, spread):
            axis.grid()
            axis.set_ylim(0, 1.02)
            if number % across == 0:
                axis.set_ylabel("share of batches")
    handles, labels = first_time.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns_of(len(labels), 8))
    return figure
