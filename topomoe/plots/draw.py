"""All figures of a study."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from topomoe.plots import (
    cost,
    degradation,
    expert_load,
    gains,
    layer_time,
    link_load,
    moe_time,
    pattern_time,
    placement_balance,
    routing_optimum,
    step_distribution,
    step_time,
)
from topomoe.plots.style import look, save
from topomoe.run_folder import RunFolder
from topomoe.study_results import StudyResults, read_study

FIGURES: tuple[ModuleType, ...] = (
    moe_time,
    step_time,
    gains,
    placement_balance,
    link_load,
    routing_optimum,
    cost,
    degradation,
    pattern_time,
    layer_time,
    expert_load,
    step_distribution,
)


def caption(figure: ModuleType, results: StudyResults) -> str:
    """Return a figure's caption; of those that depend on the run, what they say of this one."""
    return str(figure.caption(results) if hasattr(figure, "caption") else figure.CAPTION)


def figures_of(results: StudyResults) -> tuple[ModuleType, ...]:
    """Return the figures for which the study has results."""
    return tuple(f for f in FIGURES if not hasattr(f, "applies") or f.applies(results))


def draw_study(folder: RunFolder) -> list[Path]:
    """Draw figures/*.png and .pdf from config.toml and results.parquet alone; return the paths.

    The same results give the same bytes. Raises InputError where the results are missing or
    damaged.
    """
    results = read_study(folder)
    paths: list[Path] = []
    for figure in figures_of(results):
        with look():
            paths += save(figure.draw(results), folder.path / "figures", figure.NAME)
    return paths
