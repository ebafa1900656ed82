"""Tables of a run as files, and as the rows that a command prints."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from topomoe.table_text import Table, latex, markdown
from topomoe.topologies.files import write_atomic


def write_each(run: Path, tables: Iterable[Table]) -> list[Path]:
    """Write tables/NAME.md and tables/NAME.tex of each into a run's folder; return their paths."""
    paths = []
    for table in tables:
        for ending, text in (("md", markdown(table)), ("tex", latex(table))):
            path = run / "tables" / f"{table.name}.{ending}"
            write_atomic(path, text)
            paths.append(path)
    return paths


def titled_rows(tables: Iterable[Table]) -> list[tuple[str, list[dict[str, str]]]]:
    """Return each table's title and its rows, text by column."""
    return [
        (
            table.title,
            [
                dict(zip(table.columns, (cell.text for cell in row), strict=True))
                for row in table.rows
            ],
        )
        for table in tables
    ]
