"""Which links carry the traffic: the load of every link, drawn on the grid of devices."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, PathCollection, PolyCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.path import Path as Curve
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from topomoe.plots.link_geometry import (
    LinkKinds,
    chord_curves,
    half_cells,
    link_kinds,
    near_segments,
    overhang,
    tiers,
    wrap_segments,
)
from topomoe.plots.style import WIDTH, log_ticks, new_figure
from topomoe.study_results import StudyResults

NAME = "link_load"
TITLE = "Load of the links"
_COLUMNS = 3
_SPAN = 50.0  # ratio that the colour scale covers at most
_TITLE, _STRIP, _GAP, _BAR = 0.5, 0.15, 0.18, 0.75  # inches


def caption(results: StudyResults) -> str:
    """Return the caption; in training the links carry the gradients too."""
    what = "all all-to-alls, backward too," if results.training else "dispatch and combine"
    return (
        f"How long each link is busy in a mean layer (bytes of {what} over capacity; last "
        "placement, default routings; one colour scale): lines beside each other are the two "
        "directions between neighbours, stubs at the edges wrap around, curves are circuits "
        "and other links between devices, a device's cell is its busiest link up (upper left) and "
        "down (lower right), and the strips are the links between switch tiers and all between "
        "devices, busiest first, with their number."
    )


def draw(results: StudyResults) -> Figure:
    """Return a map of link loads a topology."""
    busy = [_busy(results, name) for name in results.topologies]
    strips = [_classes(results, name) for name in results.topologies]
    norm, colours = _scale(busy), _colours()
    across = min(_COLUMNS, len(busy))
    down = -(-len(busy) // across)
    rows, columns = results.grid
    wide = (WIDTH - _GAP) / max(2, across) - _GAP
    tall = float(np.clip(wide * (rows + 1) / (columns + 1), 1.2, 4.4))
    cell = 72.0 * min(wide / (columns + 1), tall / (rows + 1))
    strip_height = _STRIP * max(len(s) for s in strips)
    block = _TITLE + tall + strip_height + _GAP
    height = down * block + _BAR
    figure = new_figure(height, _GAP + across * (wide + _GAP))
    figure.set_layout_engine("none")

    def box(left: float, top: float, across: float, down: float) -> Axes:
        inches = figure.get_figwidth()
        return figure.add_axes(
            (left / inches, 1 - (top + down) / height, across / inches, down / height)
        )

    for number, name in enumerate(results.topologies):
        left = _GAP + (number % across) * (wide + _GAP)
        top = (number // across) * block + _TITLE
        _map(box(left, top, wide, tall), results, name, busy[number], colours, norm, cell)
        if strips[number]:
            size = _STRIP * len(strips[number])
            axis = box(left, top + tall + 0.04, wide * 0.62, size)
            _strips(axis, strips[number], busy[number], colours, norm)
    middle = figure.get_figwidth() / 2
    bar = figure.colorbar(
        ScalarMappable(norm, colours),
        cax=box(middle - 2.4, height - _BAR + 0.12, 4.8, 0.13),
        orientation="horizontal",
        label="busy time of a link in a mean layer (us, log scale)",
        extend="min",
    )
    bar.ax.xaxis.set_major_locator(FixedLocator(log_ticks(norm.vmin or 1.0, norm.vmax or 1.0)))
    bar.ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    bar.ax.xaxis.set_minor_locator(NullLocator())
    return figure


def _scale(busy: list[NDArray[np.float64]]) -> LogNorm:
    top = max(float(b.max()) for b in busy) or 1.0
    carried = [float(b[b > 0].min()) for b in busy if (b > 0).any()]
    low = max(min(carried, default=top), top / _SPAN)
    return LogNorm(low if low < top else top / 2, top)


def _colours() -> Colormap:
    import matplotlib

    shades = matplotlib.colormaps["magma_r"](np.linspace(0.12, 0.95, 256))
    return LinearSegmentedColormap.from_list("load", shades)


def _ends(results: StudyResults, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = results.rows(
        "link", results.last_group, topology=name, routing=results.default_routing[name]
    )
    return rows["source"].to_numpy(dtype=np.int64), rows["target"].to_numpy(dtype=np.int64)


def _busy(results: StudyResults, name: str) -> NDArray[np.float64]:
    """Return the microseconds a layer that each link is busy, [L]."""
    rows = results.rows(
        "link", results.last_group, topology=name, routing=results.default_routing[name]
    )
    return np.asarray(1e6 * rows["load_bytes"] / rows["capacity_bytes_per_s"], dtype=np.float64)


def _classes(results: StudyResults, name: str) -> list[tuple[str, NDArray[np.bool_]]]:
    """Return the links [L] that the grid cannot show one by one, by kind, with a label."""
    source, target = _ends(results, name)
    kinds = link_kinds(source, target, results.grid)
    tier = tiers(source, target, results.grid[0] * results.grid[1])
    found = zip(tier[source[kinds.upper]], tier[target[kinds.upper]], strict=True)
    pairs = sorted({(int(a), int(b)) for a, b in found}, key=lambda p: (min(p), p))
    classes = [
        (f"tier {a} to {b}", kinds.upper & (tier[source] == a) & (tier[target] == b))
        for a, b in pairs
    ]
    if kinds.chord.any():
        classes.append(("device to device", kinds.near | kinds.chord))
    return [(f"{label} ({int(mask.sum())})", mask) for label, mask in classes]


def _map(
    axis: Axes,
    results: StudyResults,
    name: str,
    busy: NDArray[np.float64],
    colours: Colormap,
    norm: LogNorm,
    cell: float,
) -> None:
    """Draw one topology's links on the grid; ``cell`` points lie between two devices."""
    rows, columns = results.grid
    source, target = _ends(results, name)
    kinds = link_kinds(source, target, results.grid)
    shade = colours(norm(np.clip(busy, norm.vmin, None)))
    order = np.argsort(busy, kind="stable")  # the busiest on top
    width = float(np.clip(0.11 * cell, 0.4, 3.0))
    beside = min(0.1, 3.0 / cell)
    if kinds.chord.any():
        width = min(0.8, width)
    _cells(axis, kinds, source, target, busy, colours, norm, results.grid)
    near = order[kinds.near[order]]
    axis.add_collection(
        LineCollection(
            list(near_segments(source[near], target[near], columns, beside)),
            colors=shade[near],
            linewidths=width,
        )
    )
    wrap = order[kinds.wrap[order]]
    axis.add_collection(
        LineCollection(
            list(wrap_segments(source[wrap], target[wrap], results.grid, beside)),
            colors=np.concatenate([shade[wrap], shade[wrap]]),
            linewidths=width,
        )
    )
    chord = order[kinds.chord[order]]
    curves = chord_curves(source[chord], target[chord], columns)
    axis.add_collection(
        PathCollection(
            [Curve(c, [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3]) for c in curves],
            facecolors="none",
            edgecolors=shade[chord],
            linewidths=width,
        )
    )
    if not kinds.up.any():
        axis.plot(
            np.tile(np.arange(columns), rows),
            np.repeat(np.arange(rows), columns),
            "s",
            color="#BBBBBB",
            markersize=float(np.clip(0.16 * cell, 1.0, 5.0)),
        )
    edge = max(0.8 if kinds.wrap.any() else 0.55, 0.2 + overhang(curves, results.grid))
    axis.set_xlim(-edge, columns - 1 + edge)
    axis.set_ylim(rows - 1 + edge, -edge)
    axis.set_aspect("equal")
    axis.set_axis_off()
    axis.set_title(
        f"{results.topology_label(name)} ({results.default_routing[name]})\n"
        f"busiest {busy.max():.4g} us, mean {busy.mean():.4g} us"
    )


def _cells(
    axis: Axes,
    kinds: LinkKinds,
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    busy: NDArray[np.float64],
    colours: Colormap,
    norm: LogNorm,
    grid: tuple[int, int],
) -> None:
    """Draw each device's link to its switch above its link from it; its busiest where several."""
    devices = grid[0] * grid[1]
    half = 0.2 if kinds.chord.any() or kinds.near.any() else 0.42
    for mask, device, upward in ((kinds.up, source, True), (kinds.down, target, False)):
        if not mask.any():
            continue
        worst = np.zeros(devices)
        np.maximum.at(worst, device[mask], busy[mask])
        linked = np.unique(device[mask])
        axis.add_collection(
            PolyCollection(
                list(half_cells(linked, grid[1], upward, half)),
                facecolors=colours(norm(np.clip(worst[linked], norm.vmin, None))),
                edgecolors="white",
                linewidths=0.4,
                zorder=3,
            )
        )


def _strips(
    axis: Axes,
    classes: list[tuple[str, NDArray[np.bool_]]],
    busy: NDArray[np.float64],
    colours: Colormap,
    norm: LogNorm,
) -> None:
    """Draw each class of links as a strip, busiest first."""
    for number, (_, mask) in enumerate(classes):
        chosen = np.sort(busy[mask])[::-1]
        axis.pcolormesh(
            np.linspace(0, 1, len(chosen) + 1),
            [number + 0.1, number + 0.9],
            np.clip(chosen, norm.vmin, None)[None],
            cmap=colours,
            norm=norm,
        )
    axis.set_xlim(0, 1)
    axis.set_ylim(len(classes), 0)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    axis.set_xticks([])
    axis.set_yticks(np.arange(len(classes)) + 0.5, [label for label, _ in classes], fontsize=7)
    axis.yaxis.tick_right()
    axis.tick_params(axis="y", length=0, pad=2)
