"""The three arrays of DeepSeek's EPLB as an ``.npz``: phy2log, log2phy and logcnt."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.physical_map import IntArray, check_slots
from topomoe.model import MoEModel
from topomoe.topologies.errors import InputError

FIELDS = ("phy2log", "log2phy", "logcnt")


def array_slots(
    fields: dict[str, NDArray[Any]],
    where: str,
    devices: int | None,
    model: MoEModel | None,
    num_experts: int | None,
) -> tuple[IntArray, int]:
    """Return phy2log [M, S] and the number of experts; log2phy and logcnt must agree with it.

    Raises InputError, opening with ``where``, for other shapes, ids out of range, an expert without
    a slot, and arrays that contradict each other. With ``model``, a routed shared expert may be the
    last one.
    """
    for name, ndim in (("phy2log", 2), ("log2phy", 3), ("logcnt", 2)):
        if name in fields and (fields[name].ndim != ndim or fields[name].dtype.kind not in "iu"):
            raise InputError(
                f"{where}: {name} must be integers of {ndim} dimensions, "
                f"got {fields[name].dtype} {fields[name].shape}"
            )
    slots = fields["phy2log"].astype(np.int64)
    if not slots.size:
        raise InputError(f"{where}: phy2log must not be empty, got shape {slots.shape}")
    names = [f"layer {layer}" for layer in range(len(slots))]
    experts = num_experts
    if experts is None and "logcnt" in fields:
        experts = fields["logcnt"].shape[1]
    experts = check_slots(slots, f"{where}: phy2log", names, experts, devices)
    if model is not None:
        allowed = (model.num_experts, model.num_experts + (model.num_shared_experts > 0))
        if len(slots) != model.num_layers or experts not in allowed:
            raise InputError(
                f"{where}: phy2log must have the {model.num_layers} MoE layers and "
                f"{model.num_experts} experts of {model.name}, got {len(slots)} and {experts}"
            )
    flat = slots + experts * np.arange(len(slots))[:, None]
    count = np.bincount(flat.ravel(), minlength=len(slots) * experts).reshape(-1, experts)
    if "logcnt" in fields and not np.array_equal(fields["logcnt"], count):
        raise InputError(f"{where}: logcnt must count the slots of each expert in phy2log")
    if "log2phy" in fields:
        _check_inverse(fields["log2phy"].astype(np.int64), slots, count, where)
    return slots, experts


def _check_inverse(to_slot: IntArray, slots: IntArray, count: IntArray, where: str) -> None:
    layers, experts = count.shape
    if to_slot.shape[:2] != (layers, experts):
        raise InputError(
            f"{where}: log2phy must be [{layers}, {experts}, copies], got {to_slot.shape}"
        )
    if to_slot.size and (to_slot.min() < -1 or to_slot.max() >= slots.shape[1]):
        raise InputError(f"{where}: log2phy must be in -1..{slots.shape[1] - 1}")
    held = to_slot >= 0
    layer, expert, _ = np.nonzero(held)
    listed = np.sort(layer * slots.shape[1] + to_slot[held])
    if (
        not np.array_equal(held.sum(axis=2), count)
        or not np.array_equal(slots[layer, to_slot[held]], expert)
        or not np.array_equal(listed, np.arange(slots.size))
    ):
        raise InputError(f"{where}: log2phy must list the slots of each expert in phy2log")
