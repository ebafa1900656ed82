"""Figure of an evaluation: who switched when, over the phases of the traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch

from topomoe.plots.evaluation_rows import CLAIRVOYANT, NEVER
from topomoe.plots.style import BLACK, GREY, columns_of, new_figure, topology_styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "timeline"
COLUMNS = ("seed", "episode", "epoch", "topology", "placement", "cost")
TRAFFIC = ("seed", "episode", "epoch", "feature", "value")
_EPOCHS_SHOWN = 120
_FEATURES_SHOWN = 8
# Light ones, which are told from the topologies' beside them.
_PLACEMENTS = (
    "#D9D9D9",
    "#80B1D3",
    "#FDB462",
    "#B3DE69",
    "#BC80BD",
    "#FB8072",
    "#8DD3C7",
    "#FFED6F",
    "#BEBADA",
    "#737373",
    "#FCCDE5",
    "#A6761D",
)


def draw(timeline: pd.DataFrame, traffic: pd.DataFrame | None = None) -> Figure:
    """Return the choices of every agent in the first held-out episode of one scenario.

    At the top what is known of the coming epoch (the queue) and what staying and the clairvoyant's
    choices cost; below a line an agent, the clairvoyant first, then the cheapest: colour is the
    topology, and the strip under it the placement. ``traffic`` holds the queue features, a row an
    epoch and feature.
    """
    runs = _first_episode(timeline)
    features = _features(next(iter(runs.values())), traffic)
    count = len(features.columns)
    heights = [0.15 + 0.13 * count] * (count > 0) + [0.9, 0.3 * len(runs)]
    figure = new_figure(1.5 + sum(heights))
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    if count:
        _queue(axes[0, 0], features)
    _cost(axes[-2, 0], runs)
    _choices(axes[-1, 0], runs)
    return figure


def _first_episode(timeline: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return each agent's first episode on the first seed that all of them share, or their own."""
    episode = timeline[timeline["episode"] == timeline["episode"].min()]
    runs = {}
    for agent in dict.fromkeys(episode["agent"]):
        own = episode[episode["agent"] == agent]
        own = own[own["seed"] == own["seed"].min()].sort_values("epoch", kind="stable")
        runs[str(agent)] = own.head(_EPOCHS_SHOWN).reset_index(drop=True)
    total = {agent: float(own["cost"].sum()) for agent, own in runs.items()}
    order = sorted(runs, key=lambda agent: (agent != CLAIRVOYANT, total[agent]))
    return {agent: runs[agent] for agent in order}


def _features(run: pd.DataFrame, traffic: pd.DataFrame | None) -> pd.DataFrame:
    """Return the queue features that change most: shares as they are, others over their most."""
    if traffic is None:
        return run.iloc[:, :0]
    same = (traffic["seed"] == run["seed"].iloc[0]) & (traffic["episode"] == run["episode"].iloc[0])
    values = traffic[same].pivot_table(
        index="epoch", columns="feature", values="value", aggfunc="first", sort=False
    )
    values = values.reindex(run["epoch"]).dropna(axis=1)
    values = values.loc[:, values.max() > values.min()]
    low, high = values.min().clip(upper=0.0), values.max().clip(lower=1.0)
    scaled: pd.DataFrame = (values - low) / (high - low)
    order = scaled.std().sort_values(ascending=False, kind="stable").index[:_FEATURES_SHOWN]
    return scaled.loc[:, scaled.columns.isin(order)]


def _queue(axis: Axes, features: pd.DataFrame) -> None:
    extent = (0.0, float(len(features)), len(features.columns) - 0.5, -0.5)
    axis.imshow(
        features.to_numpy(dtype=np.float64).T,
        aspect="auto",
        cmap="Greys",
        vmin=0,
        vmax=1,
        interpolation="nearest",
        extent=extent,
    )
    axis.set_yticks(
        range(len(features.columns)),
        [str(column) for column in features],
        fontsize=7,
    )
    axis.tick_params(axis="y", length=0)
    axis.set_title("queue: what is known of an epoch before it (dark: much)", loc="left")


def _cost(axis: Axes, runs: Mapping[str, pd.DataFrame]) -> None:
    """Draw what each epoch costs who stays and who knows, relative to staying's mean."""
    shown = [(NEVER, GREY), (CLAIRVOYANT, BLACK)]
    lines = [(runs[agent]["cost"], agent, colour) for agent, colour in shown if agent in runs]
    if not lines:
        agent, run = next(iter(runs.items()))
        lines = [(run["cost"], agent, BLACK)]
    scale = max(float(lines[0][0].mean()), 1e-300)
    for cost, agent, colour in lines:
        steps = np.append(cost.to_numpy(), cost.iloc[-1]) / scale
        axis.step(np.arange(len(steps)), steps, where="post", color=colour, lw=1.0, label=agent)
    axis.set_ylabel("epoch cost")
    axis.set_title(f"cost, relative to the mean of {lines[0][1]}", loc="left")
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(lines), borderaxespad=0.1)
    axis.grid(axis="y")


def _choices(axis: Axes, runs: Mapping[str, pd.DataFrame]) -> None:
    topologies, placements = (
        sorted({str(value) for run in runs.values() for value in run[part].fillna("")})
        for part in ("topology", "placement")
    )
    topology_colour = {name: s["color"] for name, s in topology_styles(tuple(topologies)).items()}
    both = len(placements) > 1
    colour = {name: _PLACEMENTS[place % len(_PLACEMENTS)] for place, name in enumerate(placements)}
    for line, run in enumerate(runs.values()):
        if len(topologies) > 1 or not both:
            top, height = line - 0.38, 0.5 if both else 0.76
            _strip(axis, run["topology"], topology_colour, top, height)
        if both:
            alone = len(topologies) == 1
            top, height = (line - 0.38, 0.76) if alone else (line + 0.12, 0.26)
            _strip(axis, run["placement"], colour, top, height)
    axis.set_yticks(range(len(runs)), list(runs))
    axis.set_ylim(len(runs) - 0.45, -0.55)
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(0, max(len(run) for run in runs.values()))
    axis.set_xlabel("epoch of the first held-out episode")
    handles = []
    if len(topologies) > 1 or not both:
        handles += [Patch(color=topology_colour[name], label=name) for name in topologies]
    if both:
        handles += [Patch(color=colour[name], label=f"placement {name}") for name in placements]
    axis.figure.legend(
        handles=handles, loc="outside upper center", ncols=columns_of(len(handles), 6)
    )


def _strip(
    axis: Axes, names: pd.Series, colour: Mapping[str, str], top: float, height: float
) -> None:
    """Draw runs of equal names; a thin gap shows every change."""
    values: Sequence[str] = [str(name) for name in names.fillna("")]
    starts = [0, *(i for i in range(1, len(values)) if values[i] != values[i - 1]), len(values)]
    for begin, end in pairwise(starts):
        axis.broken_barh(
            [(begin, end - begin)],
            (top, height),
            facecolor=colour[values[begin]],
            edgecolor="white",
            linewidth=0.6,
        )
