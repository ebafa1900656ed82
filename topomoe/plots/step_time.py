"""The whole step: the MoE layers, attention and dense layers."""

from __future__ import annotations

from matplotlib.figure import Figure

from topomoe.plots.bars import stacked_bars
from topomoe.study_results import StudyResults

NAME = "step_time"
TITLE = "Time of the whole step"
CAPTION = (
    "The same bars for the whole step: the light part is attention, dense layers and head, which "
    "no placement or topology changes; the line is the 95 % interval of the mean over bootstrapped "
    "requests, where the run has one and enough requests behind it."
)


def draw(results: StudyResults) -> Figure:
    """Return the stacked bars of the whole step."""
    return stacked_bars(results, whole_step=True)
