"""From a trace and a fabric to a switching problem: steps priced on every configuration.

The request mix of a cluster moves between long prompts (prefill, one expert-parallel group a row)
and long answers (decode, one group of all devices), so who talks to whom changes. Steps of both
phases are dispatched and priced under each configuration once; an epoch's cost is that of the steps
it draws. Its share of prefill steps follows a two-state Markov chain and is known when requests are
admitted, before their traffic: it is the queue feature.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import DispatchSettings
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.groups import price_together
from topomoe.inputs import least_exact_slots, load_or_make
from topomoe.model import MoEModel
from topomoe.placement import place
from topomoe.pricing import BatchResult, Job, batch_seeds, make_job, run_tokens
from topomoe.routed_network import Network
from topomoe.step import StepSettings
from topomoe.topologies import budget
from topomoe.topologies.reconfiguration import delay_preset, switch_cost
from topomoe.topologies.registry import parse_grid
from topomoe.topologies.topology import Topology
from topomoe.trace import RoutingTrace
from topomoe.workload import WorkloadSettings, make_batches

PARTS = ("dispatch", "compute", "combine", "other")
MOSTLY = 0.85  # share of prefill steps in an epoch of mostly prompts; answers: 1 - MOSTLY
WOBBLE = 0.1  # standard deviation of the share around it
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StepTable:
    """Seconds of tabulated steps: parts [parts, steps, K] for prefill and decode."""

    prefill: FloatArray
    decode: FloatArray


def build_problems(settings: ScenarioSettings) -> tuple[SwitchingProblem, SwitchingProblem]:
    """Return the training and the held-out problem; they share no request."""
    grid = parse_grid(settings.grid)
    configurations = build_configurations(settings, grid)
    model, trace = load_or_make(
        settings.trace, settings.model, settings.synthetic_requests, settings.seed
    )
    if settings.layers and settings.layers < trace.num_layers:
        chosen = np.linspace(0, trace.num_layers - 1, settings.layers).round().astype(int)
        trace = trace.filter(layers=tuple(int(m) for m in chosen))
    halves = trace.split(0.5, settings.seed)
    training, test = (
        _problem(
            settings,
            configurations,
            _tabulate(settings, grid, configurations, model, halves[0], part),
            side,
        )
        for side, part in enumerate(halves)
    )
    training = training.calibrated(training)
    return training, test.calibrated(training)


def build_configurations(settings: ScenarioSettings, grid: tuple[int, int]) -> list[Topology]:
    """Return the library: wirings of one fabric, or fabrics at the same injection bandwidth."""
    common = (grid, settings.bandwidth, settings.latency, "iso-injection")
    if settings.library == "fabrics":
        return [
            budget.build(name, *common, settings.base_share, settings.ports)
            for name in settings.configurations
        ]
    return [
        budget.build("optical", *common, settings.base_share, settings.ports, circuits=name)
        for name in settings.configurations
    ]


def _tabulate(
    settings: ScenarioSettings,
    grid: tuple[int, int],
    configurations: list[Topology],
    model: MoEModel,
    train: RoutingTrace,
    served: RoutingTrace,
) -> StepTable:
    """Price ``pool`` steps of each phase; experts are placed by the training requests alone."""
    rows, columns = grid
    devices = np.arange(rows * columns)
    networks = [(topology, None) for topology in configurations]
    prefill = _job(settings, model, train, served, networks, "prefill", columns)
    decode = _job(settings, model, train, served, networks, "decode", rows * columns)
    groups = [replace(prefill, devices=row) for row in devices.reshape(grid)]
    rng = np.random.default_rng([settings.seed, 2])
    drawn = [
        make_batches(served, columns, None, prefill.workload, part) for part in rng.spawn(rows)
    ]
    together = [
        price_together(groups, index, batches)[0]
        for index, batches in enumerate(zip(*drawn, strict=True))
    ]
    wide = [
        run_tokens(decode, batch.positions, batch.origin, batch_seeds(decode, index))
        for index, batch in enumerate(
            make_batches(served, rows * columns, grid, decode.workload, rng.spawn(1)[0])
        )
    ]
    scale = model.num_layers / served.num_layers  # the layers tabulated stand for all
    return StepTable(scale * _parts(together), scale * _parts(wide))


def _job(
    settings: ScenarioSettings,
    model: MoEModel,
    train: RoutingTrace,
    served: RoutingTrace,
    networks: list[tuple[Topology, None]],
    phase: str,
    devices: int,
) -> Job:
    tokens = settings.prefill_tokens if phase == "prefill" else settings.decode_tokens
    placement = place(
        train,
        devices=devices,
        slots=least_exact_slots(train.num_experts, devices),
        method="eplb",
        seed=settings.seed,
    )
    step = StepSettings()
    job = make_job(
        served,
        [],
        placement,
        model,
        WorkloadSettings(phase=phase, batches=settings.pool, batch_tokens=tokens),
        DispatchSettings(),
        step,
        settings.seed,
    )
    priced = tuple(Network.of(t, r, placement.num_experts, step.mtu) for t, r in networks)
    grid = parse_grid(settings.grid)
    return replace(job, networks=priced, grid=grid)


def _parts(results: list[BatchResult]) -> FloatArray:
    """Return [parts, steps, K]: dispatch, compute, combine summed over layers, and other."""
    dispatch = np.stack([r.dispatch.sum(axis=1) for r in results])
    compute = np.stack([np.full(dispatch.shape[1], r.compute.sum()) for r in results])
    combine = np.stack([r.combine.sum(axis=1) for r in results])
    other = np.stack([np.full(dispatch.shape[1], r.other) for r in results])
    return np.stack([dispatch, compute, combine, other])


def prefill_share(settings: ScenarioSettings, rng: np.random.Generator) -> FloatArray:
    """Return each epoch's share of prefill steps, [epochs]: phases of geometric length."""
    flips = rng.random(settings.epochs) < 1.0 / settings.phase_epochs
    mostly_prompts = (np.cumsum(flips) + rng.integers(2)) % 2 == 1
    centre = np.where(mostly_prompts, MOSTLY, 1.0 - MOSTLY)
    return np.clip(centre + WOBBLE * rng.standard_normal(settings.epochs), 0.0, 1.0)


def _problem(
    settings: ScenarioSettings,
    configurations: list[Topology],
    table: StepTable,
    side: int,
) -> SwitchingProblem:
    rng = np.random.default_rng([settings.seed, 3, side])
    share = prefill_share(settings, rng)
    steps = settings.epoch_steps
    count = np.round(share * steps).astype(int)
    cost = np.zeros((len(PARTS), settings.epochs, len(configurations)))
    for epoch in range(settings.epochs):
        prompts = rng.integers(settings.pool, size=count[epoch])
        answers = rng.integers(settings.pool, size=steps - count[epoch])
        cost[:, epoch] = table.prefill[:, prompts].sum(axis=1)
        cost[:, epoch] += table.decode[:, answers].sum(axis=1)
    features = (count / steps)[:, None]
    hypothetical = settings.library == "fabrics"
    delay = delay_preset(settings.delay)
    apart = ~np.eye(len(configurations), dtype=np.bool_)
    return SwitchingProblem(
        names=tuple(settings.configurations),
        cost=cost.sum(axis=0),
        switch_cost=np.where(apart, delay.total, 0.0)
        if hypothetical
        else switch_cost(configurations, delay),
        components=dict(zip(PARTS, cost, strict=True)),
        features=features.astype(np.float32),
        feature_names=("prefill_share",),
        episode_length=settings.episode_length,
        hypothetical=hypothetical,
    )


@lru_cache(maxsize=1)
def default_problem() -> SwitchingProblem:
    """Return the problem an environment runs when given none: a small fabric, mixtral-8x7b."""
    settings = ScenarioSettings(
        model="mixtral-8x7b",
        grid="4x4",
        configurations=("mesh", "torus", "rows"),
        prefill_tokens=512,
        decode_tokens=1024,
        layers=4,
        pool=16,
        epochs=400,
        synthetic_requests=16,
    )
    return build_problems(settings)[0]
