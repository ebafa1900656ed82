"""Circuits from a text file: a line a circuit, transmitter and receiver."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.files import read_lines
from topomoe.topologies.topology import IntArray

ENDINGS = (".csv", ".txt")


def read_circuits(path: str | Path) -> IntArray:
    """Return the circuits int64 [X, 2] of a file of lines ``transmitter,receiver``.

    ``#`` starts a comment, spaces serve as commas. Raises InputError naming the file and the line.
    """
    path = Path(path)
    circuits = []
    for number, line in enumerate(read_lines(path, "circuits"), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            raise InputError(
                f"{path}: line {number} must be 'transmitter,receiver', got {line.strip()!r}"
            )
        circuits.append((int(words[0]), int(words[1])))
    if not circuits:
        raise InputError(f"{path}: holds no circuit")
    return np.array(circuits, dtype=np.int64)
