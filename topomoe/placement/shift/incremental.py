"""Keeping a placement balanced while it serves: shares each interval, copies when they pay.

The state is what a serving engine would keep. ``update`` sees the token-expert pairs of the
interval just served and returns the state that serves the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.placement.options import PlacementOptions
from topomoe.placement.placement import Placement
from topomoe.placement.registry import place
from topomoe.placement.shift.share_program import best_shares
from topomoe.topologies.checked import numbers
from topomoe.topologies.errors import InputError, unknown

if TYPE_CHECKING:
    import pandas as pd

POLICIES = ("static", "shares", "moves")


@dataclass(frozen=True)
class IncrementalSettings:
    """How a placement follows the load; raises InputError for a value out of range."""

    memory: float = 0.8
    """Weight of the past in the moving average of the loads, 0 to below 1."""
    moves: int = 2
    """Most copies newly placed in a layer and interval; 0: shares only."""
    copy_cost: float = 0.002
    """What a copy must lower a layer's max/mean by, over the horizon, to be worth its transfer."""
    horizon: int = 8
    """Intervals over which a copy's gain is counted."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.memory < 1:
            raise InputError(f"memory must be in [0, 1), got {self.memory}")
        if self.moves < 0:
            raise InputError(f"moves must be >= 0, got {self.moves}")
        if not 0 <= self.copy_cost < float("inf"):
            raise InputError(f"copy_cost must be >= 0 and finite, got {self.copy_cost}")
        if self.horizon < 1:
            raise InputError(f"horizon must be >= 1, got {self.horizon}")


@dataclass(frozen=True, eq=False)
class IncrementalState:
    """A placement in service, the loads expected of the next interval, and the copies moved."""

    placement: Placement
    load: NDArray[np.float64]  # [M, E], each layer's mean 1 (0 where none was seen)
    copies: int = 0  # newly placed since the start


def update(
    state: IncrementalState, counts: ArrayLike, settings: IncrementalSettings | None = None
) -> IncrementalState:
    """Return the state after an interval in which experts had ``counts`` [M, E].

    Loads are averaged with the past, shares found anew, and copies moved in the layers where the
    fall of max/mean times the horizon exceeds ``copy_cost`` a copy. Layers without a count keep
    their loads. Raises InputError for counts of another shape, not finite or below 0.
    """
    chosen = settings or IncrementalSettings()
    placement = state.placement
    seen = numbers(counts, "counts")
    if seen.shape != (placement.num_layers, placement.num_experts):
        raise InputError(
            f"counts must be [M, E] = [{placement.num_layers}, {placement.num_experts}], "
            f"got shape {seen.shape}"
        )
    if not (np.isfinite(seen) & (seen >= 0)).all():
        raise InputError("counts must be finite and >= 0")
    mean = seen.mean(axis=1, keepdims=True)
    some = mean > 0
    now = np.divide(seen, mean, out=np.zeros_like(seen), where=some)
    past = np.where(state.load.sum(axis=1, keepdims=True) > 0, chosen.memory, 0.0)
    load = np.where(some, past * state.load + (1 - past) * now, state.load)
    known = np.where(load.sum(axis=1, keepdims=True) > 0, load, 1.0)

    devices = placement.num_devices
    shares = best_shares(placement.slot_expert, known[None], devices)
    served = replace(placement, slot_share=shares.slot_share)
    if not chosen.moves:
        return IncrementalState(served, load, state.copies)
    moved = place(
        known,
        devices,
        placement.num_slots,
        method="rebalance",
        previous=served,
        options=PlacementOptions(moves=chosen.moves),
    )
    copies = moved.migration_slots(served).sum(axis=1)
    gain = served.device_load(known).max(axis=1) - moved.device_load(known).max(axis=1)
    gain *= chosen.horizon * devices / placement.num_experts
    worth = gain > chosen.copy_cost * copies
    slots = np.where(worth[:, None], moved.slot_expert, served.slot_expert)
    share = np.where(worth[:, None], moved.slot_share, served.slot_share)
    after = replace(placement, slot_expert=slots, slot_share=share)
    return IncrementalState(after, load, state.copies + int(copies[worth].sum()))


def evaluate_incremental(
    loads: Iterable[ArrayLike],
    placement: Placement,
    settings: IncrementalSettings | None = None,
    policies: tuple[str, ...] = POLICIES,
) -> pd.DataFrame:
    """Return max/mean of each interval under the policies, a row each.

    ``loads`` are the token-expert pairs [M, E] of successive intervals; each is served by the state
    that the intervals before it left. "static" keeps the placement, "shares" re-solves shares,
    "moves" moves copies too. Columns: interval, policy, max_over_mean (mean of the layers),
    worst_layer, copies (moved so far).
    """
    import pandas as pd

    for policy in policies:
        if policy not in POLICIES:
            raise unknown("policy", policy, POLICIES)
    chosen = settings or IncrementalSettings()
    start = IncrementalState(placement, np.zeros((placement.num_layers, placement.num_experts)))
    states = dict.fromkeys(policies, start)
    only_shares = replace(chosen, moves=0)
    rows = []
    for interval, counts in enumerate(loads):
        for policy, state in states.items():
            ratio = 1 / state.placement.balancedness(counts)
            rows.append((interval, policy, float(ratio.mean()), float(ratio.max()), state.copies))
            if policy != "static":
                states[policy] = update(
                    state, counts, only_shares if policy == "shares" else chosen
                )
    columns = ["interval", "policy", "max_over_mean", "worst_layer", "copies"]
    return pd.DataFrame(rows, columns=columns)
