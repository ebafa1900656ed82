"""A training's whole state in one file, so that one that was killed ends with the same bytes.

The file is safetensors: plain arrays, and everything else as JSON text in its header. Reading it
runs no code. It is written under a temporary name and then renamed, so it is there whole, or the
one before it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Arrays by name, and plain values."""

    arrays: Arrays
    values: dict[str, Any]

    def write(self, path: Path, kind: str) -> None:
        """Put the checkpoint in place of the one before it; ``kind`` says of what it is."""
        from safetensors.numpy import save

        header = {"state": json.dumps({"format": kind, **self.values})}
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        write_atomic(path, save(arrays, header))

    @classmethod
    def read(cls, path: Path, kind: str) -> Checkpoint | None:
        """Return the checkpoint at ``path``; None where there is none.

        Raises:
            InputError: the file is damaged or not of that kind.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        try:
            arrays = load(content)
            length = int.from_bytes(content[:8], "little")
            values = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["state"])
            if values.pop("format") != kind:
                raise ValueError(f"format is not {kind!r}")
        except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = " ".join(str(error).split())
            raise InputError(
                f"{path}: not a training's checkpoint ({why}); without it training starts anew"
            ) from None
        return cls(arrays, values)
