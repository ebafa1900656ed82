"""Numbers and arrays from outside, turned into the kind that is needed or refused in one line."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import BoolArray, FloatArray, IntArray

MOST_BYTES = 1e24  # of a demand's pair; beyond, sums would overflow


def whole(value: Any, field: str, least: int | None = None) -> int:
    """Return ``value`` as an int; InputError where it is no whole number or below ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{field} must be a whole number, got {value!r}") from None
    if least is not None and number < least:
        raise InputError(f"{field} must be >= {least}, got {number}")
    return number


def numbers(values: Any, field: str) -> FloatArray:
    """Return an array of real numbers as float64; InputError for ragged lists and text."""
    return _array(values, field).astype(np.float64, copy=False)


def whole_numbers(values: Any, field: str) -> IntArray:
    """Return an array of whole numbers as int64; InputError for any other number."""
    array = _array(values, field)
    if array.dtype.kind == "f" and not np.all(np.isfinite(array) & (array == np.rint(array))):
        raise InputError(f"{field} must be whole numbers")
    return array.astype(np.int64, copy=False)


def check_paths(name: str, lost: BoolArray) -> None:
    """Raise InputError naming the first pair of devices in ``lost`` [N, N]: demand, and no path."""
    if lost.any():
        source, destination = np.argwhere(lost)[0]
        raise InputError(f"{name}: demand from device {source} to device {destination} has no path")


def _array(values: Any, field: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{field} must be numbers in rows of one length") from None
    if array.dtype.kind not in "biuf":
        kind = {"U": "text", "c": "complex numbers"}.get(array.dtype.kind, str(array.dtype))
        raise InputError(f"{field} must be numbers, got {kind}")
    return array
