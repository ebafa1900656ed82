"""A cluster between long prompts and long answers: who talks to whom changes for seconds at a time.

Prompts run as prefill in one expert-parallel group a row of the grid and
answers as decode in one group of all devices; an epoch's share of prefill steps moves in phases.
A wiring is chosen for a whole epoch; a schedule rewires inside every collective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.delay_sweep import (
    Progress,
    SweepInput,
    both_ways_demands,
    pair_mean,
    some_layers,
    step_traffic,
    sweep_job,
)
from topomoe.envs.delay_timeline import (
    FloatArray,
    Order,
    Timeline,
    port_bound,
    windows,
)
from topomoe.envs.schedule_table import Fabric, ScheduleTable, schedule_table
from topomoe.envs.wiring_library import wire, wiring_library
from topomoe.envs.wiring_routing import (
    DEFAULT,
    OPTIMAL,
    RoutedSeconds,
    fitted_networks,
    network_of,
    worth_fitting,
)
from topomoe.pricing import Job, Traffic, at_once, batch_seeds, dispatch_tokens
from topomoe.routed_network import Network
from topomoe.workload import WorkloadSettings, make_batches

MOSTLY = 0.85  # share of prefill steps in an epoch of mostly prompts; answers: 1 - MOSTLY
WOBBLE = 0.1  # standard deviation of the share around it
LAYERS = 8  # priced, evenly spaced over the trace's, where the settings name no number


@dataclass(frozen=True, eq=False)
class Pool:
    """Steps of one phase, to be drawn from: seconds of each, summed over its collectives."""

    routed: RoutedSeconds  # [steps, K]
    rest: FloatArray  # [steps]
    table: ScheduleTable  # with P = 1
    bound: FloatArray  # [steps]


def cluster_timelines(given: SweepInput, progress: Progress) -> tuple[Timeline, Timeline]:
    """Return the training and the held-out timeline: B epochs of one decision each."""
    settings = given.settings
    if not settings.layers and given.train.num_layers > LAYERS:
        given = replace(
            given,
            train=some_layers(given.train, LAYERS),
            held_out=some_layers(given.held_out, LAYERS),
        )
    phases = [_steps(given, side) for side in range(2)]
    prefill, decode = phases[0]
    mean = [np.stack([t.copies for t in traffic]).mean(axis=0) for _, traffic in phases[0]]
    demands = [
        both_ways_demands(job, copies)
        for (job, _), copies in zip((prefill, decode), mean, strict=True)
    ]
    library = wiring_library(settings, given.grid, np.concatenate(demands))
    usual = [network_of(topology, decode[0]) for topology in library.values()]
    even = [copies.mean(axis=0) for copies in mean]  # of all layers
    both = [
        both_ways_demands(job, copies[None]).sum(axis=0)
        for (job, _), copies in zip((prefill, decode), even, strict=True)
    ]
    fit = worth_fitting(settings, library, both)
    fitted = [
        fitted_networks(library, fit, job, copies)
        for (job, _), copies in zip((prefill, decode), even, strict=True)
    ]
    pair = float(np.mean([pair_mean(copies) for copies in mean]))

    def report(number: int, done: int, of: int) -> None:
        progress("cluster", number * of + done, 4 * of)

    pools: list[list[Pool]] = []
    for side in range(2):
        pools.append(
            [
                _pool(
                    given,
                    job,
                    traffic,
                    usual,
                    fitted[number],
                    pair,
                    partial(report, 2 * side + number),
                )
                for number, (job, traffic) in enumerate(phases[side])
            ]
        )
    # A phase is known when it runs, and its splits are tables: each has its own.
    takes = [pool.routed.choose(settings.wiring_routing == OPTIMAL) for pool in pools[0]]
    counts = [_epochs(given, side) for side in range(2)]
    slot = _epoch_table(pools[0], counts[0]).best_slot
    training, held_out = (
        _timeline(
            tuple(library), pools[side], takes, counts[side], slot, round(settings.phase_epochs)
        )
        for side in range(2)
    )
    return training, held_out


def _steps(given: SweepInput, side: int) -> list[tuple[Job, list[Traffic]]]:
    """Return job and traffic of the pool's prefill steps, all rows at once, and decode steps."""
    settings, grid = given.settings, given.grid
    served = given.sides[side]
    prefill = WorkloadSettings(
        phase="prefill", batches=settings.pool, batch_tokens=settings.row_tokens
    )
    decode = WorkloadSettings(
        phase="decode",
        batches=settings.pool,
        batch_tokens=settings.decode_tokens,
        origins=settings.origins,
    )
    wide = sweep_job(given, served, decode, grid[0] * grid[1])
    narrow = sweep_job(given, served, prefill, grid[1])
    anywhere = network_of(wire(settings, grid, settings.wirings[0]), wide)
    rows = np.arange(grid[0] * grid[1]).reshape(grid)
    rng = np.random.default_rng([settings.seed, 5, side])
    groups: list[list[Traffic]] = []
    for row, own in zip(rows, rng.spawn(grid[0]), strict=True):
        job = replace(narrow, devices=row, networks=(anywhere,))
        batches = make_batches(served, grid[1], None, prefill, own)
        groups.append(
            [
                dispatch_tokens(job, batch.positions, batch.origin, batch_seeds(job, index))
                for index, batch in enumerate(batches)
            ]
        )
    together = [at_once(step) for step in zip(*groups, strict=True)]
    return [(narrow, together), (wide, step_traffic(wide, grid, side))]


def _pool(
    given: SweepInput,
    job: Job,
    traffic: list[Traffic],
    usual: list[Network],
    fitted: list[Network | None],
    pair_copies: float,
    progress: Callable[[int, int], None],
) -> Pool:
    order = Order.of(job.trace.num_layers, training=False)
    copies = np.stack([step.copies for step in traffic])
    window = windows(job, traffic, order)
    fabric = Fabric.of(given.settings, usual[0].topology, job)
    table = schedule_table(
        job,
        copies,
        order,
        window,
        given.delays,
        fabric,
        pair_copies,
        progress,
    )
    routed = RoutedSeconds.of(job, copies, order, usual, fitted)
    scale = job.model.num_layers / job.trace.num_layers  # the layers priced stand for all
    return Pool(
        routed=RoutedSeconds(scale * routed.usual.sum(axis=1), scale * routed.fitted.sum(axis=1)),
        rest=scale * window.sum(axis=1),
        table=ScheduleTable(
            *(
                scale * part.sum(axis=-1, keepdims=True)
                for part in (table.rotor, table.birkhoff, table.foreseen)
            )
        ),
        bound=scale * port_bound(job, given.settings.bandwidth, copies, order).sum(axis=1),
    )


def _epochs(given: SweepInput, side: int) -> list[NDArray[np.float64]]:
    """Return how often each pool step of prefill, and of decode, runs in each epoch, [B, steps]."""
    settings = given.settings
    rng = np.random.default_rng([settings.seed, 6, side])
    share = prefill_share(settings.epochs, settings.phase_epochs, rng)
    prompts = np.round(share * settings.epoch_steps).astype(np.int64)
    even = np.full(settings.pool, 1.0 / settings.pool)
    return [
        rng.multinomial(number, even).astype(np.float64)
        for number in (prompts, settings.epoch_steps - prompts)
    ]


def prefill_share(epochs: int, phase_epochs: float, rng: np.random.Generator) -> FloatArray:
    """Return each epoch's share of prefill steps, [epochs]: phases of geometric length."""
    flips = rng.random(epochs) < 1.0 / phase_epochs
    mostly_prompts = (np.cumsum(flips) + rng.integers(2)) % 2 == 1
    centre = np.where(mostly_prompts, MOSTLY, 1.0 - MOSTLY)
    return np.clip(centre + WOBBLE * rng.standard_normal(epochs), 0.0, 1.0)


def _epoch_table(pools: list[Pool], counts: list[FloatArray]) -> ScheduleTable:
    def summed(part: str) -> FloatArray:
        each = [
            np.swapaxes(getattr(pool.table, part), -1, -2) @ count.T
            for pool, count in zip(pools, counts, strict=True)
        ]
        return np.asarray(np.swapaxes(sum(each), -1, -2))

    return ScheduleTable(summed("rotor"), summed("birkhoff"), summed("foreseen"))


def _timeline(
    names: tuple[str, ...],
    pools: list[Pool],
    takes: list[NDArray[np.bool_]],
    counts: list[FloatArray],
    slot: NDArray[np.int64],
    block: int,
) -> Timeline:
    def summed(parts: list[FloatArray]) -> FloatArray:
        each = [count @ part for part, count in zip(parts, counts, strict=True)]
        return np.asarray(sum(each))

    chosen = [pool.routed.under(fitted) for pool, fitted in zip(pools, takes, strict=True)]
    table = _epoch_table(pools, counts)
    epochs = len(counts[0])
    return Timeline(
        names=names,
        routings=tuple(_routing(fitted) for fitted in zip(*takes, strict=True)),
        cost=summed(chosen)[:, None],
        usual=summed([pool.routed.usual for pool in pools])[:, None],
        least=summed([pool.routed.least for pool in pools])[:, None],
        window=np.zeros((epochs, 1)),
        rest=summed([pool.rest for pool in pools]),
        scheduled=table.scheduled(slot),
        foreseen=table.foreseen,
        redrawn=None,
        redraws=np.zeros(1, dtype=np.bool_),
        bound=summed([pool.bound for pool in pools])[:, None],
        block=block,
        queue=counts[0].sum(axis=1) / (counts[0] + counts[1]).sum(axis=1),
    )


def _routing(fitted: tuple[bool, bool]) -> str:
    """Return how a wiring is routed; where the phases differ, at prefill and at decode."""
    names = dict.fromkeys(OPTIMAL if each else DEFAULT for each in fitted)
    return "/".join(names)
