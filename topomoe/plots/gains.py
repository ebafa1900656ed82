"""What routing, placement and topology gain, each alone."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from topomoe.plots.style import BLACK, columns_of, log_ticks, new_figure, topology_styles
from topomoe.study_results import StudyResults
from topomoe.study_results import gains as gains_of

NAME = "gains"
TITLE = "Routing, placement and topology apart"
CAPTION = (
    "Mean MoE time after one change alone, relative to before it (left of the line is faster): "
    "another routing on the same topology and placement, another placement on the same topology, "
    "and every topology against the fastest one with the same placement; all panels have one "
    "scale, so their spreads compare."
)


def draw(results: StudyResults) -> Figure:
    """Return a panel a kind of change and a dot a topology."""
    table = gains_of(results)
    changes = []
    for kind in ("routing", "replica routing", "placement", "topology"):
        rows = table[table["kind"] == kind]
        if not rows.empty:
            if kind == "topology":
                rows = pd.concat([_fastest(rows), rows])
            changes.append((kind, rows.assign(line=_lines(results, kind, rows))))
    if not changes:
        figure = new_figure(1.0)
        figure.text(
            0.5,
            0.5,
            "one topology, placement and routing: nothing to hold it against",
            ha="center",
            va="center",
        )
        return figure
    heights = [max(1, rows["line"].nunique()) for _, rows in changes]
    figure = new_figure(0.8 + 0.75 * len(changes) + 0.36 * sum(heights))
    axes = figure.subplots(len(changes), 1, sharex=True, squeeze=False, height_ratios=heights)
    low = min(1.0, float(table["ratio"].min()))
    high = max(1.0, float(table["ratio"].max()))
    for axis, (kind, rows) in zip(axes[:, 0], changes, strict=True):
        _panel(axis, results, kind, rows)
        axis.set_xscale("log")
        axis.set_xlim(low / 1.06, high * 1.06)
        axis.xaxis.set_major_locator(FixedLocator(log_ticks(low / 1.06, high * 1.06)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[-1, 0].set_xlabel("MoE time / MoE time of the reference (log scale; below 1 is faster)")
    handles = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=s["marker"],
            color=s["color"],
            label=results.topology_label(name),
        )
        for name, s in topology_styles(results.topologies).items()
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=columns_of(len(handles), 8))
    return figure


def _lines(results: StudyResults, kind: str, rows: pd.DataFrame) -> list[str]:
    """Return the label of the line that each change is drawn on."""
    several = len({replicas for _, replicas in results.groups}) > 1
    if kind == "routing":
        return [str(choice) for choice in rows["choice"]]
    if kind == "replica routing":
        return [f"{p}, {c}" for c, p in zip(rows["choice"], rows["placement"], strict=True)]
    if kind == "topology" or several:
        return [
            results.group_label((p, r))
            for p, r in zip(rows["placement"], rows["replica_routing"], strict=True)
        ]
    return [str(choice) for choice in rows["choice"]]


def _fastest(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row of ratio 1 for the topology that each placement's others are held against."""
    once = rows.drop_duplicates(["placement", "replica_routing"])
    return once.assign(topology=once["reference"], choice=once["reference"], ratio=1.0)


def _panel(axis: Axes, results: StudyResults, kind: str, rows: pd.DataFrame) -> None:
    lines = list(dict.fromkeys(rows["line"]))
    styles = topology_styles(results.topologies)
    spread = 0.5 / max(1, len(styles) - 1)
    axis.axvline(1.0, color=BLACK, linewidth=1.0)
    for edge in range(1, len(lines)):
        axis.axhline(edge - 0.5, color="#EEEEEE", linewidth=0.8)
    for number, (name, style) in enumerate(styles.items()):
        own = rows[rows["topology"] == name]
        axis.plot(
            own["ratio"],
            [lines.index(line) + (number - (len(styles) - 1) / 2) * spread for line in own["line"]],
            linestyle="",
            marker=style["marker"],
            color=style["color"],
            markersize=5.5,
        )
    axis.set_yticks(range(len(lines)), lines)
    axis.set_ylim(len(lines) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    first = results.groups[0]
    reference = {
        "routing": f"the topology's default routing ({results.group_label(results.last_group)})",
        "replica routing": first[1],
        "placement": first[0],
        "topology": "the fastest topology with the same placement",
    }[kind]
    axis.set_title(f"{kind} alone, against {reference}", loc="left")
