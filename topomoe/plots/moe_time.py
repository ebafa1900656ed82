"""The headline: time in the MoE layers, by part, placement and topology."""

from __future__ import annotations

from matplotlib.figure import Figure

from topomoe.plots.bars import stacked_bars
from topomoe.study_results import StudyResults

NAME = "moe_time"
TITLE = "Time in the MoE layers"
CAPTION = (
    "Mean time a step spends in its MoE layers, by part, one panel a placement, each topology "
    "under its default routing (the number is the mean in ms): the black tick is a "
    "time that no routing beats for dispatch and combine with that placement's demand on that "
    "topology (start overhead, and the bounds under Method); it does not know every bottleneck, so "
    "the gap from it to the end of the blue bars is at most what another routing could save."
)


def draw(results: StudyResults) -> Figure:
    """Return the stacked bars of the MoE layers alone."""
    return stacked_bars(results, whole_step=False)
