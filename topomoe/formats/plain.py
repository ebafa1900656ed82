"""Plain lists from a parsed file, checked and turned into arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError

MOST_NUMBERS = 1 << 28  # in one array that lists spell out


def whole_array(value: Any, field: str, ndim: int) -> NDArray[np.int64]:
    """Return nested lists of whole numbers, ``ndim`` deep, as int64.

    Raises InputError, opening with ``field``, for other depths, rows of different lengths, empty
    lists and anything that is no whole number: text, 1.5, true.
    """
    return np.asarray(_nested(value, field, ndim, {int}, "whole numbers"), dtype=np.int64)


def number_array(value: Any, field: str, ndim: int) -> NDArray[np.float64]:
    """Return nested lists of numbers, ``ndim`` deep, as float64; InputError as `whole_array`."""
    return np.asarray(_nested(value, field, ndim, {int, float}, "numbers"), dtype=np.float64)


def depth(value: Any) -> int:
    """Return how deep the first items of nested lists go."""
    levels = 0
    while isinstance(value, list) and value and levels < 8:
        value, levels = value[0], levels + 1
    return levels


def mapping(value: Any, field: str) -> dict[Any, Any]:
    """Return ``value`` if it is a mapping, else raise InputError."""
    if not isinstance(value, dict):
        raise InputError(f"{field} must be a mapping, got {kind(value)}")
    return value


def whole(value: Any, field: str, least: int = 0, most: int = 2**31 - 1) -> int:
    """Return ``value`` if it is a whole number in ``least..most``, else raise InputError."""
    if type(value) is not int:
        raise InputError(f"{field} must be a whole number, got {kind(value)}")
    if not least <= value <= most:
        raise InputError(f"{field} must be in {least}..{most}, got {shown(value)}")
    return value


def kind(value: Any) -> str:
    """Return the short name of a value's kind for a message."""
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)


def keys_of(value: dict[Any, Any]) -> str:
    """Return the first keys of a mapping for a message, each in at most 40 characters."""
    first = ", ".join(repr(key)[:40] for key in list(value)[:6])
    return f"{first}, ..." if len(value) > 6 else first or "nothing"


def printable(value: Any, field: str) -> str:
    """Return ``value`` if it is text of one line, else raise InputError."""
    if not isinstance(value, str) or not value or not value.isprintable():
        found = "other characters" if isinstance(value, str) and value else kind(value)
        raise InputError(f"{field} must be printable text, got {found}")
    return value


def shown(value: int) -> str:
    """Return a number for a message, however long it is."""
    return str(value) if abs(value) < 10**18 else "a number of more than 18 digits"


def _nested(
    value: Any, field: str, ndim: int, kinds: set[type], what: str
) -> NDArray[np.int64] | NDArray[np.float64]:
    rows = [value]
    shape: list[int] = []
    for level in range(ndim):
        if not all(type(row) is list for row in rows):
            wrong = next(row for row in rows if type(row) is not list)
            raise InputError(
                f"{field} must be lists of {what} {ndim} deep, got {kind(wrong)} at level {level}"
            )
        lengths = {len(row) for row in rows}
        if len(lengths) > 1:
            raise InputError(
                f"{field} must have rows of one length, got {min(lengths)} and {max(lengths)}"
            )
        shape.append(lengths.pop())
        if shape[-1] == 0:
            raise InputError(f"{field} must not be empty")
        if len(rows) * shape[-1] > MOST_NUMBERS:
            raise InputError(f"{field} must hold at most {MOST_NUMBERS} numbers")
        if level < ndim - 1:
            rows = [item for row in rows for item in row]
    for row in rows:
        found = set(map(type, row)) - kinds
        if found:
            wrong = next(item for item in row if type(item) in found)
            raise InputError(f"{field} must hold {what} only, got {kind(wrong)}")
    try:
        if kinds == {int}:
            return np.array(rows, dtype=np.int64).reshape(shape)
        return np.array(rows, dtype=np.float64).reshape(shape)
    except OverflowError:
        raise InputError(f"{field} must hold numbers of at most 64 bits") from None
