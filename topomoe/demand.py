"""Dispatch: from tokens and a placement to the bytes between devices and the load on each.

What is sent once is ``copies``: ``device`` (one copy of a token per destination device), ``expert``
(one per chosen expert) or ``node-relay`` (one per destination node over the rail to the peer of the
same rank there, forwarded inside the node). A token whose expert sits on its own device sends
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.model import MoEModel, model_preset
from topomoe.placement import LayerPlacement, Placement
from topomoe.routing_trace import NO_EXPERT, early_absences
from topomoe.topologies.errors import InputError, unknown

REPLICA_ROUTINGS = ("even", "weighted", "local-first", "least-loaded", "lp")
COPIES = ("device", "expert", "node-relay")
OVERFLOWS = ("drop", "reroute-to-next-expert", "none")
SPILL = 0.0  # measured: what more load allows in locality is worth less than it costs


@dataclass(frozen=True)
class DispatchSettings:
    """How tokens pick replicas and what is sent once."""

    replica_routing: str = "weighted"
    """even, weighted (by share), local-first (device, row, any), least-loaded or lp (the least
    largest load)."""
    copies: str = "device"
    """A token is sent once per device, per expert, or per node and relayed (node-relay)."""
    node_size: int = 1
    """Devices a node (node-relay copies, and rails; rails take 1 as 8)."""
    padded: float = 0.0
    """Send full buffers of this capacity factor instead of true token counts; 0: true counts."""
    spill: float = SPILL
    """Device load that local-first allows above lp's, as a share of it; inf: any."""
    capacity_factor: float = 0.0
    """An expert takes this times the mean load of a batch and layer; 0: any load."""
    overflow: str = "drop"
    """What exceeds an expert's capacity: drop, reroute-to-next-expert, or none (it stays)."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        if self.replica_routing not in REPLICA_ROUTINGS:
            raise unknown("replica routing", self.replica_routing, REPLICA_ROUTINGS)
        if self.copies not in COPIES:
            raise unknown("copies", self.copies, COPIES)
        if self.node_size < 1:
            raise InputError(f"node_size must be >= 1, got {self.node_size}")
        if not 0 <= self.padded < np.inf:
            raise InputError(f"padded must be a capacity factor >= 0, got {self.padded}")
        if not self.spill >= 0:
            raise InputError(f"spill must be >= 0, got {self.spill}")
        if not 0 <= self.capacity_factor < np.inf:
            raise InputError(f"capacity_factor must be finite and >= 0, got {self.capacity_factor}")
        if self.overflow not in OVERFLOWS:
            raise unknown("overflow", self.overflow, OVERFLOWS)
        if self.padded and self.limits and self.capacity_factor > self.padded:
            raise InputError(
                "padded buffers must hold the capacity: capacity_factor must be <= padded, "
                f"got {self.capacity_factor} and {self.padded}"
            )

    @property
    def limits(self) -> bool:
        """Whether an expert's load is kept within a capacity."""
        return self.capacity_factor > 0 and self.overflow != "none"

    @property
    def needs_counts(self) -> bool:
        """Whether replicas are chosen by load, which needs everyone's counts before a dispatch."""
        return self.replica_routing in ("local-first", "least-loaded", "lp")


@dataclass(frozen=True, eq=False)
class ReplicaTables:
    """A placement as the kernels read it: each layer's replicas sorted by expert."""

    start: NDArray[np.int64]  # [M, E+1] into the columns of slot and share
    slot: NDArray[np.int32]  # [M, S], the first start[m, E] in use
    device: NDArray[np.int64]  # [M, S], of slot
    share: NDArray[np.float64]  # [M, S]
    num_devices: int
    num_slots: int
    num_experts: int


@dataclass(frozen=True, eq=False)
class Dispatched:
    """One batch through all layers: what is sent, computed, and left out."""

    copies: NDArray[np.float32]  # [M, N, N] token copies from device to device
    slot_load: NDArray[np.int64]  # [M, S] token-expert pairs
    wanted: NDArray[np.int64]  # [M, E] pairs by the expert that the trace chose, routed ones only
    dropped: NDArray[np.int64]  # [M] pairs beyond the capacity that no expert computes
    rerouted: NDArray[np.int64]  # [M] pairs that another expert computes

    @property
    def dropped_share(self) -> NDArray[np.float64]:
        """Dropped pairs over all pairs, [M]; 0 without tokens."""
        return np.asarray(self.dropped / np.maximum(self.wanted.sum(axis=1), 1))

    @property
    def rerouted_share(self) -> NDArray[np.float64]:
        """Re-routed pairs over all pairs, [M]; 0 without tokens."""
        return np.asarray(self.rerouted / np.maximum(self.wanted.sum(axis=1), 1))

    @property
    def pre_drop_cv(self) -> NDArray[np.float64]:
        """Standard deviation over mean of the experts' loads before any capacity, [M]."""
        mean = np.maximum(self.wanted.mean(axis=1), np.finfo(float).tiny)
        cv: NDArray[np.float64] = self.wanted.std(axis=1) / mean
        return cv


def replica_tables(placement: Placement, replica_routing: str) -> ReplicaTables:
    """Return the tables: replicas with a share for ``weighted``, all of them for others.

    Shares are the placement's where a routing starts from them, else even.
    """
    by_share = replica_routing in ("weighted", "lp", "local-first")
    layers, slots = placement.slot_expert.shape
    experts = placement.num_experts
    start = np.zeros((layers, experts + 1), dtype=np.int64)
    slot = np.zeros((layers, slots), dtype=np.int32)
    share = np.zeros((layers, slots))
    for m in range(layers):
        kept = np.arange(slots)
        if replica_routing == "weighted":
            kept = kept[placement.slot_share[m] > 0]
        kept = kept[np.argsort(placement.slot_expert[m, kept], kind="stable")]
        expert = placement.slot_expert[m, kept]
        start[m] = np.searchsorted(expert, np.arange(experts + 1))
        slot[m, : len(kept)] = kept
        share[m, : len(kept)] = (
            placement.slot_share[m, kept]
            if by_share
            else 1.0 / np.bincount(expert, minlength=experts)[expert]
        )
    device = slot.astype(np.int64) // (slots // placement.num_devices)
    return ReplicaTables(start, slot, device, share, placement.num_devices, slots, experts)


def dispatch_batch(
    experts: NDArray[np.int16],
    positions: NDArray[np.int64],
    origin: NDArray[np.int32],
    tables: ReplicaTables,
    settings: DispatchSettings,
    row_of: NDArray[np.int64],
    seed: NDArray[np.uint64],
    shared_expert: int = -1,
) -> Dispatched:
    """Return what one batch sends and computes in all layers.

    experts [M, P, K] of a trace, -1 for no expert; positions, origin [T]; seed [M]. ``row_of`` [N]
    is each device's row (local-first, lp). ``shared_expert`` >= 0 is one more pick of every token.
    """
    from topomoe.dispatching.dispatch_layers import dispatch_layers

    sent = dispatch_layers(
        experts, positions, origin, tables, settings, row_of, seed, shared_expert
    )
    if not settings.padded:
        return sent
    tokens = np.bincount(origin, minlength=tables.num_devices)
    pairs = sent.wanted.sum(axis=1) / max(len(positions), 1) + (shared_expert >= 0)
    return replace(sent, copies=padded_copies(tokens, tables, pairs, settings.padded))


def padded_copies(
    tokens: NDArray[np.int64],
    tables: ReplicaTables,
    top_k: NDArray[np.float64],
    capacity_factor: float,
) -> NDArray[np.float32]:
    """Return the copies [M, N, N] of full capacity buffers, whatever the routing.

    Each device sends every expert a buffer of ceil(capacity factor * its tokens * K / E) tokens,
    split over the replicas by share; K, ``top_k`` [M], is what the batch's tokens have on average.
    """
    buffer = np.ceil(capacity_factor * tokens * top_k[:, None] / tables.num_experts)
    layers, devices = len(tables.start), tables.num_devices
    received = np.zeros((layers, devices))
    for m in range(layers):
        used = tables.start[m, -1]
        received[m] = np.bincount(
            tables.device[m, :used], tables.share[m, :used], minlength=devices
        )
    copies = (buffer[:, :, None] * received[:, None, :]).astype(np.float32)
    copies[:, np.arange(devices), np.arange(devices)] = 0
    return copies


def check_node_size(settings: DispatchSettings, devices: int) -> None:
    """Raise InputError where nodes do not divide the devices."""
    if settings.copies == "node-relay" and devices % settings.node_size:
        raise InputError(
            f"node_size must divide devices, got node_size={settings.node_size} "
            f"and devices={devices}"
        )


def shared_expert_id(model: MoEModel, placement_experts: int, trace_experts: int) -> int:
    """Return the id that dispatch appends for a routed shared expert; -1 where it is local.

    A placement of E + 1 experts routes the shared expert as id E; one of E keeps it local.
    """
    if placement_experts == trace_experts:
        return -1
    if placement_experts == trace_experts + 1 and model.num_shared_experts:
        return trace_experts
    raise InputError(
        f"placement must hold the trace's {trace_experts} experts"
        + (" (one more: the shared expert, routed)" if model.num_shared_experts else "")
        + f", holds {placement_experts}"
    )


def dispatch(
    experts: ArrayLike,
    origin: ArrayLike,
    placement_of_layer: LayerPlacement | Placement,
    model: str | MoEModel,
    replica_routing: str = "weighted",
    copies: str = "device",
    node_size: int = 1,
    columns: int | None = None,
    padded: float = 0.0,
    seed: int = 0,
    spill: float = SPILL,
    capacity_factor: float = 0.0,
    overflow: str = "drop",
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return demand [N, N] in bytes and load [N] in token-expert pairs of one layer's dispatch.

    experts [T, K] logical ids, -1 after those of a token that has fewer than K; origin [T] the
    device each token starts on. A copy is the model's
    FP8 hidden state and its scales; nothing is sent from a device to itself. ``columns`` is the
    length of a row of devices, which ``local-first`` and ``lp`` prefer (default: all devices are
    one row); ``spill``, ``capacity_factor`` and ``overflow`` are those of ``DispatchSettings``.
    A placement of E + 1 experts routes the shared expert: each token also goes to expert E.
    Raises InputError for shapes or ids that do not fit the placement.
    """
    placement = placement_of_layer
    if isinstance(placement, LayerPlacement):
        placement = Placement(
            placement.slot_expert[None],
            placement.slot_share[None],
            placement.num_devices,
            placement.num_experts,
        )
    if placement.num_layers != 1:
        raise InputError(f"dispatch takes one layer's placement, got {placement.num_layers} layers")
    shape = model_preset(model)
    settings = DispatchSettings(
        replica_routing, copies, node_size, padded, spill, capacity_factor, overflow
    )
    devices = placement.num_devices
    check_node_size(settings, devices)
    ids: NDArray[Any] = np.asarray(experts)
    start = np.asarray(origin)
    if ids.ndim != 2 or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"experts must be integers [T, K], got {ids.dtype} {list(ids.shape)}")
    if start.shape != (len(ids),) or not np.issubdtype(start.dtype, np.integer):
        raise InputError(
            f"origin must be integers [T] = [{len(ids)}], got {start.dtype} {list(start.shape)}"
        )
    routed = placement.num_experts
    if shape.num_shared_experts and routed == shape.num_experts + 1:
        routed -= 1
    given = (("experts", ids, NO_EXPERT, routed), ("origin", start, 0, devices))
    for name, array, least, limit in given:
        if array.size and (array.min() < least or array.max() >= limit):
            wrong = array.min() if array.min() < least else array.max()
            raise InputError(f"{name} must lie in 0..{limit - 1}, got {wrong}")
    if (early := early_absences(ids)).any():
        token = np.argmax(early)
        raise InputError(f"experts of token {token}: -1 (no expert) must come after its experts")
    if columns is not None and columns < 1:
        raise InputError(f"columns must be >= 1, got {columns}")
    if seed < 0:
        raise InputError(f"seed must be >= 0, got {seed}")
    sent = dispatch_batch(
        np.ascontiguousarray(ids[None], dtype=np.int16),
        np.arange(len(ids), dtype=np.int64),
        start.astype(np.int32),
        replica_tables(placement, replica_routing),
        settings,
        np.arange(devices) // (columns or devices),
        np.random.default_rng(seed).integers(2**63, size=1).astype(np.uint64),
        shared_expert=routed if routed < placement.num_experts else -1,
    )
    load = sent.slot_load[0].reshape(devices, -1).sum(axis=1)
    return sent.copies[0].astype(np.float64) * shape.dispatch_bytes, load


def all_gather_bytes(num_experts: int) -> int:
    """Return the bytes that each device sends each other one to share its expert counts."""
    return 4 * num_experts
