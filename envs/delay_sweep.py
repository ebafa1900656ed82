"""From a trace to timelines: each workload's collectives under every wiring at every delay.

Experts are placed, wirings chosen and rotor slots set by the training requests alone; the held-out
timeline shares no request with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import DispatchSettings
from topomoe.envs.delay_sweep_settings import DelaySweepSettings
from topomoe.envs.delay_timeline import (
    BACK,
    THERE,
    FloatArray,
    Order,
    Timeline,
    collective_seconds,
    demand_of,
    port_bound,
    windows,
)
from topomoe.envs.schedule_table import Fabric, schedule_table
from topomoe.envs.wiring_library import wire, wiring_library
from topomoe.envs.wiring_routing import (
    DEFAULT,
    OPTIMAL,
    RoutedSeconds,
    fitted_networks,
    network_of,
    worth_fitting,
)
from topomoe.inputs import least_exact_slots, load_or_make
from topomoe.model import MoEModel
from topomoe.placement import place
from topomoe.pricing import Job, Traffic, batch_seeds, dispatch_tokens, make_job
from topomoe.step import StepSettings
from topomoe.topologies.errors import unknown
from topomoe.topologies.matching import METHODS, choose_circuits
from topomoe.topologies.reconfiguration import DELAYS
from topomoe.topologies.registry import parse_grid
from topomoe.trace import RoutingTrace
from topomoe.workload import WorkloadSettings, make_batches, workload_notes

_APART = 0.2  # of the logarithm: nearer to a technology's delay no other is tried
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class SweepInput:
    """What all workloads of a sweep have in common."""

    settings: DelaySweepSettings
    grid: tuple[int, int]
    model: MoEModel
    train: RoutingTrace
    held_out: RoutingTrace
    delays: FloatArray  # [D] seconds
    notes: tuple[str, ...]

    @property
    def sides(self) -> tuple[RoutingTrace, RoutingTrace]:
        """The training requests and the held-out ones."""
        return self.train, self.held_out


def prepare_sweep(settings: DelaySweepSettings) -> SweepInput:
    """Load and split the trace; InputError for what does not fit."""
    grid = parse_grid(settings.grid)
    model, trace = load_or_make(
        settings.trace, settings.model, settings.synthetic_requests, settings.seed
    )
    if settings.layers and settings.layers < trace.num_layers:
        trace = some_layers(trace, settings.layers)
    train, held_out = trace.split(0.5, settings.seed)
    for name in settings.wirings:
        wire(settings, grid, name)
    for name in settings.methods:
        if name not in METHODS:
            raise unknown("circuit method", name, METHODS)
    phases = dict.fromkeys(
        phase
        for name in settings.workloads
        for phase in (("prefill", "decode") if name == "cluster" else (name,))
    )
    notes = [
        note for phase in phases for note in workload_notes(trace, WorkloadSettings(phase=phase))
    ]
    return SweepInput(
        settings, grid, model, train, held_out, delay_grid(settings), (*trace.notes, *notes)
    )


def some_layers(trace: RoutingTrace, layers: int) -> RoutingTrace:
    """Return the trace with that many layers, evenly spaced."""
    chosen = np.linspace(0, trace.num_layers - 1, layers).round().astype(int)
    return trace.filter(layers=tuple(int(m) for m in chosen))


def delay_grid(settings: DelaySweepSettings) -> FloatArray:
    """Return the delays in seconds, [D]: from the shortest technology to the longest, and each."""
    presets = sorted({delay.total for delay in DELAYS.values()})
    low, high = np.log10(presets[0]), np.log10(presets[-1])
    points = round((high - low) * settings.points_per_decade) + 1
    grid = [float(f"{delay:.6g}") for delay in np.logspace(low, high, points)[1:-1]]
    apart = [delay for delay in grid if min(abs(np.log(delay / p)) for p in presets) > _APART]
    return np.array(sorted({*presets, *apart}))


def phase_timelines(given: SweepInput, phase: str, progress: Progress) -> tuple[Timeline, Timeline]:
    """Return the training and the held-out timeline of prefill, decode or training."""
    settings, grid = given.settings, given.grid
    workload = WorkloadSettings(
        phase=phase,
        batches=settings.steps,
        batch_tokens=getattr(settings, f"{phase}_tokens"),
        origins=settings.origins,
        schedule="phases" if phase == "decode" else "trace",
        phase_batches=settings.phase_steps,
    )
    jobs = [sweep_job(given, part, workload, grid[0] * grid[1]) for part in given.sides]
    traffic = [step_traffic(job, grid, side) for side, job in enumerate(jobs)]
    copies = [np.stack([step.copies for step in steps]) for steps in traffic]
    order = Order.of(jobs[0].trace.num_layers, phase == "training")
    mean = copies[0].mean(axis=0)
    library = wiring_library(settings, grid, both_ways_demands(jobs[0], mean))
    usual = [network_of(topology, jobs[0]) for topology in library.values()]
    even = mean.mean(axis=0)  # of all layers
    fit = worth_fitting(settings, library, [both_ways_demands(jobs[0], even[None]).sum(axis=0)])
    fitted = fitted_networks(library, fit, jobs[0], even)
    routed = [
        RoutedSeconds.of(job, copies[side], order, usual, fitted) for side, job in enumerate(jobs)
    ]
    takes = routed[0].choose(settings.wiring_routing == OPTIMAL)
    fabric = Fabric.of(settings, usual[0].topology, jobs[0])

    def report(side: int, done: int, of: int) -> None:
        progress(phase, side * of + done, 2 * of)

    window = [windows(job, traffic[side], order) for side, job in enumerate(jobs)]
    tables = [
        schedule_table(
            job,
            copies[side],
            order,
            window[side],
            given.delays,
            fabric,
            pair_mean(mean),
            partial(report, side),
        )
        for side, job in enumerate(jobs)
    ]
    training, held_out = (
        Timeline(
            names=tuple(library),
            routings=tuple(OPTIMAL if fits else DEFAULT for fits in takes),
            cost=routed[side].under(takes),
            usual=routed[side].usual,
            least=routed[side].least,
            window=window[side],
            rest=window[side].sum(axis=1),
            scheduled=tables[side].scheduled(tables[0].best_slot),
            foreseen=tables[side].foreseen,
            redrawn=redrawn_seconds(given, job, copies[side], mean, order),
            redraws=order.new_layer,
            bound=port_bound(job, settings.bandwidth, copies[side], order),
            block=settings.phase_steps if phase == "decode" else 1,
        )
        for side, job in enumerate(jobs)
    )
    return training, held_out


def both_ways_demands(job: Job, copies: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the bytes [2 C, N, N] of the dispatches, then the combines, of copies [C, N, N]."""
    return np.concatenate(
        [demand_of(job, copies, kind) for kind in (THERE, BACK)], dtype=np.float64
    )


def pair_mean(copies: NDArray[np.float32]) -> float:
    """Return the mean copies of a pair of devices in a collective, for copies [C, N, N]."""
    count, devices, _ = copies.shape
    pairs: int = count * devices * max(1, devices - 1)
    return float(copies.sum(dtype=np.float64)) / pairs


def sweep_job(
    given: SweepInput, served: RoutingTrace, workload: WorkloadSettings, devices: int
) -> Job:
    """Return what prices the steps of ``served`` on ``devices``; experts placed by training."""
    settings = given.settings
    slots = settings.slots if devices == given.grid[0] * given.grid[1] else 0
    placement = place(
        given.train,
        devices=devices,
        slots=slots or least_exact_slots(given.train.num_experts, devices),
        method=settings.placement,
        seed=settings.seed,
    )
    job = make_job(
        served,
        [],
        placement,
        given.model,
        workload,
        DispatchSettings(),
        StepSettings(),
        settings.seed,
    )
    return replace(job, grid=given.grid)


def step_traffic(job: Job, grid: tuple[int, int], side: int) -> list[Traffic]:
    """Return what each step of a group of all devices sends and computes."""
    rng = np.random.default_rng([job.seed, 4, side])
    batches = make_batches(job.trace, grid[0] * grid[1], grid, job.workload, rng)
    return [
        dispatch_tokens(job, batch.positions, batch.origin, batch_seeds(job, index))
        for index, batch in enumerate(batches)
    ]


def redrawn_seconds(
    given: SweepInput,
    job: Job,
    copies: NDArray[np.float32],
    mean: NDArray[np.float32],
    order: Order,
) -> FloatArray:
    """Return the seconds of collectives under circuits chosen from the step before, [B, P].

    Each layer gets its own for dispatch and combine, both ways at once, by MixNet's greedy (Liao et
    al., SIGCOMM 2025); the first step's are chosen from the training mean.
    """
    out = np.empty((len(copies), len(order.kind)))
    before: Sequence[NDArray[np.float32]] = [mean, *copies[:-1]]
    for b, last in enumerate(before):
        for m in range(copies.shape[1]):
            circuits = choose_circuits(
                last[m],
                given.settings.ports,
                "mixnet",
                bidirectional=given.settings.ports > 1,
                connected=True,
            )
            network = network_of(wire(given.settings, given.grid, circuits), job)
            at = order.layer == m
            own = Order(order.kind[at], np.zeros(at.sum(), dtype=np.int64), order.backward[at])
            out[b, at] = collective_seconds(job, network, copies[b : b + 1, m : m + 1], own)[0]
    return out
