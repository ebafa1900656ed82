"""TensorRT-LLM's expert-parallel load balancer file: the YAML that ``load_balancer`` names.

``num_slots``, ``layer_updates_per_iter`` (0: static) and ``initial_global_assignments``, which maps
a layer's number among all layers (3..60 for DeepSeek-V3) to the expert of each slot.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from topomoe.formats.physical_map import IntArray, check_slots
from topomoe.formats.plain import mapping, whole, whole_array
from topomoe.formats.text_files import parse_yaml, read_text
from topomoe.model import MoEModel
from topomoe.topologies.errors import InputError

KEYS = ("num_slots", "initial_global_assignments", "layer_updates_per_iter")


def balancer_text(slots: IntArray, dense_layers: int, layer_updates_per_iter: int = 0) -> str:
    """Return the YAML of ``slots[M, S]``, whose layers follow ``dense_layers`` dense ones."""
    lines = ["initial_global_assignments:"]
    lines += [f"  {layer}: {row}" for layer, row in enumerate(slots.tolist(), start=dense_layers)]
    # The number that every reader needs comes last, so that a truncated file is seen to be one.
    lines += [f"layer_updates_per_iter: {layer_updates_per_iter}", f"num_slots: {slots.shape[1]}"]
    return "\n".join(lines) + "\n"


def read_balancer(
    path: Path, devices: int | None, model: MoEModel | None, num_experts: int | None
) -> tuple[IntArray, int]:
    """Return the experts of the slots ``[M, S]`` in the order of layers, and the number of experts.

    With ``model`` the layers must be its MoE layers, numbered after its dense ones; without, they
    must follow each other.
    """
    fields = mapping(parse_yaml(read_text(path), str(path)), str(path))
    for key in fields:
        if key not in KEYS:
            raise InputError(f"{path}: unknown key {repr(key)[:40]} (one of: {', '.join(KEYS)})")
    for key in KEYS[:2]:
        if key not in fields:
            raise InputError(f"{path}: no key {key}")
    whole(fields.get("layer_updates_per_iter", 0), f"{path}: layer_updates_per_iter")
    num_slots = whole(fields["num_slots"], f"{path}: num_slots", least=1)
    field = f"{path}: initial_global_assignments"
    given = mapping(fields["initial_global_assignments"], field)
    if not given:
        raise InputError(f"{field} must not be empty: without it no expert has a slot")
    layers = sorted(whole(layer, f"{field}: a layer") for layer in given)
    first, count = layers[0], len(layers)
    if model is not None:
        first, count = model.num_dense_layers, model.num_layers
    if layers != list(range(first, first + count)):
        whose = f" of {model.name}" if model else ""
        raise InputError(
            f"{field} must have layers {first}..{first + count - 1}{whose}, "
            f"got {len(layers)} layers in {layers[0]}..{layers[-1]}"
        )
    rows = []
    for layer in layers:
        row = whole_array(given[layer], f"{field}: layer {layer}", 1)
        if len(row) != num_slots:
            raise InputError(
                f"{field}: layer {layer} must have num_slots = {num_slots} slots, got {len(row)}"
            )
        rows.append(row)
    slots = np.stack(rows)
    experts = model.num_experts if num_experts is None and model is not None else num_experts
    names = [f"layer {layer}" for layer in layers]
    return slots, check_slots(slots, field, names, experts, devices)
