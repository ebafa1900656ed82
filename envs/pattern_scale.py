"""Choosing among whole fabrics as four traffic patterns take turns, by the number of devices.

This is what OptiMoE (NeurIPS 2025 ML for Systems workshop) does, priced: the library is fat-tree,
mesh and torus, and a pattern lasts 15 iterations. An iteration's traffic is equal flows whose pairs
are drawn from the pattern. No switch turns these fabrics into each other: problems are marked
hypothetical.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from topomoe import stats
from topomoe.envs.problem import SwitchingProblem
from topomoe.network.bottleneck import bottleneck
from topomoe.patterns import PATTERNS, locality, pattern_demand
from topomoe.topologies import budget, units
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.routing import route
from topomoe.topologies.routing.routing import Routing

FloatArray = NDArray[np.float64]

PATH_LATENCY = "path-latency"
ACCOUNTINGS = (PATH_LATENCY, "iso-injection", "iso-cost", "iso-port")
DEMAND_NAMES = ("concentration", "locality")
TRAINING, HELD_OUT = 0, 1
_LEAST_DEVICES = 8  # the smallest grid whose quadrants all hold two devices is 2x4


@dataclass(frozen=True)
class ScaleSettings:
    """Fabrics of several sizes under the four patterns in turn."""

    devices: tuple[int, ...] = (16, 32, 64, 128)
    """Devices, each number laid out as square as it can be."""
    fabrics: tuple[str, ...] = ("fat-tree", "mesh", "torus")
    """The library: names of topologies."""
    accountings: tuple[str, ...] = (PATH_LATENCY, "iso-injection", "iso-cost")
    """What an iteration costs: path-latency (a flow's mean path latency, no bandwidth, as OptiMoE
    reckons), or the busiest link's time with fabrics built iso-injection, iso-cost or iso-port."""
    delays: tuple[units.Seconds, ...] = (0.0, 25e-6, 25e-3, 5.739)
    """Reconfiguration delays: not charged, OptiMoE's, MEMS, a NIC's bring-up."""
    device_bytes: units.Bytes = 4.0 * 2**20
    """Bytes that a device sends in an iteration, on average."""
    device_flows: int = 64
    """Flows that these bytes are, on average."""
    phase_iterations: int = 15
    """Iterations a pattern lasts."""
    phases: int = 32
    """Phases of the training timeline and of the held-out one."""
    episode_phases: int = 8
    """Phases an episode."""
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device (iso-cost: of the leaf-spine that sets the cost)."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""
    ports: int = 4
    """Ports a device (iso-port)."""
    seeds: int = 5
    """Pairs of a training and a held-out timeline, with seeds 0, 1, ..."""
    optimal_devices: int = 128
    """Devices up to which the patterns' mean demand is also routed optimally; 0: never."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        for name in ("devices", "fabrics", "accountings", "delays"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(f"{name} must hold one or more different values")
        for accounting in self.accountings:
            if accounting not in ACCOUNTINGS:
                raise unknown("accounting", accounting, ACCOUNTINGS)
        for count in self.devices:
            if min(near_square(count)) < 2 or count < _LEAST_DEVICES:
                raise InputError(f"devices must be >= {_LEAST_DEVICES} and no prime, got {count}")
        for name in (
            "device_bytes",
            "device_flows",
            "phase_iterations",
            "phases",
            "episode_phases",
            "ports",
            "seeds",
        ):
            if not getattr(self, name) >= 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.optimal_devices < 0:
            raise InputError(f"optimal_devices must be >= 0, got {self.optimal_devices}")
        if self.episode_phases > self.phases:
            raise InputError(
                f"episode_phases must be <= phases, got {self.episode_phases} and {self.phases}"
            )


@dataclass(frozen=True, eq=False)
class PatternTimeline:
    """T iterations under every accounting.

    Attributes:
        pattern: int64 [T], index into ``PATTERNS``.
        problems: by accounting, the switching problem; its switches are free until ``charged``.
    """

    pattern: NDArray[np.int64]
    problems: Mapping[str, SwitchingProblem]


def near_square(devices: int) -> tuple[int, int]:
    """Return rows and columns of so many devices, rows <= columns, as near as can be.

    >>> near_square(32), near_square(64)
    ((4, 8), (8, 8))
    """
    rows = next((r for r in range(isqrt(max(devices, 0)), 0, -1) if devices % r == 0), 0)
    return rows, devices // rows if rows else 0


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
