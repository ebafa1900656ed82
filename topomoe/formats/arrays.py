"""NumPy files from outside: headers are checked against the bytes there before arrays are made."""

from __future__ import annotations

import io
import math
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError

AnyArray = NDArray[Any]
# An archive may unpack to a GiB, or to a hundred times its size: real traces and loads do to ten.
MOST_UNPACKED_BYTES, MOST_RATIO = 1 << 30, 100
_UNREADABLE = (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    SyntaxError,
    TypeError,
    MemoryError,
    RecursionError,
    RuntimeError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)


def read_npy(path: Path) -> AnyArray:
    """Return the array of an ``.npy`` file; InputError, naming the file, where it is damaged."""
    try:
        with path.open("rb") as file:
            return _array(file, path.stat().st_size)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except _UNREADABLE:
        raise InputError(f"{path}: cannot be read: truncated or no .npy file") from None


def npy_bytes(content: bytes, field: str) -> AnyArray:
    """Return the array of an ``.npy`` file's bytes; InputError, opening with ``field``."""
    try:
        return _array(io.BytesIO(content), len(content))
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
    except _UNREADABLE:
        raise InputError(f"{field}: cannot be read: truncated or no .npy file") from None


def read_npz(path: Path, names: tuple[str, ...] | None = None) -> dict[str, AnyArray]:
    """Return the arrays of an ``.npz`` file, or those of ``names`` that it has.

    Raises InputError, naming the file and the array, for damage, Python objects, and archives that
    unpack to more than a GiB and a hundred times their size.
    """
    arrays: dict[str, AnyArray] = {}
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            chosen = [name for name in members if names is None or name in names]
            size = sum(members[name].file_size for name in chosen)
            most = max(MOST_UNPACKED_BYTES, MOST_RATIO * path.stat().st_size)
            if size > most:
                raise InputError(f"unpacks to {size} bytes, more than {most}: is no honest archive")
            for name in chosen:
                with archive.open(members[name]) as file:
                    arrays[name] = _array(file, members[name].file_size)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError as error:
        raise InputError(f"{path}: {name + ': ' if name else ''}{error}") from None
    except _UNREADABLE:
        where = f" at field {name}" if name else ""
        raise InputError(f"{path}: cannot be read{where}: truncated or no .npz archive") from None
    return arrays


def _array(file: IO[bytes], size: int) -> AnyArray:
    """Read one array of an ``.npy`` file of ``size`` bytes."""
    version = npy_format.read_magic(file)
    readers = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
    }
    if version not in readers:
        raise InputError(f"must be .npy version 1.0 or 2.0, got {version[0]}.{version[1]}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's on headers of Python 2, which damage can fake
        shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise InputError("holds Python objects, which are never loaded")
    needed = math.prod(shape) * dtype.itemsize
    if needed > size or min(shape, default=0) < 0:
        raise InputError(f"shape {shape} needs {needed} bytes, the file has {size}")
    content = file.read(needed)
    if len(content) < needed:
        raise InputError(f"shape {shape} needs {needed} bytes, the file is truncated")
    array: AnyArray = np.frombuffer(content, dtype=dtype).reshape(shape[::-1] if fortran else shape)
    return (array.T if fortran else array).copy()
