"""From a trace, a placement and networks to step times: the simulator proper."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import DispatchSettings
from topomoe.model import MoEModel
from topomoe.placement import Placement
from topomoe.pricing import BatchResult, Job, make_job, run_batch
from topomoe.routed_network import Routings
from topomoe.routing_trace import RoutingTrace
from topomoe.step import FloatArray, SimulationResult, StepSettings, StepTime
from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology
from topomoe.workload import Batch, WorkloadSettings, coverage, make_batches

LEAST_REQUESTS = 5  # behind an interval: fewer say nothing of other requests
RESAMPLE_BATCHES = 8  # batches behind each bootstrap resample of the requests


def simulate(
    trace: RoutingTrace,
    topology: Topology,
    placement: Placement,
    model: str | MoEModel | None = None,
    batch_tokens: int = 16384,
    batches: int = 256,
    routing: Routing | None = None,
    replica_routing: str = "weighted",
    phase: str = "decode",
    origins: str = "uniform",
    copies: str = "device",
    workload: WorkloadSettings | None = None,
    dispatch: DispatchSettings | None = None,
    step: StepSettings | None = None,
    resamples: int = 0,
    seed: int = 0,
    home_rows: NDArray[np.int32] | None = None,
) -> SimulationResult:
    """Return step times of the trace's batches with this placement on this topology.

    ``model`` None finds the preset whose layers, experts and top-k are the trace's. ``workload``
    and ``dispatch`` override the single arguments before them. ``resamples`` > 1 gives a 95 %
    interval of the mean step over that many bootstrap resamples of the requests. ``home_rows`` [P]
    or [P, H] are the rows of devices where the trace's positions start, if origins are clustered.

    >>> import topomoe as tm
    >>> from topomoe import topologies
    >>> trace = tm.synthetic_trace("mixtral-8x7b", requests=8, positions=16)
    >>> placement = tm.place(trace, devices=8, slots=16, method="exact")
    >>> topology = topologies.make("torus", grid=(2, 4))
    >>> result = tm.simulate(trace, topology, placement, batch_tokens=256, batches=4)
    >>> result.step_time.mean > result.moe_time.mean > 0
    True
    """
    return simulate_networks(
        trace,
        [(topology, routing)],
        placement,
        model,
        workload
        or WorkloadSettings(
            phase=phase, batches=batches, batch_tokens=batch_tokens, origins=origins
        ),
        dispatch or DispatchSettings(replica_routing=replica_routing, copies=copies),
        step or StepSettings(),
        resamples=resamples,
        seed=seed,
        home_rows=home_rows,
    )[0]


def simulate_networks(
    trace: RoutingTrace,
    networks: Sequence[tuple[Topology, Routings]],
    placement: Placement,
    model: str | MoEModel | None,
    workload: WorkloadSettings,
    dispatch: DispatchSettings,
    step: StepSettings,
    resamples: int = 0,
    seed: int = 0,
    progress: Callable[[], None] | None = None,
    home_rows: NDArray[np.int32] | None = None,
) -> list[SimulationResult]:
    """Return a result a network; all see the same batches and the same dispatch.

    A network may have one routing for dispatch and another for combine. ``progress`` is called once
    a batch, of which there are ``total_batches(workload, resamples)``.
    """
    if not networks:
        raise InputError("simulate needs at least one topology")
    job = make_job(trace, networks, placement, model, workload, dispatch, step, seed)
    batches = make_batches(
        trace, placement.num_devices, job.grid, workload, np.random.default_rng(seed), home_rows
    )
    results = run_batches(job, enumerate(batches), progress)
    means = _resampled_means(job, resamples, progress, home_rows) if resamples > 1 else None
    requests, positions = coverage(trace, batches)
    return [
        collect(results, n, requests, positions, None if means is None else means[:, n])
        for n in range(len(networks))
    ]


def total_batches(workload: WorkloadSettings, resamples: int) -> int:
    """Return how many batches ``simulate_networks`` runs, those of the resamples included."""
    return workload.batches + (resamples * RESAMPLE_BATCHES if resamples > 1 else 0)


def run_batches(
    job: Job, batches: Iterable[tuple[int, Batch]], progress: Callable[[], None] | None
) -> list[BatchResult]:
    """Run the batches on all processors; the order and the numbers do not depend on how many."""

    def one(numbered: tuple[int, Batch]) -> BatchResult:
        result = run_batch(job, *numbered)
        if progress is not None:
            progress()
        return result

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(one, batches))


def _times(results: Sequence[BatchResult], network: int) -> StepTime:
    halves = None
    if results[0].halves is not None:
        pairs = [r.halves for r in results if r.halves is not None]
        halves = (
            _times([pair[0] for pair in pairs], network),
            _times([pair[1] for pair in pairs], network),
        )
    return StepTime(
        dispatch=np.stack([r.dispatch[network] for r in results]),
        compute=np.stack([r.compute for r in results]),
        combine=np.stack([r.combine[network] for r in results]),
        backward=np.stack([r.backward[network] for r in results]),
        other=np.array([r.other for r in results]),
        bound=np.stack([r.bound[network] for r in results]),
        halves=halves,
    )


def collect(
    results: Sequence[BatchResult],
    network: int,
    requests: int,
    positions: int,
    means: FloatArray | None,
) -> SimulationResult:
    """Return the batches' results on one of their networks."""
    layers = results[0].compute.shape[0]

    def stacked(field: str) -> Any:
        return np.stack([getattr(r, field) for r in results])

    times = _times(results, network)
    interval = None
    if means is not None and requests >= LEAST_REQUESTS:
        # Resampled trace by resampled trace, how far the mean moves; centred on the mean itself.
        low, high = np.percentile(means, [2.5, 97.5]) - means.mean()
        centre = float(times.step.mean())
        interval = (centre + float(low), centre + float(high))
    return SimulationResult(
        times=times,
        tokens=np.array([r.tokens for r in results]),
        max_over_mean=stacked("max_over_mean"),
        remote_bytes=stacked("remote_bytes"),
        cross_row_bytes=stacked("cross_row_bytes"),
        dispatch_demand=np.mean([r.dispatch_demand for r in results], axis=0) / layers,
        combine_demand=np.mean([r.combine_demand for r in results], axis=0) / layers,
        device_load=np.mean([r.device_load for r in results], axis=0),
        requests=requests,
        positions=positions,
        mean_interval=interval,
        dropped_share=stacked("dropped_share"),
        rerouted_share=stacked("rerouted_share"),
        pre_drop_cv=stacked("pre_drop_cv"),
    )


def _resampled_means(
    job: Job,
    resamples: int,
    progress: Callable[[], None] | None,
    home_rows: NDArray[np.int32] | None,
) -> FloatArray:
    """Return the mean step of each bootstrap resample of the requests, [resamples, networks].

    Requests, not batches, are what the trace has few of: batches of the same requests look more
    alike than those of the next day's requests would.
    """
    means = np.zeros((resamples, len(job.networks)))
    workload = replace(job.workload, batches=RESAMPLE_BATCHES)
    for r in range(resamples):
        rng = np.random.default_rng([job.seed, r, 1])
        drawn = np.sort(rng.integers(job.trace.num_requests, size=job.trace.num_requests))
        resampled = replace(job, trace=job.trace.select(drawn), workload=workload)
        homes = None if home_rows is None else home_rows[job.trace.positions_of(drawn)]
        batches = make_batches(
            resampled.trace, job.tables.num_devices, job.grid, workload, rng, homes
        )
        results = run_batches(resampled, enumerate(batches), progress)
        means[r] = [_times(results, n).step.mean() for n in range(len(job.networks))]
    return means
