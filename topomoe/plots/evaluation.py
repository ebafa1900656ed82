"""Figures of trainings and evaluations: policies, what they switched and when, learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from topomoe.plots import (
    evaluation_curves,
    evaluation_policies,
    evaluation_switches,
    evaluation_timeline,
    evaluation_validation,
)
from topomoe.plots.evaluation_rows import by_scenario
from topomoe.plots.style import look, save
from topomoe.run_folder import RunFolder
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from matplotlib.figure import Figure

_COLUMNS = {
    "summary": ("agent", *evaluation_policies.COLUMNS, *evaluation_switches.COLUMNS),
    "timeline": ("agent", *evaluation_timeline.COLUMNS),
    "traffic": evaluation_timeline.TRAFFIC,
    "curve": ("agent", *evaluation_curves.COLUMNS),
    "validation": ("agent", *evaluation_validation.COLUMNS),
}


def draw_evaluation(folder: RunFolder) -> list[Path]:
    """Draw what the run holds as PNG and PDF, and return the paths.

    policies, switches and timeline (one a scenario) of an evaluation, learning_curve and validation
    of a training. Raises InputError where the
    results lack a column, or hold nothing to draw.
    """
    results = folder.results()
    missing = [] if "record" in results else ["record"]
    records = (
        {} if missing else {record: results[results["record"] == record] for record in _COLUMNS}
    )
    for record, rows in records.items():
        if len(rows):
            missing += [column for column in _COLUMNS[record] if column not in rows]
    if missing:
        raise InputError(f"{folder.path}: results.parquet lacks column {missing[0]}")
    paths: list[Path] = []
    with look():
        for name, figure, rows in _figures(records):
            mark_hypothetical(figure, rows)
            paths += save(figure, folder.path / "figures", name)
    if not paths:
        raise InputError(f"{folder.path}: results.parquet holds no record to draw")
    return paths


def _figures(
    records: dict[str, pd.DataFrame],
) -> Iterator[tuple[str, Figure, pd.DataFrame]]:
    """Yield the name of every figure there is something for, the figure, and what it shows."""
    summary, timeline, traffic, curve, validation = (records[record] for record in _COLUMNS)
    if len(summary):
        yield evaluation_policies.NAME, evaluation_policies.draw(summary), summary
        yield evaluation_switches.NAME, evaluation_switches.draw(summary), summary
    if len(timeline):
        scenarios, queues = by_scenario(timeline), by_scenario(traffic)
        for scenario, rows in scenarios.items():
            own = f"_{scenario}" if len(scenarios) > 1 else ""
            yield (
                evaluation_timeline.NAME + own,
                evaluation_timeline.draw(rows, queues.get(scenario)),
                rows,
            )
    if len(curve):
        yield evaluation_curves.NAME, evaluation_curves.draw(curve), curve
    if len(validation):
        yield evaluation_validation.NAME, evaluation_validation.draw(validation), validation


def mark_hypothetical(figure: Figure, rows: pd.DataFrame) -> None:
    """Say so on the figure where no switch turns the configurations into each other."""
    if "switching" in rows and (rows["switching"] == "hypothetical").any():
        # Below the axes: legends outside them are above, where they would lie on a title.
        figure.supxlabel("hypothetical: no switch turns these fabrics into each other", fontsize=9)
