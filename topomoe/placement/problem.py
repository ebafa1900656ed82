"""What every placement method is given, and the slot shares most of them return."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.options import PlacementOptions

if TYPE_CHECKING:
    from topomoe.placement.placement import Placement
    from topomoe.routing_trace import RoutingTrace


@dataclass(frozen=True, eq=False)
class PlacementProblem:
    """Experts to place on devices; checked by ``place``: N <= S, N divides S, S/N < E <= S."""

    load: NDArray[np.float64]  # [M, E], all domains together
    domain_load: NDArray[np.float64]  # [D, M, E], each layer's mean 1; of a trace: its domains
    num_devices: int  # N
    num_slots: int  # S
    grid: tuple[int, int] | None  # rows x columns of devices, where they have such
    seed: int
    options: PlacementOptions = field(default_factory=PlacementOptions)
    trace: RoutingTrace | None = None  # what the loads were counted from, where it is known
    previous: Placement | None = None  # the placement served so far

    @property
    def num_layers(self) -> int:
        """M, the MoE layers."""
        return len(self.load)

    @property
    def num_experts(self) -> int:
        """E, the columns of the loads."""
        return len(self.load[0])

    @property
    def slots_per_device(self) -> int:
        """S/N."""
        return self.num_slots // self.num_devices


# What a method returns: slot_expert int32 [M, S] and slot_share float64 [M, S].
Slots = tuple[NDArray[np.int32], NDArray[np.float64]]


def even_shares(slot_expert: NDArray[np.int32], num_experts: int) -> NDArray[np.float64]:
    """Return shares [M, S] that split each expert evenly over the slots [M, S] that hold it."""
    layers = len(slot_expert)
    flat = slot_expert + num_experts * np.arange(layers)[:, None]
    replicas = np.bincount(flat.ravel(), minlength=layers * num_experts)
    shares: NDArray[np.float64] = 1.0 / replicas[flat]
    return shares
