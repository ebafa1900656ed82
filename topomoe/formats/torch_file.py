"""Files of ``torch.save``: tensors and plain values, never code.

``torch.load(weights_only=True)`` refuses everything but tensors and plain containers. Beyond that,
archives that would unpack to more than the file are refused, and tensors whose shape repeats the
few bytes they store. torch is imported only when a file is read.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError

MOST_ARCHIVE_BYTES = 1 << 35


def read_torch(path: Path) -> dict[Any, Any]:
    """Return the mapping in a ``.pt`` file.

    Raises InputError, naming the file, where it is missing, damaged, not the archive that
    ``torch.save`` writes, or holds anything but tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if any(info.compress_type != zipfile.ZIP_STORED for info in members):
                raise InputError(f"{path}: a torch archive is not compressed, this one is")
            if sum(info.file_size for info in members) > MOST_ARCHIVE_BYTES:
                raise InputError(f"{path}: must hold at most {MOST_ARCHIVE_BYTES} bytes")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except InputError:
        raise
    except (OSError, zipfile.BadZipFile, RuntimeError, KeyError, EOFError, ValueError):
        raise InputError(f"{path}: truncated or no archive of torch.save") from None
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on how to load what is refused here
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path}: holds more than tensors and plain values, which is never loaded"
        ) from None
    except Exception:  # torch raises whatever its reader stumbles on
        raise InputError(f"{path}: truncated or damaged archive of torch.save") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: must hold a mapping, got {type(value).__name__}")
    return value


def tensor_array(value: Any, field: str, ndim: int) -> NDArray[Any]:
    """Return a dense tensor of ``ndim`` dimensions as an array of whole or real numbers.

    Raises InputError, opening with ``field``, for anything else, and for a tensor whose shape
    claims more numbers than it stores.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise InputError(f"{field} must be a tensor, got {type(value).__name__}")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise InputError(f"{field} must be a dense tensor, got {value.layout} on {value.device}")
    if value.ndim != ndim or value.numel() == 0:
        raise InputError(f"{field} must have {ndim} dimensions, got shape {list(value.shape)}")
    if value.dtype == torch.bool or value.is_complex():
        raise InputError(f"{field} must hold numbers, got {value.dtype}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(f"{field}: shape {list(value.shape)} claims more than its bytes")
    whole = value.detach()
    array: NDArray[Any] = (whole if not whole.is_floating_point() else whole.double()).numpy()
    return np.ascontiguousarray(array)


def whole_tensor(value: Any, field: str, ndim: int) -> NDArray[np.int64]:
    """Return a tensor or nested lists of whole numbers as int64; InputError otherwise."""
    if isinstance(value, list):
        from topomoe.formats.plain import whole_array

        return whole_array(value, field, ndim)
    array = tensor_array(value, field, ndim)
    if array.dtype.kind not in "iu":
        raise InputError(f"{field} must hold whole numbers, got {array.dtype}")
    return array.astype(np.int64)
