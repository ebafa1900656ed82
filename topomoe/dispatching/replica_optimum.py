"""One layer's least largest device load for the counts of a batch, with its proof."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.dispatching.replica_dealing import apportion
from topomoe.dispatching.replica_flow import minimise_largest
from topomoe.placement import LayerPlacement
from topomoe.topologies.checked import whole_numbers
from topomoe.topologies.errors import InputError


def balance_replicas(
    count: ArrayLike, placement: LayerPlacement
) -> tuple[NDArray[np.int64], int, NDArray[np.bool_]]:
    """Return the tokens of each slot [S], the largest device load and what proves it, [N].

    ``count`` [E] token-expert pairs of one batch, whole numbers >= 0. Every slot may serve, those
    of share 0 too. The proof is a set of devices: the experts that live on them alone have more
    than (largest load - 1) x devices tokens, so that no assignment does better. Raises InputError
    for counts that do not fit the placement.
    """
    tokens = whole_numbers(count, "count")
    if tokens.shape != (placement.num_experts,):
        raise InputError(f"count must be [E] = [{placement.num_experts}], got shape {tokens.shape}")
    if tokens.min() < 0:
        raise InputError(f"count must be >= 0, got {tokens.min()}")
    order = np.argsort(placement.slot_expert, kind="stable")
    start = np.searchsorted(placement.slot_expert[order], np.arange(placement.num_experts + 1))
    quota = np.empty(placement.num_slots, dtype=np.int64)
    apportion(tokens, start, placement.slot_share[order], np.uint64(0), quota)
    proof = np.zeros(placement.num_devices, dtype=np.bool_)
    device = placement.slot_device[order]
    largest = minimise_largest(quota, start, device, placement.num_devices, proof)
    slots = np.empty_like(quota)
    slots[order] = quota
    return slots, int(largest), proof
