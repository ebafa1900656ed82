"""The one way this project compiles a loop: a typed face over ``numba.njit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` with numba: cached on disk, without the interpreter lock.

    ``fastmath`` allows only reassociation, so that sums vectorise; NaN and infinity keep their
    meaning.
    """
    compiled: Callable[P, R] = numba.njit(
        cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}
    )(function)
    return compiled


def nan_free_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like ``kernel``, for inputs already known to hold no NaN: maxima vectorise too."""
    compiled: Callable[P, R] = numba.njit(
        cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "nnan"}
    )(function)
    return compiled


def exact_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile like ``kernel``, every operation as written: the same bits as NumPy's, one by one."""
    compiled: Callable[P, R] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return compiled
