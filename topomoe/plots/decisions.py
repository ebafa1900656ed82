"""All figures of a study of decisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from topomoe.plots import (
    decision_delay,
    decision_gains,
    decision_map,
    decision_queue,
    decision_scale,
    decision_size,
)
from topomoe.plots.style import look, save
from topomoe.run_folder import RunFolder
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def draw_decisions(folder: RunFolder) -> list[Path]:
    """Draw figures/*.png and .pdf for what the run has; InputError where it lacks a column."""
    results = folder.results()
    if "part" not in results:
        raise InputError(f"{folder.path}: results.parquet lacks column part")
    paths: list[Path] = []
    with look():
        try:
            for name, figure in _figures(results):
                paths += save(figure, folder.path / "figures", name)
        except KeyError as error:
            raise InputError(
                f"{folder.path}: results.parquet lacks column {error.args[0]}"
            ) from None
    return paths


def _figures(results: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Yield the figures that there are results for, and their names."""
    parts = {
        str(part): rows.dropna(axis=1, how="all")
        for part, rows in results.groupby("part", sort=False)
    }
    if "boundary" in parts:
        for scenario, rows in parts["boundary"].groupby("scenario", sort=False):
            own = rows.dropna(axis=1, how="all")
            yield f"{decision_map.NAME}_{scenario}", decision_map.draw(own)
            yield f"{decision_delay.NAME}_{scenario}", decision_delay.draw(own)
    if "gains" in parts:
        gains = parts["gains"]
        yield decision_gains.NAME, decision_gains.draw(gains[gains["record"] == "gain"])
    if "queue" in parts:
        yield decision_queue.NAME, decision_queue.draw(parts["queue"])
    if "size" in parts:
        yield decision_size.NAME, decision_size.draw(parts["size"])
    if "scale" in parts:
        from topomoe.commands.scales import PUBLISHED

        published = {devices: 1 - own / base for devices, (base, own) in PUBLISHED.items()}
        yield decision_scale.NAME, decision_scale.draw(parts["scale"], published)
