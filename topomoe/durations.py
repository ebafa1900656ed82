"""Times as text, in the unit that suits them."""

from __future__ import annotations

import math

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def duration_text(seconds: float, digits: int = 2) -> str:
    """Return seconds with their unit, to so many significant digits; ``no time`` for infinity.

    >>> duration_text(7e-6), duration_text(1.0093e-4), duration_text(5.739)
    ('7 us', '100 us', '5.7 s')
    """
    if not math.isfinite(seconds):
        return "no time"
    rounded = float(f"{seconds:.{digits}g}")
    size, unit = next((u for u in _UNITS if rounded >= u[0] * (1 - 1e-9)), _UNITS[-1])
    return f"{float(f'{rounded / size:.{digits}g}'):g} {unit}"
