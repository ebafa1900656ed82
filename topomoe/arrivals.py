"""Requests that arrive over time, counted in intervals: renewal processes or a serving trace."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError

_CHUNK = 4096
_EPOCH = datetime(2000, 1, 1)  # recent, so that seconds keep microseconds in a float
_TIME_COLUMNS = ("timestamp", "arrived_at", "arrival_time", "time")


def renewal_counts(
    rate: float, cv: float, interval: float, rng: np.random.Generator
) -> Iterator[int]:
    """Yield, without end, the arrivals in one interval of ``interval`` seconds after another.

    Gaps between arrivals are gamma distributed with mean 1/rate and coefficient of variation
    ``cv``; cv = 1 is the Poisson process. The process is stationary: the first arrival comes after
    a uniform share of a length-biased gap, which for gamma(k, s) gaps is gamma(k + 1, s) (Cox,
    Renewal Theory, 1962, section 5.2). Without it, bursty streams would all start with a burst.
    """
    shape, scale = 1.0 / cv**2, cv**2 / rate
    times = np.array([rng.random() * rng.gamma(shape + 1.0, scale)])
    end = interval
    while True:
        while times[-1] < end:
            gaps = rng.gamma(shape, scale, size=_CHUNK)
            times = np.concatenate([times, times[-1] + np.cumsum(gaps)])
        arrived = int(np.searchsorted(times, end))
        # From here on time is counted from the end of this interval, which keeps sums small.
        times = times[arrived:] - end
        end = interval
        yield arrived


def recorded_counts(times: NDArray[np.float64], interval: float) -> tuple[Iterator[int], float]:
    """Return the arrivals of a recording, interval after interval without end, and their mean.

    ``times`` [A] in seconds, sorted, from 0. An incomplete last interval is left out, unless it is
    the only one; at its end the recording starts over.
    """
    intervals = max(int(times[-1] / interval), 1)
    number = (times / interval).astype(np.int64)
    counts = np.bincount(number[number < intervals], minlength=intervals)
    return cycle(counts.tolist()), float(counts.mean())


def load_arrivals(path: str | Path) -> NDArray[np.float64]:
    """Read arrival times from a serving trace in CSV, as seconds from the first, sorted, [A].

    Takes the column ``TIMESTAMP`` (as in the Azure LLM inference traces), ``arrived_at``,
    ``arrival_time`` or ``time``: ISO dates or seconds.

    Raises InputError naming the file, the line and the field.
    """
    file = Path(path)
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as CSV: {error}") from error
    if not rows:
        raise InputError(f"{file}: holds no arrivals")
    column = next((c for c in rows[0] if c and c.strip().lower() in _TIME_COLUMNS), None)
    if column is None:
        raise InputError(f"{file}: has none of the columns {', '.join(_TIME_COLUMNS)}")
    times = np.empty(len(rows))
    for i, row in enumerate(rows):
        times[i] = _seconds(row[column])
        if not np.isfinite(times[i]):
            raise InputError(
                f"{file}: line {i + 2}: {column} must be a date or seconds, got {row[column]!r}"
            )
    times.sort()
    return np.asarray(times - times[0])


def _seconds(text: str | None) -> float:
    """Return seconds, NaN where the text is neither a number nor an ISO date."""
    try:
        return float(text or "")
    except ValueError:
        pass
    try:
        date = datetime.fromisoformat(text or "").replace(tzinfo=None)
    except ValueError:
        return float("nan")
    return (date - _EPOCH).total_seconds()
