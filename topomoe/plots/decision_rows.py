"""What the figures of a study of decisions share: checked columns, and levels of redundancy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from topomoe.durations import duration_text
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SECONDS, EPOCHS = "delay_s", "delay_epochs"


def check_columns(frame: pd.DataFrame, columns: Sequence[str], figure: str) -> None:
    """Raise InputError where the figure's rows lack a column or there are none."""
    for column in columns:
        if column not in frame:
            raise InputError(f"results.parquet lacks column {column}, which {figure} shows")
    if frame.empty:
        raise InputError(f"results.parquet holds no rows for {figure}")


def redundancy_levels(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each redundancy (or number of slots), ascending, by what to call it."""
    for column, text in (("redundancy", "redundancy {:g}"), ("slots", "{:g} slots")):
        if column in frame and frame[column].notna().any():
            values = sorted(frame[column].dropna().unique())
            return {text.format(value): frame[frame[column] == value] for value in values}
    return {"": frame}


def delay_column(frame: pd.DataFrame) -> str:
    """Return the column of the delay of a switch: in epochs if the rows have it, else seconds."""
    return EPOCHS if EPOCHS in frame and frame[EPOCHS].notna().any() else SECONDS


def delay_label(column: str) -> str:
    """Return what to write beside the axis of delays."""
    return "epochs that a migration lasts" if column == EPOCHS else "delay of a switch"


def delay_text(delay: float, column: str) -> str:
    """Return a delay as the axis shows it."""
    if column == EPOCHS or delay == 0:
        return f"{delay:g}"
    return duration_text(float(delay)).replace("us", "µs")
