"""Choosing among whole fabrics as four traffic patterns take turns, by the number of devices.

This is what OptiMoE (NeurIPS 2025 ML for Systems workshop) does, priced: the library is fat-tree,
mesh and torus, and a pattern lasts 15 iterations. An iteration's traffic is equal flows whose pairs
are drawn from the pattern. No switch turns these fabrics into each other: problems are marked
hypothetical.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topomoe import stats
from topomoe.envs.pattern_scale_settings import PATH_LATENCY, ScaleSettings, near_square
from topomoe.envs.problem import SwitchingProblem
from topomoe.network.bottleneck import bottleneck
from topomoe.patterns import PATTERNS, locality, pattern_demand
from topomoe.topologies import budget
from topomoe.topologies.routing import route
from topomoe.topologies.routing.routing import Routing

FloatArray = NDArray[np.float64]

DEMAND_NAMES = ("concentration", "locality")
TRAINING, HELD_OUT = 0, 1


@dataclass(frozen=True, eq=False)
class PatternTimeline:
    """T iterations under every accounting.

    Attributes:
        pattern: int64 [T], index into ``PATTERNS``.
        problems: by accounting, the switching problem; its switches are free until ``charged``.
    """

    pattern: NDArray[np.int64]
    problems: Mapping[str, SwitchingProblem]


def fabric_routings(settings: ScaleSettings, devices: int) -> dict[str, tuple[Routing, ...]]:
    """Return every fabric's default routing by accounting; path latency has iso-injection's."""
    built = {}
    for accounting in settings.accountings:
        normalise = "iso-injection" if accounting == PATH_LATENCY else accounting
        built[accounting] = tuple(
            route(
                budget.build(
                    name,
                    near_square(devices),
                    settings.bandwidth,
                    settings.latency,
                    normalise,
                    ports=settings.ports,
                )
            )
            for name in settings.fabrics
        )
    return built


def iteration_cost(accounting: str, routing: Routing, demand: FloatArray) -> FloatArray:
    """Return the seconds of demands [B, N, N] on one fabric, [B].

    ``path-latency``: the mean over bytes of their path's latency. Otherwise the bottleneck model:
    the busiest link's time and the path's latency.
    """
    if accounting != PATH_LATENCY:
        return np.asarray(bottleneck(routing.topology, routing, demand))
    total = demand.sum(axis=(1, 2))
    return np.asarray((demand * routing.latency).sum(axis=(1, 2)) / np.maximum(total, 1e-300))


def mean_demand(settings: ScaleSettings, devices: int, pattern: str) -> FloatArray:
    """Return the bytes that a pattern sends on average, [N, N]; which devices are hot is drawn."""
    rng = np.random.default_rng(devices)
    total = devices * settings.device_bytes
    return pattern_demand(pattern, near_square(devices), total_bytes=total, rng=rng)


def demand_statistics(demand: FloatArray, devices: int) -> NDArray[np.float32]:
    """Return concentration and locality of demands [B, N, N], float32 [B, 2].

    Concentration is the Gini coefficient of the bytes that each device receives; locality the share
    of the bytes that stay inside a quadrant of the grid.
    """
    received = stats.gini(demand.sum(axis=1))
    return np.stack([received, locality(demand, near_square(devices))], axis=1).astype(np.float32)


def pattern_timeline(
    settings: ScaleSettings, devices: int, seed: int, side: int
) -> PatternTimeline:
    """Return one timeline, ``TRAINING`` or ``HELD_OUT``; the two draw nothing alike.

    The patterns take turns in OptiMoE's order. Each phase draws its hot devices, and each iteration
    its flows' pairs: a multinomial of ``device_flows`` flows a device. Raises InputError where a
    fabric cannot be built.
    """
    rng = np.random.default_rng([seed, side, devices])
    routings = fabric_routings(settings, devices)
    flows, total = settings.device_flows * devices, settings.device_bytes * devices
    costs: dict[str, list[FloatArray]] = {accounting: [] for accounting in routings}
    seen = []
    for phase in range(settings.phases):
        share = pattern_demand(PATTERNS[phase % len(PATTERNS)], near_square(devices), rng=rng)
        drawn = rng.multinomial(flows, share.ravel() / share.sum(), size=settings.phase_iterations)
        demand: FloatArray = np.asarray(total / flows * drawn.reshape(-1, devices, devices))
        seen.append(demand_statistics(demand, devices))
        for accounting, fabrics in routings.items():
            priced = [iteration_cost(accounting, routing, demand) for routing in fabrics]
            costs[accounting].append(np.stack(priced, axis=1))
    count = len(settings.fabrics)
    pattern = np.arange(settings.phases).repeat(settings.phase_iterations) % len(PATTERNS)
    problems = {
        accounting: SwitchingProblem(
            names=settings.fabrics,
            cost=np.concatenate(parts),
            switch_cost=np.zeros((count, count)),
            demand=np.concatenate(seen),
            demand_names=DEMAND_NAMES,
            episode_length=settings.episode_phases * settings.phase_iterations,
            hypothetical=True,
        )
        for accounting, parts in costs.items()
    }
    return PatternTimeline(pattern, problems)


def charged(problem: SwitchingProblem, delay: float) -> SwitchingProblem:
    """Return the problem with every switch taking ``delay`` seconds, fully exposed."""
    apart = ~np.eye(problem.num_configurations, dtype=np.bool_)
    return replace(
        problem, switch_cost=np.where(apart, delay, 0.0), metric=np.zeros((0, 0)), prior=np.zeros(0)
    )
