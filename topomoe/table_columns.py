"""Columns of a table from names and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from topomoe.table_text import Cell, Table, decimals

if TYPE_CHECKING:
    import pandas as pd

Column = tuple[str, bool, list[Cell]]  # header, numeric, cells


def table_of(name: str, title: str, note: str, columns: Sequence[Column]) -> Table:
    """Return the table of these columns."""
    return Table(
        name,
        title,
        note,
        tuple(header for header, _, _ in columns),
        tuple(numeric for _, numeric, _ in columns),
        tuple(zip(*(cells for _, _, cells in columns), strict=True)),
    )


def text_column(header: str, values: Iterable[object], numeric: bool = False) -> Column:
    """Return a column of texts."""
    return header, numeric, [Cell(str(value)) for value in values]


def number_column(
    header: str, values: pd.Series[float], best: bool | pd.Series[float] = True
) -> Column:
    """Return a column of numbers; the least is bold, or those that equal ``best`` in their row."""
    form: Callable[[float], str] = f"{{:.{decimals(values)}f}}".format
    texts = [form(value) for value in values]
    if isinstance(best, bool):
        least = [form(values.min()) if best and len(values) else ""] * len(texts)
    else:
        least = [form(value) for value in best]
    return header, True, [Cell(t, t == b) for t, b in zip(texts, least, strict=True)]
