"""A table as text: its cells, and how Markdown and LaTeX write it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

DIGITS = 4  # significant digits of the smallest number of a column


@dataclass(frozen=True)
class Cell:
    """One cell's text; ``best`` where it is the least of its column or row."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table as text: ``columns`` are headers with units, ``numeric`` says which align right."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]


def decimals(values: ArrayLike, digits: int = DIGITS) -> int:
    """Return the decimals that give the smallest value other than 0 that many digits.

    >>> decimals([13.7, 1542.0]), decimals([0.0312, 4.0]), decimals([20000.0])
    (2, 5, 0)
    """
    size = np.abs(np.asarray(values, dtype=np.float64))
    size = size[np.isfinite(size) & (size > 0)]
    if size.size == 0:
        return 0
    return int(np.clip(digits - 1 - np.floor(np.log10(size.min())), 0, 9))


def markdown(table: Table) -> str:
    """Return the table in Markdown, best cells bold."""

    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cells) + " |\n"

    def cell(cell: Cell) -> str:
        text = cell.text.replace("|", "\\|")
        return f"**{text}**" if cell.best else text

    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    body = "".join(line(map(cell, row)) for row in table.rows)
    return f"# {table.title}\n\n{line(table.columns)}{line(rule)}{body}\n{table.note}\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def escape_latex(text: str) -> str:
    """Return text with LaTeX's special characters escaped.

    >>> print(escape_latex("a_b 95 %"))
    a\\_b 95 \\%
    """
    return "".join(_LATEX.get(character, character) for character in text)


def latex(table: Table) -> str:
    """Return the table as a LaTeX tabular, best cells bold; it needs the booktabs package."""

    def line(cells: Iterable[str]) -> str:
        return " & ".join(cells) + " \\\\\n"

    def cell(cell: Cell) -> str:
        text = escape_latex(cell.text)
        return rf"\textbf{{{text}}}" if cell.best else text

    aligned = "".join("r" if numeric else "l" for numeric in table.numeric)
    return (
        f"% {table.title}. Needs \\usepackage{{booktabs}}.\n"
        + "".join(f"% {sentence}.\n" for sentence in table.note.rstrip(".").split(". "))
        + f"\\begin{{tabular}}{{{aligned}}}\n\\toprule\n"
        + line(map(escape_latex, table.columns))
        + "\\midrule\n"
        + "".join(line(map(cell, row)) for row in table.rows)
        + "\\bottomrule\n\\end{tabular}\n"
    )
