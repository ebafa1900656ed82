"""DeepSeek's ``rebalance_experts`` as a drop-in function, and the maps that engines keep.

Source: DeepSeek EPLB (github.com/deepseek-ai/EPLB, 2025), the interface and the two policies of its
description, written anew. Hierarchical: the expert groups are packed on nodes, each node replicates
its own experts, and the replicas are packed on the node's devices. Global: one node.
"""

from __future__ import annotations

import sys
import warnings
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.placement import Placement
from topomoe.placement.problem import even_shares
from topomoe.placement.registry import place
from topomoe.topologies.errors import InputError, unknown

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
_METHODS = ("local-search", "eplb")


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    old_global_expert_indices: Any = None,
    method: str = "local-search",
) -> tuple[Any, Any, Any]:
    """Return phy2log [L, S], log2phy [L, E, most copies] (-1 pads) and logcnt [L, E], int64.

    ``weight[L, E]`` is the load of each expert; S = ``num_replicas`` slots, S/``num_gpus`` a device
    in a row. A torch tensor gives torch tensors on its device, anything else gives numpy arrays.
    If ``num_groups`` divides by ``num_nodes``, the groups of experts stay on one node each; else
    groups are given up, with a warning, where the published function says nothing.

    ``method`` is "local-search", at least as balanced in every layer as "eplb", the published
    greedy. Like that, it may put an expert on one device twice, where nothing else found is better.
    ``old_global_expert_indices`` [L, S] is the phy2log served so far: experts that stay on a device
    keep their slot there (as vLLM asks for). Layers that are all zero, such as the dense ones of a
    recording, are placed as if evenly loaded, with a warning.

    Raises InputError for loads that are not finite and >= 0 or all zero, slots fewer than experts
    or no multiple of the devices, and, where groups count, experts no multiple of groups or slots
    and devices no multiple of nodes.

    >>> phy2log, log2phy, logcnt = rebalance_experts(np.array([[9, 3, 2, 2]]), 6, 1, 1, 2)
    >>> phy2log.shape, logcnt.sum()
    ((1, 6), np.int64(6))
    """
    if method not in _METHODS:
        raise unknown("method", method, _METHODS)
    load = _loads(weight)
    layers, experts = load.shape
    slots, groups, nodes, devices = (
        _at_least_one(value, name)
        for value, name in (
            (num_replicas, "num_replicas"),
            (num_groups, "num_groups"),
            (num_nodes, "num_nodes"),
            (num_gpus, "num_gpus"),
        )
    )
    if slots < experts:
        raise InputError(f"num_replicas must be >= the {experts} experts of weight, got {slots}")
    _divides("num_replicas", slots, "num_gpus", devices)
    if groups % nodes:
        warnings.warn(
            f"num_groups={groups} does not divide by num_nodes={nodes}: expert groups are not kept "
            "on a node, the global policy is used",
            stacklevel=2,
        )
        groups = nodes = 1
    _divides("experts", experts, "num_groups", groups)
    _divides("num_gpus", devices, "num_nodes", nodes)
    order = _groups_on_nodes(load, groups, nodes)  # [L, nodes, E/nodes]
    of_node = np.take_along_axis(load, order.reshape(layers, experts), axis=1)
    local = _placed(
        of_node.reshape(layers * nodes, experts // nodes), devices // nodes, slots // nodes, method
    )
    slot_expert = np.take_along_axis(
        order, local.reshape(layers, nodes, slots // nodes), axis=2
    ).reshape(layers, slots)
    if old_global_expert_indices is not None:
        old = _indices(old_global_expert_indices, layers, slots, experts)
        slot_expert = keep_slots(slot_expert, old, devices)
    made = (slot_expert, *_inverse(slot_expert, experts))
    return _like(weight, made)


def physical_to_logical(placement: Placement) -> IntArray:
    """Return the expert of each slot, int64 [M, S]."""
    return placement.slot_expert.astype(np.int64)


def logical_to_physical(placement: Placement, width: int | None = None) -> IntArray:
    """Return the slots of each expert in ascending order, int64 [M, E, width], -1 beyond them.

    ``width`` is by default the most slots of any expert; vLLM's is S - E + 1. Raises InputError
    where an expert has more slots than ``width``.
    """
    made, count = _inverse(placement.slot_expert.astype(np.int64), placement.num_experts)
    most = int(count.max())
    if width is None or width == most:
        return made
    if width < most:
        raise InputError(f"width must be >= {most}, the most slots of an expert, got {width}")
    pad = np.full((*count.shape, width - most), -1, dtype=np.int64)
    return np.concatenate([made, pad], axis=2)


def logical_count(placement: Placement) -> IntArray:
    """Return how many slots hold each expert, int64 [M, E]."""
    return placement.replicas()


def keep_slots(new: IntArray, old: IntArray, num_gpus: int) -> IntArray:
    """Return ``new[L, S]`` with the slots of each device reordered to agree with ``old[L, S]``.

    An expert that is on a device before and after keeps its slot there; the others fill the rest in
    their order. So only slots whose expert is new to the device are loaded anew.
    """
    made = np.full_like(new, -1)
    per_device = new.shape[1] // num_gpus
    for layer in range(len(new)):
        for start in range(0, new.shape[1], per_device):
            coming = new[layer, start : start + per_device].tolist()
            row = made[layer, start : start + per_device]
            for slot, expert in enumerate(old[layer, start : start + per_device].tolist()):
                if expert in coming:
                    row[slot] = expert
                    coming.remove(expert)
            row[row < 0] = coming
    return made


def _placed(load: FloatArray, devices: int, slots: int, method: str) -> IntArray:
    """Return the experts of the slots [M, S]: the published ones unless the search is better."""
    from topomoe.placement.published_eplb import published_slots

    experts = load.shape[1]
    published = published_slots(load, devices, slots)
    plain = Placement(published, even_shares(published, experts), devices, experts)
    if method == "eplb":
        return physical_to_logical(plain)
    searched = place(load, devices, slots, method)
    better = searched.device_load(load).max(axis=1) < plain.device_load(load).max(axis=1)
    chosen = np.where(better[:, None], searched.slot_expert, published)
    return chosen.astype(np.int64)


def _groups_on_nodes(load: FloatArray, groups: int, nodes: int) -> IntArray:
    """Return the experts of each node, [L, nodes, E/nodes]: groups packed from the heaviest down.

    Each goes to the node of least load that has room for one more, the lowest among equals.
    """
    layers, experts = load.shape
    size, room = experts // groups, groups // nodes
    member = np.arange(experts, dtype=np.int64).reshape(groups, size)
    if nodes == 1:
        return np.tile(member.reshape(1, 1, experts), (layers, 1, 1))
    of_group = load.reshape(layers, groups, size).sum(axis=2)
    order = np.empty((layers, nodes, experts // nodes), dtype=np.int64)
    for layer in range(layers):
        total = np.zeros(nodes)
        held: list[list[int]] = [[] for _ in range(nodes)]
        for group in np.argsort(-of_group[layer], kind="stable"):
            full = np.array([len(h) >= room for h in held])
            node = int(np.argmin(np.where(full, np.inf, total)))
            held[node].append(int(group))
            total[node] += of_group[layer, group]
        order[layer] = member[np.array(held)].reshape(nodes, -1)
    return order


def _inverse(slot_expert: IntArray, experts: int) -> tuple[IntArray, IntArray]:
    """Return the slots of each expert [L, E, most copies], -1 beyond them, and their number."""
    layers, slots = slot_expert.shape
    order = np.argsort(slot_expert, axis=1, kind="stable")
    count = np.zeros((layers, experts), dtype=np.int64)
    np.add.at(count, (np.arange(layers)[:, None], slot_expert), 1)
    first = np.cumsum(count, axis=1) - count
    expert = np.take_along_axis(slot_expert, order, axis=1)
    copy = np.arange(slots) - np.take_along_axis(first, expert, axis=1)
    made = np.full((layers, experts, int(count.max())), -1, dtype=np.int64)
    made[np.arange(layers)[:, None], expert, copy] = order
    return made, count


def _loads(weight: Any) -> FloatArray:
    try:
        values = np.asarray(weight.detach().cpu().double() if _is_tensor(weight) else weight)
        if values.dtype.kind == "c":
            raise TypeError
        load = np.array(values, dtype=np.float64)
    except (TypeError, ValueError, NotImplementedError, RuntimeError):  # torch's, of odd tensors
        raise InputError("weight must be numbers [layers, experts]") from None
    if load.ndim != 2 or not load.size:
        raise InputError(f"weight must be [layers, experts], got shape {load.shape}")
    wrong = ~((load >= 0) & np.isfinite(load))
    if wrong.any():
        layer, expert = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"weight must be finite and >= 0, got {load[layer, expert]} for expert {expert} of "
            f"layer {layer}"
        )
    idle = ~load.any(axis=1)
    if idle.all():
        raise InputError("weight must not be all zero")
    if idle.any():
        which = ", ".join(str(layer) for layer in np.flatnonzero(idle))
        warnings.warn(
            f"weight is all zero in layers {which}: they are placed as if evenly loaded",
            stacklevel=3,
        )
        load[idle] = 1.0
    return load


def _indices(value: Any, layers: int, slots: int, experts: int) -> IntArray:
    old = np.asarray(value.detach().cpu().numpy() if _is_tensor(value) else value)
    if old.shape != (layers, slots) or old.dtype.kind not in "iu":
        raise InputError(
            f"old_global_expert_indices must be integers [{layers}, {slots}], "
            f"got {old.dtype} {old.shape}"
        )
    if old.min() < -1 or old.max() >= experts:
        raise InputError(f"old_global_expert_indices must be in -1..{experts - 1}")
    return old.astype(np.int64)


def _at_least_one(value: Any, name: str) -> int:
    try:
        number = index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {value!r}") from None
    if number < 1:
        raise InputError(f"{name} must be >= 1, got {number}")
    return number


def _divides(what: str, number: int, by: str, divisor: int) -> None:
    if number % divisor:
        raise InputError(
            f"{what} must be a multiple of {by}, got {what}={number} and {by}={divisor}"
        )


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _like(weight: Any, made: tuple[IntArray, ...]) -> tuple[Any, Any, Any]:
    """Return the arrays as what ``weight`` is."""
    if _is_tensor(weight):
        torch = sys.modules["torch"]
        made = tuple(torch.from_numpy(array).to(weight.device) for array in made)
    phy2log, log2phy, logcnt = made
    return phy2log, log2phy, logcnt
