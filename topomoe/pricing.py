"""One batch: what its tokens send and compute, and what that costs on each network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from topomoe.compute import device_seconds, other_seconds
from topomoe.demand import (
    DispatchSettings,
    ReplicaTables,
    check_node_size,
    dispatch_batch,
    replica_tables,
    shared_expert_id,
)
from topomoe.model import Device, MoEModel, device_preset, match_model, model_preset
from topomoe.network.place_cut import Places, crossing, places
from topomoe.placement import Placement
from topomoe.routed_network import Network, Routings
from topomoe.routing_trace import RoutingTrace
from topomoe.stats import max_over_mean
from topomoe.step import FloatArray, StepSettings
from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import Topology
from topomoe.workload import Batch, WorkloadSettings


@dataclass(frozen=True, eq=False)
class Job:
    """All that one batch needs, the same for every batch."""

    trace: RoutingTrace
    tables: ReplicaTables
    shared_expert: int
    model: MoEModel
    device: Device
    workload: WorkloadSettings
    dispatch: DispatchSettings
    step: StepSettings
    networks: tuple[Network, ...]
    grid: tuple[int, int]
    seed: int
    devices: NDArray[np.int64] | None = None  # where the placement's devices sit; None: 0..N-1

    @property
    def row_of(self) -> NDArray[np.int64]:
        """The row of the grid on which each of the placement's devices sits."""
        places = np.arange(self.tables.num_devices) if self.devices is None else self.devices
        return places // self.grid[1]

    @cached_property
    def least_hops(self) -> NDArray[np.float32]:
        """Least hops of every pair on every network, there and back, [N*N, 2 networks]."""
        columns = []
        for network in self.networks:
            hops = network.topology.least_hops
            reached = np.where(np.isfinite(hops), hops, 0.0)  # no pair without a path sends
            columns += [reached.reshape(-1), reached.T.reshape(-1)]
        return np.stack(columns, axis=-1).astype(np.float32)

    @cached_property
    def places(self) -> list[Places | None]:
        """The places of several devices on every network."""
        return [places(network.topology) for network in self.networks]


@dataclass(frozen=True, eq=False)
class Traffic:
    """What one batch sends and computes, on whatever network."""

    copies: NDArray[np.float32]  # [M, N, N] token copies from device to device
    compute: FloatArray  # [M] seconds of the slowest device
    other: float  # seconds of attention, dense layers, head
    device_load: FloatArray  # [M, n] token-expert pairs
    tokens: int
    dropped_share: FloatArray  # [M] of the token-expert pairs
    rerouted_share: FloatArray  # [M] of the token-expert pairs
    pre_drop_cv: FloatArray  # [M] of the experts' loads, before any capacity


@dataclass(frozen=True, eq=False)
class BatchResult:
    """One batch on all networks, each [networks, M] unless said."""

    dispatch: FloatArray
    combine: FloatArray
    backward: FloatArray
    bound: FloatArray
    compute: FloatArray  # [M]
    other: float
    max_over_mean: FloatArray  # [M]
    remote_bytes: FloatArray  # [M]
    cross_row_bytes: FloatArray  # [M]
    dispatch_demand: FloatArray  # [N, N] bytes that go out, summed over layers
    combine_demand: FloatArray  # [N, N] bytes that come back, summed over layers
    device_load: FloatArray  # [M, N]
    tokens: int
    dropped_share: FloatArray  # [M] of the token-expert pairs
    rerouted_share: FloatArray  # [M] of the token-expert pairs
    pre_drop_cv: FloatArray  # [M] of the experts' loads, before any capacity
    halves: tuple[BatchResult, BatchResult] | None = None

    @property
    def demand(self) -> FloatArray:
        """Bytes between devices both ways, [N, N], summed over layers."""
        return self.dispatch_demand + self.combine_demand


def make_job(
    trace: RoutingTrace,
    networks: Sequence[tuple[Topology, Routings]],
    placement: Placement,
    model: str | MoEModel | None,
    workload: WorkloadSettings,
    dispatch: DispatchSettings,
    step: StepSettings,
    seed: int,
) -> Job:
    """Return the job of these inputs; InputError for what does not fit together."""
    shape = (
        match_model(trace.num_layers, trace.num_experts, trace.usual_top_k)
        if model is None
        else model_preset(model)
    )
    if placement.num_layers != trace.num_layers:
        raise InputError(
            f"placement must have the trace's {trace.num_layers} layers, has {placement.num_layers}"
        )
    for topology, _ in networks:
        if topology.num_devices != placement.num_devices:
            raise InputError(
                f"{topology.name} has {topology.num_devices} devices, "
                f"the placement {placement.num_devices}"
            )
    if seed < 0:
        raise InputError(f"seed must be >= 0, got {seed}")
    check_node_size(dispatch, placement.num_devices)
    grid = next((t.grid for t, _ in networks if t.grid is not None), (1, placement.num_devices))
    return Job(
        trace=trace,
        tables=replica_tables(placement, dispatch.replica_routing),
        shared_expert=shared_expert_id(shape, placement.num_experts, trace.num_experts),
        model=shape,
        device=device_preset(step.device),
        workload=workload,
        dispatch=dispatch,
        step=step,
        networks=tuple(
            Network.of(topology, routing, placement.num_experts, step.mtu)
            for topology, routing in networks
        ),
        grid=grid,
        seed=seed,
    )


def run_batch(job: Job, index: int, batch: Batch) -> BatchResult:
    """Run one batch; with overlap also its two halves, the even and the odd tokens."""
    seeds = batch_seeds(job, index)
    whole = run_tokens(job, batch.positions, batch.origin, seeds)
    if job.step.overlap == "none":
        return whole
    first, second = (
        run_tokens(job, batch.positions[h::2], batch.origin[h::2], seeds) for h in (0, 1)
    )
    return replace(whole, halves=(first, second))


def run_tokens(
    job: Job,
    positions: NDArray[np.int64],
    origin: NDArray[np.int32],
    seeds: NDArray[np.uint64],
) -> BatchResult:
    """Dispatch the tokens [T] and price them on every network."""
    return price(job, dispatch_tokens(job, positions, origin, seeds))


def batch_seeds(job: Job, index: int) -> NDArray[np.uint64]:
    """Return a seed a layer, [M], for the dispatch of batch ``index``."""
    rng = np.random.default_rng([job.seed, index])
    return rng.integers(2**63, size=job.trace.num_layers).astype(np.uint64)


def dispatch_tokens(
    job: Job,
    positions: NDArray[np.int64],
    origin: NDArray[np.int32],
    seeds: NDArray[np.uint64],
) -> Traffic:
    """Return what the tokens [T] send and compute in every layer."""
    devices = job.tables.num_devices
    sent = dispatch_batch(
        job.trace.experts,
        positions,
        origin,
        job.tables,
        job.dispatch,
        job.row_of,
        seeds,
        job.shared_expert,
    )
    copies, slot_load = sent.copies, sent.slot_load
    tokens_at = np.bincount(origin, minlength=devices)
    seconds = device_seconds(
        slot_load,
        tokens_at,
        devices,
        job.model,
        job.device,
        job.step.tile_tokens,
        shared_routed=job.shared_expert >= 0,
    )
    if job.devices is not None:
        copies = embed(copies, job.devices, job.networks[0].topology.num_devices)
    other = other_seconds(
        float(tokens_at.max()), job.model, job.device, job.workload.phase, job.step.context_tokens
    )
    passes = 3.0 if job.workload.phase == "training" else 1.0  # forward and twice that back
    return Traffic(
        copies=copies,
        compute=seconds.max(axis=1),
        other=other * passes * job.trace.num_layers / job.model.num_layers,
        device_load=slot_load.reshape(len(slot_load), devices, -1).sum(axis=2).astype(np.float64),
        tokens=len(positions),
        dropped_share=sent.dropped_share,
        rerouted_share=sent.rerouted_share,
        pre_drop_cv=sent.pre_drop_cv,
    )


def at_once(groups: Sequence[Traffic]) -> Traffic:
    """Return the traffic of groups that step at once: the step waits for the slowest.

    Shares and CV are means over the groups' tokens.
    """
    tokens = [traffic.tokens for traffic in groups]

    def mean(field: str) -> FloatArray:
        weights = tokens if sum(tokens) else None
        values = [getattr(traffic, field) for traffic in groups]
        return np.asarray(np.average(values, axis=0, weights=weights))

    return Traffic(
        copies=np.sum([traffic.copies for traffic in groups], axis=0),
        compute=np.max([traffic.compute for traffic in groups], axis=0),
        other=max(traffic.other for traffic in groups),
        device_load=np.concatenate([traffic.device_load for traffic in groups], axis=1),
        tokens=sum(tokens),
        dropped_share=mean("dropped_share"),
        rerouted_share=mean("rerouted_share"),
        pre_drop_cv=mean("pre_drop_cv"),
    )


def price(job: Job, traffic: Traffic) -> BatchResult:
    """Return what the traffic costs on each of the job's networks."""
    model, copies, load = job.model, traffic.copies, traffic.device_load
    there = copies * np.float32(model.dispatch_bytes)
    back = np.ascontiguousarray(copies.transpose(0, 2, 1)) * np.float32(model.combine_bytes)
    training = job.workload.phase == "training"
    gradient = copies * np.float32(model.combine_bytes) if training else None
    times = [
        _network_times(network, job, there, back, gradient, traffic.compute, transfer_bound)
        for network, transfer_bound in zip(job.networks, transfer_bounds(job, copies), strict=True)
    ]
    dispatch, combine, backward, bound = (np.stack(part) for part in zip(*times, strict=True))
    return BatchResult(
        dispatch=dispatch,
        combine=combine,
        backward=backward,
        bound=bound,
        compute=traffic.compute,
        other=traffic.other,
        max_over_mean=max_over_mean(load),
        device_load=load,
        tokens=traffic.tokens,
        dropped_share=traffic.dropped_share,
        rerouted_share=traffic.rerouted_share,
        pre_drop_cv=traffic.pre_drop_cv,
        **sent_bytes(job, traffic),
    )


class SentBytes(TypedDict):
    """The fields of a ``BatchResult`` that count bytes."""

    remote_bytes: FloatArray
    cross_row_bytes: FloatArray
    dispatch_demand: FloatArray
    combine_demand: FloatArray


def sent_bytes(job: Job, traffic: Traffic) -> SentBytes:
    """Return the bytes that the traffic puts on a network, there and back, whatever the network.

    Training sends both once more: the gradients of combine out, those of dispatch back.
    """
    copies, model = traffic.copies, job.model
    out = float(model.dispatch_bytes)
    back = float(model.combine_bytes)
    if job.workload.phase == "training":
        out, back = out + model.combine_bytes, 2.0 * back
    transposed = copies.transpose(0, 2, 1)
    sent = copies * np.float32(out) + transposed * np.float32(back)
    over_layers = copies.sum(axis=0, dtype=np.float64)
    row = np.arange(copies.shape[1]) // job.grid[1]
    return {
        "remote_bytes": sent.sum(axis=(1, 2), dtype=np.float64),
        "cross_row_bytes": sent[:, row[:, None] != row[None]].sum(axis=1, dtype=np.float64),
        "dispatch_demand": over_layers * out,
        "combine_demand": over_layers.T * back,
    }


def embed(
    copies: NDArray[np.float32], devices: NDArray[np.int64], num_devices: int
) -> NDArray[np.float32]:
    """Return copies [M, n, n] between a group's ``devices`` [n] as copies [M, N, N] between all."""
    out = np.zeros((len(copies), num_devices, num_devices), dtype=np.float32)
    out[:, devices[:, None], devices[None]] = copies
    return out


def _network_times(
    network: Network,
    job: Job,
    there: NDArray[np.float32],
    back: NDArray[np.float32],
    gradient: NDArray[np.float32] | None,
    compute: FloatArray,
    transfer_bound: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return dispatch, combine, backward and bound seconds, [M] each.

    Backward: the gradients of combine go out as dispatch did, those of dispatch come back as
    combine did, both in BF16; the GEMMs take twice the forward time.
    """
    overhead = job.step.collective_overhead
    dispatch = overhead + network.seconds(there, job.step)
    combine = overhead + network.combine.seconds(back, job.step)
    waiting = overhead + network.gather_seconds if job.dispatch.needs_counts else 0.0
    dispatch = dispatch + waiting
    backward = np.zeros_like(dispatch)
    if gradient is not None:
        backward = overhead + network.seconds(gradient, job.step) + combine + 2.0 * compute
    bound = transfer_bound + 2.0 * overhead + waiting
    # Sums in another order: the last digits of a bound that is met may cross.
    return dispatch, combine, backward, np.minimum(bound, dispatch + combine)


def transfer_bounds(job: Job, copies: NDArray[np.float32]) -> FloatArray:
    """Return below what no routing moves a dispatch and its combine, [networks, M] seconds.

    Each is ``network.node_cut``, ``network.capacity_bound`` or the cut around a place of several
    devices, whichever is largest. Combine is dispatch transposed, so that both share the sums over
    a device's copies.
    """
    leaving = copies.sum(axis=2, dtype=np.float64)
    reaching = copies.sum(axis=1, dtype=np.float64)
    crossed = (copies.reshape(len(copies), -1) @ job.least_hops).astype(np.float64)
    out_bytes, back_bytes = job.model.dispatch_bytes, job.model.combine_bytes
    bounds = []
    for n, network in enumerate(job.networks):
        into, out = network.topology.reception, network.topology.injection
        into, out = np.maximum(into, np.finfo(float).tiny), np.maximum(out, np.finfo(float).tiny)
        capacity = network.topology.capacity.sum()
        there = np.maximum((leaving / out).max(axis=1), (reaching / into).max(axis=1))
        back = np.maximum((reaching / out).max(axis=1), (leaving / into).max(axis=1))
        there = out_bytes * np.maximum(there, crossed[:, 2 * n] / capacity)
        back = back_bytes * np.maximum(back, crossed[:, 2 * n + 1] / capacity)
        where = job.places[n]
        if where is not None:
            out_of, in_to = crossing(where, copies)
            cut = np.maximum(out_of / where.leaving, in_to / where.reaching).max(axis=1)
            there = np.maximum(there, out_bytes * cut)
            cut = np.maximum(in_to / where.leaving, out_of / where.reaching).max(axis=1)
            back = np.maximum(back, back_bytes * cut)
        bounds.append(there + back)
    return np.stack(bounds)
