"""What the placement files of serving engines share: expert of each slot, no shares, no devices.

An engine numbers all of a model's layers, the dense ones first; a placement has the MoE layers. An
engine knows the routed experts only: where a placement routes the shared expert as one more column,
its slots are given to routed experts on the way out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.model import MODELS, MoEModel, model_preset
from topomoe.topologies.errors import InputError

IntArray = NDArray[np.int64]


def placement_formats() -> tuple[str, ...]:
    """Return the names that ``save_placement`` takes as ``format``."""
    return ("npz", "sglang", "trtllm", "eplb")


def engine_map(
    slot_expert: NDArray[np.int32],  # [M, S]
    num_devices: int,
    num_experts: int,
    model: str | MoEModel | None,
    load: NDArray[np.float64] | None = None,  # [M, E]
) -> tuple[IntArray, int, tuple[str, ...]]:
    """Return the experts of the slots as an engine numbers them, its dense layers, and notes.

    ``model`` says how many dense layers come first and whether the last expert is the shared one;
    without it, the preset with these layers and experts does. The shared expert's slots go to
    routed experts that their device lacks: those of the largest load per replica, or, without
    ``load``, of the fewest replicas.

    Raises InputError for a model with other layers or experts.
    """
    layers = len(slot_expert)
    preset = _preset(layers, num_experts, model)
    if preset is None:
        note = (
            f"no model preset has {layers} MoE layers and {num_experts} experts: "
            "written without dense layers (name the model if it has some)"
        )
        return slot_expert.astype(np.int64), 0, (note,)
    if preset.num_experts == num_experts:
        return slot_expert.astype(np.int64), preset.num_dense_layers, ()
    stripped, slots = _without_shared(slot_expert, num_devices, num_experts - 1, load)
    note = (
        f"the engine keeps the shared expert apart: its {slots} slots hold routed experts, "
        "which changes the device loads"
    )
    return stripped, preset.num_dense_layers, (note,)


def check_slots(
    rows: IntArray,  # [layers, S]
    field: str,
    names: list[str],
    num_experts: int | None,
    devices: int | None,
) -> int:
    """Return the number of experts of a map read from a file; rows are named for messages.

    Raises InputError, opening with ``field``, for ids out of range, an expert without a slot, and
    slots that are no multiple of ``devices``.
    """
    if devices is None:
        raise InputError(f"{field} does not say how many devices there are: pass devices=")
    if devices < 1 or rows.shape[1] % devices:
        raise InputError(
            f"{field}: slots must be a multiple of devices, got slots={rows.shape[1]} and "
            f"devices={devices}"
        )
    experts = int(rows.max()) + 1 if num_experts is None else num_experts
    outside = (rows < 0) | (rows >= experts)
    if outside.any():
        row, slot = (int(i) for i in np.argwhere(outside)[0])
        raise InputError(
            f"{field}: experts must be in 0..{experts - 1}, got {rows[row, slot]} in slot {slot} "
            f"of {names[row]}"
        )
    if experts > rows.shape[1]:
        raise InputError(
            f"{field}: slots must be >= experts, got slots={rows.shape[1]} and experts={experts}"
        )
    for row, slots in enumerate(rows):
        missing = np.flatnonzero(np.bincount(slots, minlength=experts) == 0)
        if missing.size:
            raise InputError(f"{field}: every expert needs a slot: {names[row]} lacks {missing[0]}")
    return experts


def _preset(layers: int, experts: int, model: str | MoEModel | None) -> MoEModel | None:
    if model is None:
        for routed in (experts, experts - 1):  # the second: a routed shared expert
            for preset in MODELS.values():
                shared = preset.num_shared_experts > 0 or routed == experts
                if (preset.num_layers, preset.num_experts) == (layers, routed) and shared:
                    return preset
        return None
    preset = model_preset(model)
    if preset.num_layers != layers:
        raise InputError(
            f"placement must have the {preset.num_layers} MoE layers of {preset.name}, got {layers}"
        )
    allowed = {preset.num_experts, preset.num_experts + (preset.num_shared_experts > 0)}
    if experts not in allowed:
        raise InputError(
            f"placement must have the {preset.num_experts} experts of {preset.name}, got {experts}"
        )
    return preset


def _without_shared(
    slot_expert: NDArray[np.int32],
    devices: int,
    routed: int,
    load: NDArray[np.float64] | None,
) -> tuple[IntArray, int]:
    """Return the map with the slots of expert ``routed`` refilled, and how many there were."""
    made = slot_expert.astype(np.int64)
    per_device = made.shape[1] // devices
    freed = made == routed
    for layer, slot in np.argwhere(freed):
        row = made[layer]
        replicas = np.bincount(row[row < routed], minlength=routed).astype(np.float64)
        weight = 1.0 if load is None else load[layer, :routed]
        each = weight / replicas
        start = slot // per_device * per_device
        held = row[start : start + per_device]
        free = np.setdiff1d(np.arange(routed), held[held < routed])
        candidates = free if free.size else np.arange(routed)
        row[slot] = candidates[np.argmax(each[candidates])]
    return made, int(freed.sum())
