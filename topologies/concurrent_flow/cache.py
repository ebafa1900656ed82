"""Solved problems on disk, under a hash of their content; deleting any of them is safe."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic
from topomoe.topologies.topology import FloatArray, Topology

FORMAT = 1  # counts up with every change of the method or of what is stored
KINDS = {
    "time": "f", "bound": "f", "load": "f", "price": "f", "destination": "i", "ptr": "i",
    "link": "i", "fraction": "f", "flow": "f",
}  # fmt: skip
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error)


def folder() -> Path:
    """Return ``TOPOMOE_CACHE`` or else ``topomoe`` in the user's cache folder (XDG)."""
    if chosen := os.environ.get("TOPOMOE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "topomoe"


def path_of(topology: Topology, demand: FloatArray) -> Path:
    """Return the file of this problem: links, capacities and demand decide, names do not."""
    digest = hashlib.sha256()
    for array in (
        np.array([FORMAT, topology.num_nodes, topology.num_devices, topology.num_links]),
        topology.links,
        topology.capacity,
        demand + 0.0,  # -0.0 becomes 0.0
    ):
        digest.update(np.ascontiguousarray(array, dtype=f"<{array.dtype.kind}8").tobytes())
    return folder() / f"concurrent-flow-{digest.hexdigest()}.npz"


def read(path: Path) -> dict[str, NDArray[Any]] | None:
    """Return the stored arrays; None where there is no file or not one that ``write`` wrote."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in KINDS}
    except _UNREADABLE:
        return None
    sound = all(arrays[name].dtype == np.dtype(f"{kind}8") for name, kind in KINDS.items())
    return arrays if sound else None


def write(path: Path, arrays: Mapping[str, Any]) -> None:
    """Store the arrays; InputError where the folder was chosen and cannot be written."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    try:
        write_atomic(path, content.getvalue())
    except InputError:
        if "TOPOMOE_CACHE" in os.environ:
            raise
