"""Quantities with units, as the command line and TOML files write them, into SI numbers."""

from __future__ import annotations

import math
import re
from typing import Annotated

from topomoe.topologies.errors import InputError

_PREFIX = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ/]*)\s*")


def _split(text: str, field: str, example: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise InputError(f"{field} must be a number with a unit such as {example}, got {text!r}")
    return float(match[1]), match[2]


def _positive(number: float, field: str, zero: bool) -> float:
    try:
        value = math.nan if isinstance(number, bool) else float(number)
    except (TypeError, ValueError):
        raise InputError(f"{field} must be a number, got {number!r}") from None
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InputError(f"{field} must be finite and {'>=' if zero else '>'} 0, got {number}")
    return value


def bandwidth(value: str | float, field: str = "bandwidth") -> float:
    """Return bytes per second from ``400Gbps``, ``400Gbit/s``, ``50GB/s`` or a number of bytes/s.

    >>> bandwidth("400Gbps"), bandwidth("50GB/s")
    (50000000000.0, 50000000000.0)
    """
    if not isinstance(value, str):
        return _positive(value, field, zero=False)
    number, unit = _split(value, field, "400Gbps or 50GB/s")
    for ending, bytes_per_unit in (("bit/s", 0.125), ("bps", 0.125), ("b/s", 0.125), ("B/s", 1.0)):
        prefix = unit.removesuffix(ending)
        scale = {**_PREFIX, **_BINARY}.get(prefix)
        if unit.endswith(ending) and scale is not None:
            return _positive(number * scale * bytes_per_unit, field, zero=False)
    raise InputError(f"{field} must have a unit such as Gbps or GB/s, got {value!r}")


def seconds(value: str | float, field: str = "time") -> float:
    """Return seconds from ``25ms``, ``1us``, ``10ns``, ``2s`` or a number of seconds.

    >>> seconds("25ms")
    0.025
    """
    if not isinstance(value, str):
        return _positive(value, field, zero=True)
    number, unit = _split(value, field, "25ms or 1us")
    if unit not in _TIME and not (unit == "" and number == 0):
        raise InputError(f"{field} must have a unit such as us, ms or s, got {value!r}")
    return _positive(number * _TIME.get(unit, 0.0), field, zero=True)


def size(value: str | float, field: str = "size") -> float:
    """Return bytes from ``64KiB``, ``4kB``, ``1500B`` or a number of bytes.

    >>> size("64KiB")
    65536.0
    """
    if not isinstance(value, str):
        return _positive(value, field, zero=True)
    number, unit = _split(value, field, "64KiB or 4kB")
    if unit == "" and number == 0:
        return 0.0
    scale = {**_PREFIX, **_BINARY}.get(unit.removesuffix("B"))
    if not unit.endswith("B") or scale is None:
        raise InputError(f"{field} must have a unit such as B, KiB or MB, got {value!r}")
    return _positive(number * scale, field, zero=True)


# Settings annotate a field with one of these to accept text with a unit for it.
Bandwidth = Annotated[float, bandwidth]
Seconds = Annotated[float, seconds]
Bytes = Annotated[float, size]
