"""Columns of the tables of routers: numbers that may be unknown, means with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.router_results import half_width
from topomoe.table_columns import Column
from topomoe.table_text import Cell, decimals

UNKNOWN = "n/a"
INTERVAL_NOTE = "±: half the 95 % interval of the mean over seeds (Student's t)."


def known_column(header: str, values: ArrayLike, digits: int = 4) -> Column:
    """Return a column of numbers, n/a where NaN."""
    return mean_column(header, [[value] for value in _array(values)], digits=digits)


def mean_column(
    header: str,
    groups: Sequence[ArrayLike],
    best: bool = False,
    sign: bool = False,
    digits: int = 4,
    beside: Sequence[ArrayLike] = (),
    places: int | None = None,
) -> Column:
    """Return a column of means over seeds, with half their interval; n/a where there is none.

    They have so many decimal ``places``; where none are given, as many as write the least mean, or
    that of ``beside``, with ``digits`` digits.
    """
    means = np.array([_mean(values) for values in groups])
    if places is None:
        places = decimals([_mean(values) for values in beside or groups], digits)
    written = [f"{mean:.{places}f}" for mean in means]
    bold = f"{np.nanmin(means):.{places}f}" if best and np.isfinite(means).any() else ""
    cells = []
    for values, mean, number in zip(groups, means, written, strict=True):
        text = _text(mean, half_width(values), places, sign)
        cells.append(Cell(text, number == bold))
    return header, True, cells


def percent_column(header: str, shares: Iterable[ArrayLike], sign: bool = False) -> Column:
    """Return a column of means of shares, in percent with one decimal."""
    cells = [
        Cell(_text(100 * _mean(values), 100 * half_width(values), 1, sign)) for values in shares
    ]
    return header, True, cells


def _text(mean: float, half: float, places: int, sign: bool = False) -> str:
    if not np.isfinite(mean):
        return UNKNOWN
    text = f"{round(mean, places) + 0.0:{'+' if sign else ''}.{places}f}"
    return f"{text} ± {half:.{places}f}" if np.isfinite(half) else text


def _mean(values: ArrayLike) -> float:
    known = _array(values)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")


def _array(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)
