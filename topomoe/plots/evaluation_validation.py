"""Figure of a training: what the trained agents cost on the validation timeline, seed by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from topomoe.plots.evaluation_rows import KINDS, RATIO
from topomoe.plots.style import BLACK, GREY, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAME = "validation"
COLUMNS = ("seed", "episode", RATIO, "ratio_to_clairvoyant")
_LINE = 0.32  # inches a seed
_SPREAD = 0.25  # of a line, over which a seed's episodes are spread


def draw(validation: pd.DataFrame) -> Figure:
    """Return a line a seed: dots are episodes, large their mean, the bar the clairvoyant's mean."""
    seeds = sorted(validation["seed"].unique())
    figure = new_figure(1.3 + _LINE * len(seeds))
    axis = figure.add_subplot()
    axis.axvline(1.0, color=GREY, linestyle="--", linewidth=1.0, label="never-switch")
    for line, seed in enumerate(seeds):
        own = validation[validation["seed"] == seed].sort_values("episode", kind="stable")
        ratio = own[RATIO].to_numpy(dtype=np.float64)
        bound = ratio / own["ratio_to_clairvoyant"].to_numpy(dtype=np.float64)
        heights = line + np.linspace(-_SPREAD, _SPREAD, len(ratio) + 2)[1:-1]
        first = line == 0
        axis.plot(
            ratio,
            heights,
            linestyle="",
            marker="o",
            markersize=3,
            color=KINDS["learned"],
            alpha=0.4,
            label="an episode" if first else None,
        )
        axis.plot(
            ratio.mean(),
            line,
            linestyle="",
            marker="o",
            markersize=7,
            color=KINDS["learned"],
            label="mean" if first else None,
        )
        axis.vlines(
            bound.mean(),
            line - 0.4,
            line + 0.4,
            color=BLACK,
            linewidth=1.6,
            label="clairvoyant's mean" if first else "_",
        )
    agent = ", ".join(dict.fromkeys(validation["agent"].astype(str)))
    axis.set_yticks(range(len(seeds)), [f"{agent}, seed {seed:g}" for seed in seeds])
    axis.set_ylim(len(seeds) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
    axis.set_xlabel("validation cost / never-switch")
    figure.legend(loc="outside upper center", ncols=4)
    return figure
