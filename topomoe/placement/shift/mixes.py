"""Proof of how good a placement is for every mix of several loads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.placement.bounds import lower_bound
from topomoe.placement.placement import Placement
from topomoe.placement.shift.share_program import best_shares
from topomoe.topologies.checked import numbers
from topomoe.topologies.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class MixCertificate:
    """The largest device load over all mixes of D loads, by layer, with what cannot be beaten."""

    worst: Floats  # [M], no mix has a device of larger load
    shares_bound: Floats  # [M], no static shares on these slots do better
    placement_bound: Floats  # [M], no placement with as many slots does better
    mix: Floats  # [M, D], the mix of loads in the proof for these slots


def mix_certificate(placement: Placement, loads: ArrayLike) -> MixCertificate:
    """Return the certificate for ``loads`` [D, M, E] and their mixes (weights >= 0 of sum 1).

    ``worst`` is attained by a load itself, as device loads are linear in the mix. The bound on
    shares is the dual of their linear programme. The bound on placements is the largest
    ``lower_bound`` of the loads and of the programme's mix: it holds for every mix, and each of
    them proves it. Raises InputError for loads of another shape, not finite or below 0.
    """
    given = numbers(loads, "loads")
    shape = (placement.num_layers, placement.num_experts)
    if given.ndim != 3 or given.shape[1:] != shape or not len(given):
        raise InputError(f"loads must be [D, M, E] with M, E = {shape}, got shape {given.shape}")
    if not (np.isfinite(given) & (given >= 0)).all():
        raise InputError("loads must be finite and >= 0")
    devices, slots = placement.num_devices, placement.num_slots
    worst = np.max([placement.device_load(load).max(axis=1) for load in given], axis=0)
    shares = best_shares(placement.slot_expert, given, devices)
    mixed = np.einsum("md,dme->me", shares.weights, given)
    bounds = [[lower_bound(row, devices, slots) for row in load] for load in (*given, mixed)]
    bound = np.max(bounds, axis=0)
    return MixCertificate(
        worst, np.minimum(shares.bound, worst), np.minimum(bound, worst), shares.weights
    )
