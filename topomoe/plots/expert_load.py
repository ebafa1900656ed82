"""How unevenly the trace uses its experts."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from topomoe.plots.style import BLUE, VERMILLION, new_figure
from topomoe.stats import gini
from topomoe.study_results import StudyResults

NAME = "expert_load"
TITLE = "Load of the experts"
CAPTION = (
    "Load of each expert on held-out requests, sorted within its layer, relative to a uniform "
    "share (1, white): the darker the left end, the hotter the layer's hottest experts; beside it "
    "the Gini coefficient of each layer (0 all equal, near 1 one expert takes all)."
)


def draw(results: StudyResults) -> Figure:
    """Return the heat map layers x sorted experts and each layer's Gini coefficient."""
    rows = results.rows("expert")
    share = rows.pivot(index="layer", columns="index", values="share").to_numpy(dtype=np.float64)
    layers, experts = share.shape
    uneven = gini(share)
    relative = np.sort(share * experts, axis=1)[:, ::-1]
    # One power of two for both ends, so that 1 is white; colder experts and idle ones look alike.
    top = 2.0 ** max(3, np.ceil(np.log2(relative.max())))
    figure = new_figure(min(7.0, 2.0 + 0.11 * max(layers, 8)))
    heat, side = figure.subplots(1, 2, width_ratios=(5, 1), sharey=True)
    image = heat.imshow(
        np.clip(relative, 1 / top, top),
        norm=LogNorm(1 / top, top),
        cmap="PuOr_r",
        aspect="auto",
        interpolation="nearest",
    )
    heat.set_title(
        f"Gini coefficient: mean {uneven.mean():.3f}, "
        f"from {uneven.min():.3f} (layer {uneven.argmin()}) "
        f"to {uneven.max():.3f} (layer {uneven.argmax()})"
    )
    heat.set_xlabel("experts of the layer, hottest first")
    heat.set_ylabel("MoE layer")
    heat.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(image, ax=heat, pad=0.01, label="load / uniform share", extend="min")
    ticks = [2.0**p for p in range(-16, 17) if 1 / top <= 2.0**p <= top]
    bar.ax.yaxis.set_major_locator(FixedLocator(ticks))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
    )
    side.barh(np.arange(layers), uneven, height=0.8, color=BLUE)
    side.axvline(float(uneven.mean()), color=VERMILLION, linewidth=1.2)
    side.set_xlim(0, 1)
    side.set_xlabel("Gini coefficient")
    side.set_title("line: mean", fontsize=8.5)
    side.grid(axis="x")
    return figure
