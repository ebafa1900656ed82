"""Seconds that the experts of a placement are expected to take, and a proven bound on them.

An expert with x tokens on a device takes the larger of their FLOPs and of reading its weights; one
without tokens takes nothing (``topomoe.compute``). These are seconds of expected tokens: a batch's
own counts vary around them, see ``topomoe.comparison.placement_compute``.
"""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.compute import expert_seconds, roofline
from topomoe.model import Device, MoEModel, device_preset, model_preset
from topomoe.placement.bounds import Certificate, lower_bound
from topomoe.placement.placement import Placement
from topomoe.topologies.checked import numbers
from topomoe.topologies.errors import InputError


def expected_tokens(
    load: ArrayLike, model: str | MoEModel, batch_tokens: float
) -> NDArray[np.float64]:
    """Return the tokens [M, E] that each expert expects of a batch of ``batch_tokens`` tokens.

    ``load`` [M, E] or [E] in any unit; the model's routed experts get top-k pairs a token together.
    A last column beyond them is the shared expert, routed: its load counts every token, in the
    same unit. Raises InputError for a load of another number of experts, or that is negative, not
    finite or all zero.
    """
    shape = model_preset(model)
    loads = numbers(load, "load")
    loads = loads[None] if loads.ndim == 1 else loads
    if loads.ndim != 2 or 0 in loads.shape:
        raise InputError(f"load must be [E] or [M, E], got shape {loads.shape}")
    extra = loads.shape[1] - shape.num_experts
    if extra != 0 and not (extra == 1 and shape.num_shared_experts):
        raise InputError(
            f"load must have a column for each of {shape.name}'s {shape.num_experts} experts"
            + (" (one more: the shared expert, routed)" if shape.num_shared_experts else "")
            + f", got {loads.shape[1]}"
        )
    if not batch_tokens > 0:
        raise InputError(f"batch_tokens must be > 0, got {batch_tokens}")
    scaled = loads / np.maximum(loads.max(axis=1, keepdims=True), np.finfo(float).tiny)
    routed = scaled[:, : shape.num_experts].sum(axis=1, keepdims=True)
    if not (np.isfinite(routed).all() and (loads >= 0).all() and (routed > 0).all()):
        raise InputError("load must be finite, >= 0 and not all zero in a layer")
    tokens: NDArray[np.float64] = scaled / routed * (batch_tokens * shape.top_k)
    return tokens


def expected_seconds(
    placement: Placement,
    load: ArrayLike,
    model: str | MoEModel,
    device: str | Device = "h100",
    batch_tokens: float = 16384,
) -> NDArray[np.float64]:
    """Return the seconds [M, N] that each device's experts take for their expected tokens."""
    shape = model_preset(model)
    tokens = expected_tokens(load, shape, batch_tokens)
    if tokens.shape != (placement.num_layers, placement.num_experts):
        raise InputError(
            f"load must be [M, E] = [{placement.num_layers}, {placement.num_experts}], "
            f"got shape {tokens.shape}"
        )
    slots = np.take_along_axis(tokens, placement.slot_expert, axis=1) * placement.slot_share
    seconds = expert_seconds(slots, shape, device_preset(device))
    rows = seconds.reshape(placement.num_layers, placement.num_devices, -1)
    total: NDArray[np.float64] = rows.sum(axis=2)
    return total


def time_certificate(
    placement: Placement,
    load: ArrayLike,
    model: str | MoEModel,
    device: str | Device = "h100",
    batch_tokens: float = 16384,
) -> Certificate:
    """Return the bound, the worst device's expected seconds and their gap, [M] each."""
    achieved = expected_seconds(placement, load, model, device, batch_tokens).max(axis=1)
    slots, devices = placement.num_slots, placement.num_devices
    bound = time_lower_bound(load, devices, slots, model, device, batch_tokens)
    gap = achieved / bound - 1.0
    gap[np.abs(gap) < 1e-12] = 0.0  # rounding of the sums
    return Certificate(bound, achieved, gap)


def time_lower_bound(
    load: ArrayLike,
    devices: int,
    slots: int,
    model: str | MoEModel,
    device: str | Device = "h100",
    batch_tokens: float = 16384,
) -> NDArray[np.float64]:
    """Return expected seconds [M] that some device must take, whatever placement and shares.

    Count in token times, with knee k: a piece of x tokens costs max(x, k), so a piece with share p
    of an expert of n tokens costs at least p max(n, k). A device that ends by D has at most
    q = min(S/N, floor(D/k)) pieces. So D is at least q k, and at least ``lower_bound`` of the loads
    max(n, k) on N q slots; the bound is the least of max(q k, that) over the q that hold every
    expert with tokens. Raises InputError like ``expected_tokens`` and ``lower_bound``.
    """
    shape = model_preset(model)
    token_seconds, weight_seconds = roofline(shape, device_preset(device))
    tokens = expected_tokens(load, shape, batch_tokens)
    lower_bound(tokens[0], devices, slots)  # checks devices and slots
    knee = weight_seconds / token_seconds
    bounds = [bound_in_tokens(row, devices, slots, knee) for row in tokens]
    return token_seconds * np.array(bounds)


def bound_in_tokens(tokens: NDArray[np.float64], devices: int, slots: int, knee: float) -> float:
    """Return the bound of ``time_lower_bound`` for one layer's ``tokens`` [E], in token times."""
    costs = np.maximum(tokens[tokens > 0], knee)
    best = inf
    for pieces in range(-(-costs.size // devices), slots // devices + 1):
        if pieces * knee >= best:
            break
        best = min(best, max(pieces * knee, lower_bound(costs, devices, devices * pieces)))
    return best
