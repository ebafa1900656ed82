"""Placements on disk: one .npz with the four fields of ``Placement``."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.placement import Placement
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

_FIELDS = ("slot_expert", "slot_share", "num_devices", "num_experts")


def save_placement(placement: Placement, path: str | Path) -> None:
    """Write the placement whole or not at all; equal placements give equal bytes."""
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        slot_expert=placement.slot_expert,
        slot_share=placement.slot_share,
        num_devices=np.int64(placement.num_devices),
        num_experts=np.int64(placement.num_experts),
    )
    write_atomic(Path(path), buffer.getvalue())


def load_placement(path: str | Path) -> Placement:
    """Read what ``save_placement`` wrote.

    Raises InputError, naming the file, where it is missing, damaged, or no valid placement.
    """
    fields: dict[str, NDArray[np.generic]] = {}
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise InputError(f"{path}: a placement is an .npz archive, not a single array")
        with stored:
            for name in _FIELDS:
                if name not in stored:
                    raise InputError(f"{path}: no field {name!r} in this placement file")
                fields[name] = stored[name]
    except FileNotFoundError:
        raise InputError(f"{path}: no such placement file") from None
    except InputError:
        raise
    except (OSError, ValueError, EOFError, BadZipFile, ZlibError) as error:
        # numpy's own message tells how to run what the file holds.
        why = "not plain arrays" if "pickle" in str(error) else error
        raise InputError(f"{path}: not a readable placement file ({why})") from None
    for name in ("num_devices", "num_experts"):
        if fields[name].shape != () or not np.issubdtype(fields[name].dtype, np.integer):
            raise InputError(f"{path}: {name} must be one integer, got {fields[name]!r}")
    if not np.issubdtype(fields["slot_share"].dtype, np.floating):
        raise InputError(f"{path}: slot_share must be floats, got {fields['slot_share'].dtype}")
    try:
        return Placement(
            fields["slot_expert"].astype(np.int32, casting="same_kind"),
            fields["slot_share"].astype(np.float64),
            int(fields["num_devices"]),
            int(fields["num_experts"]),
        )
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from None
