"""From a scenario's settings to decision problems: training, validation and held-out timelines.

The requests of the trace are split in four, and steps are tabulated from each part alone: one for
placements and fitted circuits, then training, validation and held-out timelines. Every step is
priced under every configuration of the library; an epoch costs what the steps drawn for it cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topomoe.compute import roofline
from topomoe.envs.cluster import PARTS, RECENT, Cluster, CoDesignProblem, StepPool
from topomoe.envs.cluster_picture import drawn_links
from topomoe.envs.group_circuits import group_circuits
from topomoe.envs.group_layout import Layout, parse_layout
from topomoe.envs.migration import Migration
from topomoe.envs.network_tables import network_tables
from topomoe.envs.placement_library import annealed, balanced, slot_devices
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.recent_placement import expected_excess, follow_recent, step_share
from topomoe.envs.scenario_presets import SCENARIOS, load_scenario
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.envs.step_bound import step_bound
from topomoe.envs.step_price import price_library
from topomoe.envs.timeline import context_timeline, draw_steps, queue_features
from topomoe.envs.traffic import (
    Contexts,
    demand_statistics,
    frequent_domains,
    phase_domains,
    received_tokens,
    step_pool,
    typical_steps,
)
from topomoe.inputs import load_or_make
from topomoe.model import MoEModel, device_preset
from topomoe.patterns import quadrant
from topomoe.routing_trace import RoutingTrace
from topomoe.step import StepSettings
from topomoe.topologies import budget
from topomoe.topologies.errors import InputError
from topomoe.topologies.matching import choose_circuits
from topomoe.topologies.reconfiguration import delay_preset, switch_cost
from topomoe.topologies.registry import parse_grid
from topomoe.topologies.routing import route
from topomoe.topologies.topology import Topology

__all__ = ["SCENARIOS", "Problems", "build_problems", "load_scenario"]

# Shares of the requests. Placements and circuits are made from others than agents are trained on:
# a placement looks better on the requests that it was made from than it will on any other.
SPLIT = {"library": 0.3, "training": 0.3, "validation": 0.1, "test": 0.3}
PHASE_WEIGHT = 0.9  # of a domain in the steps that its placement is made for, without phases
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problems:
    """A scenario's timelines; no two of them share a request, nor what placements were made from.

    Attributes:
        training: what rules and agents are made from.
        validation: what they are chosen by.
        tests: held-out timelines by seed: drawn apart, from the same held-out requests.
        settings: what they were built from.
        notes: what to tell of them.
    """

    training: CoDesignProblem
    validation: CoDesignProblem
    tests: Mapping[int, CoDesignProblem]
    settings: ScenarioSettings
    notes: tuple[str, ...] = ()


def build_problems(settings: ScenarioSettings, seeds: Sequence[int] = (0,)) -> Problems:
    """Return the scenario's timelines, those held out for each of ``seeds``.

    Raises:
        InputError: the settings do not fit each other or the trace.
    """
    grid = parse_grid(settings.grid)
    rng = np.random.default_rng([settings.seed, 0])
    layouts = tuple(parse_layout(text, grid[0] * grid[1], rng) for text in settings.layouts)
    model, trace = load_or_make(
        settings.trace,
        settings.model or ("" if settings.trace else "deepseek-v2-lite"),
        settings.synthetic_requests,
        settings.seed,
    )
    if settings.layers and settings.layers < trace.num_layers:
        chosen = np.linspace(0, trace.num_layers - 1, settings.layers).round().astype(int)
        trace = trace.filter(layers=tuple(int(m) for m in chosen))
    contexts = Contexts(layouts, phase_domains(trace, settings), np.array(settings.load_levels))
    parts = split_requests(trace, settings.seed)
    step = StepSettings()
    device = device_preset(step.device)
    streams = dict(zip(parts, rng.spawn(len(parts)), strict=True))
    # Placements for each domain are in the library even where no domain ever dominates.
    made = replace(settings, domain_weight=settings.domain_weight or PHASE_WEIGHT)
    # There, what is for all traffic is made from the mix, which the number -1 stands for.
    kinds = frequent_domains(trace)
    kinds = np.union1d(kinds, contexts.domains[contexts.domains < 0])
    made_for = Contexts(layouts, kinds, contexts.levels)
    check_domains(parts.values(), made_for, trace.domain_names)
    library, _ = step_pool(
        parts.pop("library"), made_for, made, model, device, step, streams.pop("library")
    )
    pools = {
        name: step_pool(part, contexts, settings, model, device, step, streams[name])
        for name, part in parts.items()
    }
    cluster, fitted = build_cluster(settings, grid, made_for, model, library, step)
    tables = {
        name: Table.of(cluster, pool, shares, layouts) for name, (pool, shares) in pools.items()
    }
    names = trace.domain_names

    def timeline(table: Table, epochs: int, *stream: int) -> CoDesignProblem:
        draw = np.random.default_rng([settings.seed, *stream])
        return _timeline(
            cluster,
            fitted,
            table,
            contexts,
            settings,
            names,
            epochs,
            usual,
            prior,
            typical,
            best,
            draw,
        )

    # What an epoch takes decides how much of a migration fits into it.
    seconds = tables["training"].seconds.sum(axis=0)
    usual = settings.epoch_steps * float(seconds.mean(axis=0).min())
    best = int(seconds.mean(axis=(0, 2)).argmin())
    prior = step_share(tables["training"].pool).mean(axis=0)
    typical = typical_steps(tables["training"].pool, contexts)
    training = timeline(tables["training"], settings.epochs, 1)
    training = replace(training, switching=training.switching.calibrated(training.switching))

    def calibrated(problem: CoDesignProblem) -> CoDesignProblem:
        return replace(problem, switching=problem.switching.calibrated(training.switching))

    return Problems(
        training=training,
        validation=calibrated(timeline(tables["validation"], settings.test_epochs, 2)),
        tests={
            seed: calibrated(timeline(tables["test"], settings.test_epochs, 3, seed))
            for seed in seeds
        },
        settings=settings,
        notes=trace.notes,
    )


def split_requests(trace: RoutingTrace, seed: int) -> dict[str, RoutingTrace]:
    """Return the parts of a trace, split by request as ``SPLIT`` says."""
    parts = {}
    rest, left = trace, 1.0
    for name, share in SPLIT.items():
        if name == list(SPLIT)[-1]:
            parts[name] = rest
        else:
            parts[name], rest = rest.split(1.0 - share / left, seed)
            left -= share
    return parts


def check_domains(
    parts: Iterable[RoutingTrace], contexts: Contexts, names: tuple[str, ...]
) -> None:
    """Raise InputError where a domain that has phases lacks requests in one of the parts."""
    for part in parts:
        size = np.bincount(part.request_domain, minlength=len(names))
        for domain in contexts.domains.tolist():
            if domain >= 0 and not size[domain]:
                raise InputError(
                    f"the trace must have at least {len(SPLIT)} requests of each domain with "
                    f"phases, {names[domain]} has fewer"
                )


def build_topologies(
    settings: ScenarioSettings,
    grid: tuple[int, int],
    layouts: Sequence[Layout],
    demands: Sequence[FloatArray],
) -> tuple[list[str], list[Topology], NDArray[np.int16]]:
    """Return the library's names and topologies, and the one fitted to each layout, [V], or -1.

    ``demands`` [N, N] are the layouts' mean training demands. Fitted to a layout is whichever
    carries its demand sooner: the maximum-weight b-matching, or circulants inside its groups. A
    wiring that turns out equal to an earlier one is left out.
    """
    common = (grid, settings.bandwidth, settings.latency, "iso-injection")
    shares = settings.base_share, settings.ports
    fitted = np.full(len(demands), -1, dtype=np.int16)
    if settings.library == "fabrics":
        made = [budget.build(name, *common, *shares) for name in settings.topologies]
        return list(settings.topologies), made, fitted
    names, made, lit = [], [], []
    wanted = [(name, name, -1) for name in settings.topologies]
    if settings.fit_circuits:
        rng = np.random.default_rng([settings.seed, 5])
        for v, (layout, demand) in enumerate(zip(layouts, demands, strict=True)):
            candidates = [
                budget.build("optical", *common, *shares, circuits=circuits)
                for circuits in (
                    choose_circuits(demand, settings.ports, connected=True),
                    group_circuits(layout, settings.ports, rng),
                )
            ]
            seconds = [float(route(c).transfer_time(demand[None])[0]) for c in candidates]
            best = candidates[int(np.argmin(seconds))]
            wanted.append((f"fitted-{v}", best.parameters["circuits"], v))
    for name, circuits, v in wanted:
        topology = budget.build("optical", *common, *shares, circuits=circuits)
        own = sorted(topology.parameters["circuits"].tolist())
        if own not in lit:
            names.append(name)
            made.append(topology)
            lit.append(own)
        if v >= 0:
            fitted[v] = lit.index(own)
    return names, made, fitted


def build_cluster(
    settings: ScenarioSettings,
    grid: tuple[int, int],
    contexts: Contexts,
    model: MoEModel,
    pool: StepPool,
    step: StepSettings,
) -> tuple[Cluster, NDArray[np.int16]]:
    """Return the cluster with its library, made from training steps, and the fitted topologies."""
    layouts = contexts.layouts
    experts = pool.counts.shape[3]
    slot_device = slot_devices(layouts, experts, settings.redundancy)
    names, slot_expert, made_for = _library(settings, contexts, pool, slot_device)
    usual = usual_steps(contexts, pool)
    demands = _demands(pool, usual, layouts, slot_device, slot_expert[0])
    topology_names, topologies, fitted = build_topologies(settings, grid, layouts, demands)
    pull, offset = network_tables(
        topologies, layouts, model.dispatch_bytes, model.combine_bytes, step.mtu
    )
    links, optical = drawn_links(topologies)
    groups = pool.counts.shape[1]
    weight = np.zeros((len(layouts), groups))
    for v, layout in enumerate(layouts):
        weight[v, : len(layout.kinds)] = layout.sizes / layout.sizes.sum()
    hypothetical = settings.library == "fabrics"
    delay = delay_preset(settings.delay)
    apart = ~np.eye(len(topologies), dtype=np.bool_)
    token_seconds, weight_seconds = roofline(model, device_preset(step.device))
    scale = model.num_layers / pool.counts.shape[2]
    cluster = Cluster(
        topologies=tuple(topology_names),
        placements=names,
        layouts=tuple(layout.name for layout in layouts),
        pull=pull,
        offset=offset,
        group_of=np.stack([layout.group_of for layout in layouts]),
        weight=weight,
        slot_device=slot_device,
        slot_expert=slot_expert,
        overhead=step.collective_overhead,
        token_seconds=token_seconds,
        weight_seconds=weight_seconds,
        layer_scale=scale,
        reconfiguration=np.where(apart, delay.total, 0.0)
        if hypothetical
        else switch_cost(topologies, delay),
        expert_bytes=model.expert_weight_bytes * settings.migration_scale,
        nic=settings.bandwidth,
        migration_share=settings.migration_share,
        grid=grid,
        hypothetical=hypothetical,
        links=links,
        optical=optical,
    )
    return _with_annealed(cluster, pool, usual, made_for, settings.seed), fitted


def usual_steps(contexts: Contexts, pool: StepPool) -> NDArray[np.bool_]:
    """Return which steps stand for all traffic, [Q]: those of no domain; where none is, all."""
    mixed = contexts.domains[contexts.split(pool.context.astype(np.int64))[1]] < 0
    return mixed if mixed.any() else ~mixed


def _library(
    settings: ScenarioSettings, contexts: Contexts, pool: StepPool, slot_device: NDArray[np.int16]
) -> tuple[tuple[str, ...], NDArray[np.int16], list[NDArray[np.bool_]]]:
    """Return the placements' names, EPLB's slots [P, V, M, S], and the steps each is made for.

    Raises:
        InputError: all that is asked for are placements of domains, of which there are none.
    """
    layout, domain, _ = contexts.split(pool.context.astype(np.int64))
    names: list[str] = []
    chosen: list[NDArray[np.bool_]] = []
    every = usual_steps(contexts, pool)
    for name in settings.placements:
        if name == "domains":
            for index, kind in enumerate(np.flatnonzero(contexts.domains >= 0)):
                names.append(f"domain-{index}")
                chosen.append(domain == kind)
        else:
            names.append(name)
            chosen.append(every)
    if set(names) <= {RECENT}:
        raise InputError(
            "placements must hold mix or annealed: the trace has fewer than two domains with "
            "requests enough for placements of their own"
        )
    slots = slot_device.shape[1]
    made = [
        [
            balanced(
                pool.counts[steps & (layout == v)].mean(axis=0, dtype=np.float64),
                where,
                slots,
                settings.redundancy,
                settings.seed,
            )
            for v, where in enumerate(contexts.layouts)
        ]
        for steps in chosen
    ]
    return tuple(names), np.array(made, dtype=np.int16), chosen


def _with_annealed(
    cluster: Cluster,
    pool: StepPool,
    usual: NDArray[np.bool_],
    made_for: list[NDArray[np.bool_]],
    seed: int,
) -> Cluster:
    """Return the cluster with all placements annealed, on the topology best so far, but EPLB's."""
    seconds = price_library(cluster, pool).sum(axis=0)[usual]
    topology = int(seconds.mean(axis=(0, 2)).argmin())
    slot_expert = cluster.slot_expert.copy()
    for p, name in enumerate(cluster.placements):
        if name in ("mix", RECENT):
            continue
        for v in range(len(cluster.layouts)):
            rng = np.random.default_rng([seed, 4, p, v])
            steps = np.flatnonzero(made_for[p] & (pool.layout == v))
            slot_expert[p, v] = annealed(cluster, pool, slot_expert[p, v], v, topology, steps, rng)
    return replace(cluster, slot_expert=slot_expert)


def _demands(
    pool: StepPool,
    usual: NDArray[np.bool_],
    layouts: tuple[Layout, ...],
    slot_device: NDArray[np.int16],
    slot_expert: NDArray[np.int16],
) -> list[FloatArray]:
    """Return each layout's mean token copies between devices both ways, [N, N]."""
    received = received_tokens(pool, layouts, slot_device, slot_expert)
    demands = []
    for v, layout in enumerate(layouts):
        same = (layout.group_of[:, None] == layout.group_of) & (layout.group_of >= 0)
        np.fill_diagonal(same, False)
        mean = received[usual & (pool.layout == v)].mean(axis=0, dtype=np.float64)
        there = same * (mean / (same.sum(axis=0) + 1))
        demands.append(np.asarray(there + there.T))
    return demands


@dataclass(frozen=True, eq=False)
class Table:
    """A pool of steps with what each costs and looks like under the library."""

    pool: StepPool
    shares: NDArray[np.float32]  # [Q, D]
    seconds: FloatArray  # [4, Q, A, P]
    demand: NDArray[np.float32]  # [Q, 2]
    bound: FloatArray  # [Q] seconds

    @classmethod
    def of(
        cls,
        cluster: Cluster,
        pool: StepPool,
        shares: NDArray[np.float32],
        layouts: tuple[Layout, ...],
    ) -> Table:
        """Price every step of the pool under every configuration."""
        received = received_tokens(pool, layouts, cluster.slot_device, cluster.slot_expert[0])
        return cls(
            pool,
            shares,
            price_library(cluster, pool),
            demand_statistics(pool, layouts, received, quadrant(cluster.grid)),
            step_bound(cluster, pool),
        )


def _timeline(
    cluster: Cluster,
    fitted: NDArray[np.int16],
    table: Table,
    contexts: Contexts,
    settings: ScenarioSettings,
    domain_names: tuple[str, ...],
    epochs: int,
    epoch_seconds: float,
    prior: FloatArray,
    typical: StepPool,
    topology: int,
    rng: np.random.Generator,
) -> CoDesignProblem:
    ahead = settings.backlog_epochs  # beyond the end, so that the last backlog is known too
    context_rng, step_rng = rng.spawn(2)
    context = context_timeline(contexts, settings, epochs + ahead, context_rng)
    steps = draw_steps(context, settings, step_rng)
    features, feature_names = queue_features(
        context, steps, table.shares, contexts, domain_names, ahead
    )
    features, steps = features[:epochs], steps[:epochs]
    repeat = settings.epoch_steps / settings.draws
    recent = follow_recent(
        cluster, table.pool, steps, contexts.layouts, settings, epoch_seconds, prior
    )
    if RECENT in cluster.placements:
        known = table.shares[steps].mean(axis=1, dtype=np.float64)
        several = len(contexts.domains) > 1
        domains = known[:, contexts.domains] if several else np.ones((epochs, 1))
        excess = expected_excess(
            cluster, typical, steps, table.pool, recent.slots, domains, topology
        )
        age = recent.age[:, None] / settings.refresh_epochs
        features = np.concatenate([features, excess, age], axis=1, dtype=np.float32)
        feature_names = (*feature_names, "expected excess of recent", "age of recent")
    parts = table.seconds[:, steps]  # [4, T, J, A, P]
    if RECENT in cluster.placements:
        parts[..., cluster.placements.index(RECENT)] = recent.seconds
    configurations = len(cluster.topologies) * len(cluster.placements)
    per_step = parts.sum(axis=0).reshape(epochs, settings.draws, configurations)
    summed = repeat * parts.sum(axis=2).reshape(len(PARTS), epochs, configurations)
    count = len(cluster.placements)
    of_topology = np.arange(configurations) // count
    switching = SwitchingProblem(
        names=tuple(f"{a}/{p}" for a in cluster.topologies for p in cluster.placements),
        cost=summed.sum(axis=0),
        switch_cost=cluster.reconfiguration[np.ix_(of_topology, of_topology)],
        components=dict(zip(PARTS, summed, strict=True)),
        features=features,
        feature_names=feature_names,
        episode_length=settings.episode_length,
        hypothetical=cluster.hypothetical,
        placements=cluster.placements,
        migration=Migration(
            recent.stall,
            recent.lag,
            settings.migration_share / (1.0 - settings.migration_share),
        ),
        steps=per_step.astype(np.float32),
        bound=repeat * table.bound[steps].sum(axis=1),
        demand=table.demand[steps].mean(axis=1),
        demand_names=("concentration", "locality"),
    )
    return CoDesignProblem(
        cluster=cluster,
        pool=table.pool,
        steps=steps,
        repeat=repeat,
        forecast=recent.forecast,
        epoch_seconds=epoch_seconds,
        switching=switching,
        fitted=fitted,
        recent=recent.slots,
    )
