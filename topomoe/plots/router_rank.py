"""Figure of routers: whether their ranking holds as experts are added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from topomoe.plots.router_style import legend_above, router_styles
from topomoe.plots.style import new_figure
from topomoe.router_results import PERPLEXITY, RouterResults, comparable, seed_ranks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "router_rank"
TITLE = "Rank of the routers by number of experts"
CAPTION = (
    "Left: held-out perplexity, mean over seeds (line) and each seed (points). Right: rank by that "
    "mean, 1 the lowest; bars reach over the ranks within each seed. A router that sees later "
    "tokens counts with its perplexity without them, and not at all where that is not known."
)
QUALITY = ("router", "experts", "seed", "perplexity")
_WIDTH = 0.5  # of the distance between two numbers of experts, over which routers stand


def draw(results: RouterResults) -> Figure | None:
    """Return perplexity and rank against experts; None where the run has no such results.

    Raises:
        InputError: a column is missing.
    """
    quality = results.rows("quality", QUALITY, "size")
    if quality.empty:
        return None
    rows = seed_ranks(comparable(quality).dropna(subset=[PERPLEXITY]), "experts")
    looks = router_styles(rows["router"])
    experts = sorted(int(count) for count in rows["experts"].unique())
    figure = new_figure(4.0)
    left, right = figure.subplots(1, 2)
    for number, (router, look) in enumerate(looks.items()):
        shift = _WIDTH * ((number + 0.5) / len(looks) - 0.5)
        _router(left, right, rows[rows["router"] == router], experts, shift, router, look)
    for axis in (left, right):
        axis.set_xticks(range(len(experts)), [str(count) for count in experts])
        axis.set_xlim(-0.5, len(experts) - 0.5)
        axis.set_xlabel("experts")
        axis.grid()
    left.set_ylabel("held-out perplexity")
    right.set_ylabel("rank")
    right.set_yticks(range(1, len(looks) + 1))
    right.set_ylim(len(looks) + 0.5, 0.5)
    legend_above(figure, left.get_legend_handles_labels()[0])
    return figure


def _router(
    left: Axes,
    right: Axes,
    own: pd.DataFrame,
    experts: list[int],
    shift: float,
    router: str,
    look: tuple[str, str],
) -> None:
    colour, marker = look
    found = own.groupby("experts").agg(
        mean=(PERPLEXITY, "mean"),
        rank=("rank", "first"),
        low=("seed_rank", "min"),
        high=("seed_rank", "max"),
    )
    at = [experts.index(count) + shift for count in found.index.astype(int)]
    seeds = [experts.index(int(count)) + shift for count in own["experts"]]
    left.plot(at, found["mean"], color=colour, marker=marker, markersize=5, label=router)
    left.scatter(seeds, own[PERPLEXITY], s=8, color=colour, alpha=0.5, linewidths=0)
    right.plot(at, found["rank"], color=colour, marker=marker, markersize=8, zorder=3)
    right.vlines(at, found["low"], found["high"], color=colour, linewidth=4, alpha=0.3, zorder=2)
