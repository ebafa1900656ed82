"""SGLang's ``--init-expert-location``: a file, or text, with one key that holds the placement.

``{"physical_to_logical_map": [layers][slots]}``, all layers of the model, dense rows zero. The
option also takes ``trivial`` and ``{"logical_count": ...}``, which holds loads: see
``topomoe.formats.loads``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from topomoe.formats.physical_map import IntArray, check_slots
from topomoe.formats.plain import keys_of, mapping
from topomoe.formats.text_files import parse_json, read_text
from topomoe.formats.torch_file import whole_tensor
from topomoe.model import MoEModel
from topomoe.topologies.errors import InputError

KEY = "physical_to_logical_map"


def location_text(slots: IntArray, dense_layers: int) -> str:
    """Return the JSON of ``slots[M, S]`` below ``dense_layers`` rows of zeros."""
    dense = np.zeros((dense_layers, slots.shape[1]), dtype=np.int64)
    return json.dumps({KEY: np.concatenate([dense, slots]).tolist()}) + "\n"


def read_location(
    source: str | Path, devices: int | None, model: MoEModel | None, num_experts: int | None
) -> tuple[IntArray, int]:
    """Return the experts of the slots ``[M, S]``, dense rows dropped, and the number of experts.

    ``source`` is a ``.json`` or ``.pt`` file or the JSON itself. With ``model`` its dense layers
    are the first rows and the others must be its MoE layers; without, a row of zeros is dense.
    """
    inline = str(source).lstrip().startswith("{")
    where = "expert location" if inline else str(source)
    if inline:
        value: Any = parse_json(str(source), where)
    elif str(source).endswith(".pt"):
        from topomoe.formats.torch_file import read_torch

        value = read_torch(Path(source))
    else:
        value = parse_json(read_text(Path(source)), where)
    return location_slots(value, where, devices, model, num_experts)


def trivial_slots(layers: int, experts: int, slots: int) -> IntArray:
    """Return SGLang's ``trivial`` placement [M, S]: slot s of every layer holds s mod E."""
    return np.tile(np.arange(slots, dtype=np.int64) % experts, (layers, 1))


def location_slots(
    value: Any, where: str, devices: int | None, model: MoEModel | None, num_experts: int | None
) -> tuple[IntArray, int]:
    """Return what `read_location` does for a value read before."""
    fields = mapping(value, where)
    if "logical_count" in fields and KEY not in fields:
        raise InputError(f"{where}: logical_count holds loads, no placement: read it as a load")
    if list(fields) != [KEY]:
        raise InputError(f"{where}: {KEY} must be the only key, got {keys_of(fields)}")
    field = f"{where}: {KEY}"
    given = fields[KEY]
    rows = whole_tensor(given, field, 2)
    names = [f"layer {layer}" for layer in range(len(rows))]
    if model is None:
        keep = np.flatnonzero(rows.any(axis=1)) if rows.any() else np.arange(len(rows))
    else:
        layers = model.num_dense_layers + model.num_layers
        if len(rows) != layers:
            raise InputError(
                f"{field} must have all {layers} layers of {model.name}, got {len(rows)}"
            )
        keep = np.arange(model.num_dense_layers, layers)
    moe = rows[keep]
    experts = model.num_experts if num_experts is None and model is not None else num_experts
    return moe, check_slots(moe, field, [names[layer] for layer in keep], experts, devices)
