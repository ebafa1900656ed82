"""All figures of a comparison of placement methods."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from topomoe.plots import (
    placement_batches,
    placement_compute,
    placement_front,
    placement_methods,
    placement_moves,
    placement_shift,
)
from topomoe.plots.style import look, save
from topomoe.run_folder import RunFolder
from topomoe.topologies.errors import InputError

FIGURES: tuple[ModuleType, ...] = (
    placement_methods,
    placement_compute,
    placement_batches,
    placement_front,
    placement_moves,
    placement_shift,
)


def draw_placements(folder: RunFolder) -> list[Path]:
    """Draw figures/*.png and .pdf for what the run has; InputError where it lacks a column."""
    results = folder.results()
    paths: list[Path] = []
    for figure in FIGURES:
        rows = results[results["record"] == figure.RECORD].dropna(axis=1, how="all")
        if rows.empty:
            continue
        with look():
            try:
                drawn = figure.draw(rows, results)
            except KeyError as error:
                raise InputError(
                    f"{folder.path}: results.parquet lacks column {error.args[0]}"
                ) from None
            paths += save(drawn, folder.path / "figures", figure.NAME)
    return paths
