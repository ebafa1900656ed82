"""How the sentences about routers write numbers: means over seeds, with their intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from topomoe.router_results import capacity_text, half_width


def change_text(shares: ArrayLike, sign: bool = True) -> str:
    """Return the mean of changes in percent, with half its 95 % interval over seeds.

    >>> change_text([0.031]), change_text([-0.1, -0.1]), change_text([0.0])
    ('+3.1 %', '-10.0 ± 0.0 %', '0.0 %')
    """
    mean, half = 100 * _mean(shares), 100 * half_width(shares)
    rounded = round(mean, 1) + 0.0
    plus = "+" if sign and rounded > 0 else ""
    return f"{plus}{rounded:.1f} %" if np.isnan(half) else f"{plus}{rounded:.1f} ± {half:.1f} %"


def percent_text(share: float) -> str:
    """Return a share in percent, without a sign.

    >>> percent_text(0.1234)
    '12.3 %'
    """
    return f"{100 * share + 0.0:.1f} %"


def apart(shares: ArrayLike) -> bool:
    """Return whether the 95 % interval over seeds leaves out 0; False of a single seed."""
    half = half_width(shares)
    return bool(np.isfinite(half) and abs(_mean(shares)) > half)


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds.

    >>> milliseconds(0.000697)
    '0.697 ms'
    """
    return f"{1e3 * seconds:.3g} ms"


def at_capacity(factor: float) -> str:
    """Return ``at capacity factor 1.25``, or that there is none.

    >>> at_capacity(1.25), at_capacity(0.0)
    ('at capacity factor 1.25', 'without a capacity')
    """
    return f"at capacity factor {capacity_text(factor)}" if factor else "without a capacity"


def counted_of(count: int, total: int) -> str:
    """Return ``none``, ``all`` or the count, of a total.

    >>> counted_of(0, 5), counted_of(5, 5), counted_of(2, 5)
    ('none of 5', 'all 5', '2 of 5')
    """
    if not count:
        return f"none of {total}"
    return f"all {total}" if count == total else f"{count} of {total}"


def _mean(values: ArrayLike) -> float:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    return float(known.mean()) if len(known) else float("nan")
