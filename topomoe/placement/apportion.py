"""Shares as whole numbers of hash entries, which a deployed dispatcher looks up.

A serving engine sends a token of expert e to the replica in entry ``hash(token) % entries`` of the
expert's table. A replica's share is then a whole number of entries: first by largest remainder
(Hamilton's method), then moved entry by entry where that lowers the worst device's load.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.placement.placement import Placement
from topomoe.topologies.checked import whole
from topomoe.topologies.errors import InputError


def active_replicas(placement: Placement) -> NDArray[np.int64]:
    """Return how many slots compute a share of each expert, [M, E]: what an expert really needs."""
    layers, experts = placement.num_layers, placement.num_experts
    flat = placement.slot_expert + experts * np.arange(layers)[:, None]
    counts = np.bincount(flat[placement.slot_share > 0], minlength=layers * experts)
    return counts.reshape(layers, experts)


def integer_shares(
    placement: Placement, entries: int = 64, load: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Return how many entries of its expert's table each slot has, [M, S].

    Each expert's sum to ``entries``. Without a load [M, E], each is within one of entries * share.
    With it, entries then move between an expert's replicas, one by one and along chains of devices,
    as long as that lowers the load of the worst device of the layer. A slot without a share gets no
    entry. Raises InputError for entries < 1 and a load of another shape.
    """
    from topomoe.placement.apportion_kernel import largest_remainders, lower_worst

    count = whole(entries, "entries", 1)
    shares = np.asarray(placement.slot_share)
    weights = np.zeros(shares.shape, dtype=np.int64)
    start, slot = _replicas(placement)
    for m in range(placement.num_layers):
        largest_remainders(start[m], slot[m], shares[m], count, weights[m])
    if load is not None:
        placement.device_load(load)  # checks its shape
        loads = np.asarray(load, dtype=np.float64).reshape(placement.num_layers, -1)
        if not (np.isfinite(loads).all() and (loads >= 0).all()):
            raise InputError("load must be finite and >= 0")
        unit = loads / np.maximum(loads.max(axis=1, keepdims=True), np.finfo(float).tiny)
        for m in range(placement.num_layers):
            lower_worst(
                start[m],
                slot[m],
                placement.slot_expert[m],
                unit[m] / count,
                placement.num_devices,
                weights[m],
            )
    return weights


def rounded(placement: Placement, load: ArrayLike, entries: int = 64) -> Placement:
    """Return the placement with the shares that tables of ``entries`` entries can give."""
    shares = integer_shares(placement, entries, load) / entries
    return Placement(placement.slot_expert, shares, placement.num_devices, placement.num_experts)


def dispatch_table(
    placement: Placement, entries: int = 64, load: ArrayLike | None = None
) -> NDArray[np.int32]:
    """Return the slot of each hash entry, [M, E, entries], for ``integer_shares``.

    Slots are interleaved (smooth weighted round robin), so that neighbouring hashes go to different
    replicas: any run of n entries gives each of them its part of n to within about one.
    """
    from topomoe.placement.apportion_kernel import interleave

    weights = integer_shares(placement, entries, load)
    table = np.empty((placement.num_layers, placement.num_experts, entries), dtype=np.int32)
    start, slot = _replicas(placement)
    for m in range(placement.num_layers):
        interleave(start[m], slot[m], weights[m], table[m])
    return table


def _replicas(placement: Placement) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return start [M, E+1] and slot [M, S]: slot[start[e]:start[e+1]] have a share of expert e."""
    counts = active_replicas(placement)
    start = np.zeros((placement.num_layers, placement.num_experts + 1), dtype=np.int64)
    np.cumsum(counts, axis=1, out=start[:, 1:])
    idle = np.where(placement.slot_share > 0, placement.slot_expert, placement.num_experts)
    return start, np.argsort(idle, axis=1, kind="stable")
