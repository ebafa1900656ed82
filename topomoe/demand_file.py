"""Demand between devices from a name or a file: what ``topomoe network`` puts on a network."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from topomoe.patterns import PATTERNS, pattern_demand
from topomoe.step import FloatArray
from topomoe.topologies.checked import MOST_BYTES, numbers
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.files import read_lines

ENDINGS = (".npy", ".npz", ".csv")
DEMANDS = ("zipf", *PATTERNS)


def make_demand(
    name: str,
    grid: tuple[int, int],
    bytes_per_pair: float = 65536.0,
    level: float = 1.0,
    seed: int = 0,
) -> FloatArray:
    """Return bytes between every two devices, [N, N], of a named demand or a file.

    ``zipf``: every device sends (N-1) * ``bytes_per_pair``, in whole bytes, and the r-th hottest
    receiver (drawn by ``seed``) gets a share of it in proportion to 1/r. The patterns of
    ``topomoe.patterns`` spread the same total. Files: ``.npy`` and ``.npz`` (array ``demand``) hold
    [N, N] bytes, ``.csv`` lines of source, destination, bytes. Raises InputError naming the file
    and the line or array where these are damaged, send nothing, or name devices that the grid does
    not have.
    """
    devices = grid[0] * grid[1]
    if name.endswith(ENDINGS):
        return _read(Path(name), devices)
    if name not in DEMANDS:
        raise unknown("demand", name, [*DEMANDS, "a file (.npy, .npz, .csv)"])
    rng = np.random.default_rng(seed)
    if name != "zipf":
        total = bytes_per_pair * devices * (devices - 1)
        return pattern_demand(name, grid, level, total, rng)
    weight = np.empty(devices)
    weight[rng.permutation(devices)] = 1.0 / np.arange(1, devices + 1)
    share = weight * (1.0 - np.eye(devices))
    sent: FloatArray = np.rint(
        share / share.sum(axis=1, keepdims=True) * (devices - 1) * bytes_per_pair
    )
    return sent


def _read(path: Path, devices: int) -> FloatArray:
    demand = _read_csv(path, devices) if path.suffix == ".csv" else _read_array(path)
    if demand.shape != (devices, devices):
        raise InputError(
            f"{path}: demand must have shape [{devices}, {devices}] on this grid, "
            f"got {list(demand.shape)}"
        )
    if not ((demand >= 0).all() and (demand <= MOST_BYTES).all()):
        raise InputError(f"{path}: demand must be >= 0 and <= {MOST_BYTES:g} bytes a pair")
    if not demand[~np.eye(devices, dtype=np.bool_)].any():
        raise InputError(f"{path}: demand must send bytes between two devices, it sends none")
    return demand


def _read_array(path: Path) -> FloatArray:
    try:
        with path.open("rb") as file:
            loaded: Any = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return numbers(loaded, f"{path}: demand")
            if "demand" not in loaded.files:
                raise InputError(f"{path}: must hold an array 'demand', has {loaded.files}")
            return numbers(loaded["demand"], f"{path}: demand")
    except OSError as error:
        raise InputError(f"{path}: cannot read the demand ({error.strerror or error})") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a NumPy file ({error})") from None


def _read_csv(path: Path, devices: int) -> FloatArray:
    demand = np.zeros((devices, devices))
    for number, line in enumerate(read_lines(path, "demand"), start=1):
        words = [word.strip() for word in line.split("#")[0].split(",")]
        if words == [""] or (number == 1 and words[0] == "source"):
            continue
        where = f"{path}: line {number}"
        try:
            source, destination, sent = int(words[0]), int(words[1]), float(words[2])
        except (ValueError, IndexError):
            raise InputError(f"{where} must be 'source,destination,bytes', got {line!r}") from None
        for device in (source, destination):
            if not 0 <= device < devices:
                raise InputError(f"{where}: device must be in 0..{devices - 1}, got {device}")
        if not (np.isfinite(sent) and sent >= 0):
            raise InputError(f"{where}: bytes must be finite and >= 0, got {words[2]}")
        demand[source, destination] += sent
    return demand
