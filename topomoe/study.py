"""The study: topologies x placements x replica routings on one trace, at one budget a device.

Placements are made on training requests; every number is taken on held-out ones. The results are
one long table; ``record`` says what a row is:

step       a batch of one placement on one network: its parts in seconds
layer      the mean over batches of one layer of it
summary    mean, percentiles and interval of it
link       mean bytes a layer on one link of it
device     mean token-expert pairs on one device, one placement
placement  balance of one layer's placement on training and held-out requests, with its bound
expert     held-out load share of one expert in one layer
pattern    one draw of a synthetic traffic pattern on one network
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from topomoe.demand import check_node_size
from topomoe.model import MoEModel, match_model, model_preset
from topomoe.patterns import PATTERNS, pattern_demand
from topomoe.placement import Placement, certificate, place
from topomoe.placement.registry import check_method, check_slots
from topomoe.run_folder import RunFolder, read_parquet, write_parquet
from topomoe.simulation import simulate_networks, total_batches
from topomoe.step import FloatArray, SimulationResult
from topomoe.study_settings import StudySettings
from topomoe.synthetic import synthetic_trace
from topomoe.topologies import budget
from topomoe.topologies.circuits import check_wiring
from topomoe.topologies.errors import InputError
from topomoe.topologies.registry import parse_grid
from topomoe.topologies.routing import POLICIES, route
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology
from topomoe.trace import RoutingTrace, load_trace
from topomoe.workload import iter_batches, workload_notes

if TYPE_CHECKING:
    import pandas as pd

PATTERN_BYTES_PER_PAIR = 65536.0  # mean bytes between two devices in a traffic pattern
COLUMNS = (
    "record",
    "topology",
    "routing",
    "placement",
    "replica_routing",
    "pattern",
    "level",
    "batch",
    "layer",
    "index",
    "source",
    "target",
    "tokens",
    "dispatch_s",
    "compute_s",
    "combine_s",
    "backward_s",
    "other_s",
    "moe_s",
    "step_s",
    "network_bound_s",
    "moe_p50_s",
    "moe_p95_s",
    "moe_p99_s",
    "step_p50_s",
    "step_p95_s",
    "step_p99_s",
    "step_low_s",
    "step_high_s",
    "max_over_mean",
    "train_max_over_mean",
    "bound_max_over_mean",
    "remote_bytes",
    "cross_row_bytes",
    "capacity_bytes_per_s",
    "load_bytes",
    "load_pairs",
    "share",
    "time_s",
    "requests",
    "positions",
)


@dataclass(frozen=True, eq=False)
class StudyInput:
    """What the settings come to: the trace split, the model and the networks."""

    train: RoutingTrace
    test: RoutingTrace
    model: MoEModel
    grid: tuple[int, int]
    slots: int
    networks: tuple[tuple[str, Topology, Routing], ...]  # name, topology, default routing
    others: tuple[tuple[str, Topology, Routing], ...]  # the same topologies, other routings
    patterns: tuple[str, ...]  # traffic patterns that the grid has room for
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return what the settings left open, for the run's config."""
        return {
            "model": self.model.name,
            "slots": self.slots,
            "train_requests": self.train.num_requests,
            "test_requests": self.test.num_requests,
        }


def prepare(settings: StudySettings) -> StudyInput:
    """Load the trace, split it and build the networks; InputError for what does not fit."""
    grid = parse_grid(settings.grid)
    model, trace = load_or_make(settings)
    if settings.layers or settings.domains:
        trace = trace.filter(domains=settings.domains or None, layers=settings.layers or None)
    if trace.num_requests < 2:
        raise InputError("trace must hold at least 2 requests: some are held out")
    train, test = trace.split(settings.test_fraction, settings.seed)
    devices = grid[0] * grid[1]
    routed = settings.shared_expert == "routed"
    if routed and model.num_shared_experts != 1:
        raise InputError(
            f"shared_expert = routed needs a model with one shared expert, "
            f"{model.name} has {model.num_shared_experts}"
        )
    slots = settings.slots or least_exact_slots(trace.num_experts + routed, devices)
    for policy in settings.routings:
        if policy not in POLICIES and policy != "none":
            route(_first_topology(settings, grid), policy)
    _check(settings, trace, grid, slots)
    patterns, pattern_notes = patterns_of(grid)
    networks, others = [], []
    for name in settings.topologies:
        topology = build_topology(settings, name, grid)
        if topology.num_devices != devices:
            raise InputError(
                f"{name} has {topology.num_devices} devices, the grid {grid[0]}x{grid[1]}"
            )
        default = route(topology)
        networks.append((name, topology, default))
        for policy in settings.routings:
            if policy != "none" and not default.name.startswith(policy + "-"):
                other = _try_route(topology, policy, settings.seed)
                if other is not None and other.name != default.name:
                    others.append((name, topology, other))
    return StudyInput(
        train,
        test,
        model,
        grid,
        slots,
        tuple(networks),
        tuple(others),
        patterns,
        (*pattern_notes, *trace.notes, *workload_notes(test, settings.workload)),
    )


def _check(settings: StudySettings, trace: RoutingTrace, grid: tuple[int, int], slots: int) -> None:
    """Raise InputError for what the run would only find after it has begun to write."""
    devices = grid[0] * grid[1]
    for method in settings.placements:
        check_method(method)
    check_slots(trace.num_experts, devices, slots)
    for replica_routing in settings.replica_routings:
        check_node_size(replace(settings.dispatch, replica_routing=replica_routing), devices)
    check_wiring(settings.circuits, grid)
    iter_batches(trace, devices, grid, settings.workload, np.random.default_rng(settings.seed))


def patterns_of(grid: tuple[int, int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the traffic patterns that the grid has room for, and a note on each of the others."""
    found, notes = [], []
    for pattern in PATTERNS:
        try:
            pattern_demand(pattern, grid, 1.0, 1.0, np.random.default_rng(0))
            found.append(pattern)
        except InputError as error:
            notes.append(f"pattern {pattern} is left out: {error}")
    return tuple(found), tuple(notes)


def least_exact_slots(experts: int, devices: int) -> int:
    """Return the least slots with which exact balance is always possible: >= E + N - 1."""
    return devices * max(2, -(-(experts + devices - 1) // devices))


def expert_load(trace: RoutingTrace, shared_expert: str) -> FloatArray:
    """Return the trace's token-expert pairs [M, E]; [M, E+1] where the shared expert is routed.

    The shared expert serves every token.
    """
    load = trace.load()
    if shared_expert == "local":
        return load
    tokens = np.full((trace.num_layers, 1), float(trace.num_positions))
    return np.concatenate([load, tokens], axis=1)


def load_or_make(settings: StudySettings) -> tuple[MoEModel, RoutingTrace]:
    """Return the model and the trace of the settings."""
    if not settings.trace:
        model = model_preset(settings.model or "deepseek-v3")
        return model, synthetic_trace(
            model.name, requests=settings.synthetic_requests, seed=settings.seed
        )
    trace = load_trace(settings.trace, model=settings.model or None)
    if settings.model:
        model = model_preset(settings.model)
        if model.top_k != trace.top_k:
            raise InputError(
                f"model must have the trace's top-k of {trace.top_k}, "
                f"{model.name} has {model.top_k}"
            )
        return model, trace
    return match_model(trace.num_layers, trace.num_experts, trace.top_k), trace


def build_topology(settings: StudySettings, name: str, grid: tuple[int, int]) -> Topology:
    """Return a topology of the study at its budget."""
    options: dict[str, Any] = {}
    if name == "optical":
        options = {"circuits": settings.circuits, "seed": settings.seed}
    return budget.build(
        name,
        grid,
        settings.bandwidth,
        settings.latency,
        settings.normalise,
        settings.base_share,
        settings.ports,
        **options,
    )


def _first_topology(settings: StudySettings, grid: tuple[int, int]) -> Topology:
    return build_topology(settings, settings.topologies[0], grid)


def _try_route(topology: Topology, policy: str, seed: int) -> Routing | None:
    """Return the routing, or None where the policy does not suit the topology."""
    options = {"seed": seed} if policy == "ecmp-hash" else {}
    try:
        return route(topology, policy, **options)
    except InputError:
        return None


def run_study(
    settings: StudySettings,
    given: StudyInput,
    folder: RunFolder,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> None:
    """Run what is not yet there and write the results; ``progress(what, done, of)`` as it goes.

    ``given`` is ``prepare(settings)``, which finds bad input before anything is written.
    """
    import pandas as pd

    frames = []
    for placement_number, method in enumerate(settings.placements):
        last = placement_number == len(settings.placements) - 1
        placement: Placement | None = None
        for replica_number, replica_routing in enumerate(settings.replica_routings):
            part = folder.part(f"{placement_number:02d}-{replica_number:02d}")
            if not part.is_file():
                if placement is None:
                    placement = place(
                        expert_load(given.train, settings.shared_expert),
                        devices=given.grid[0] * given.grid[1],
                        slots=given.slots,
                        method=method,
                        grid=given.grid,
                        seed=settings.seed,
                    )
                networks = given.networks
                if last and replica_number == 0:
                    networks = (*networks, *given.others)
                frame = _run_unit(
                    settings, given, method, placement, replica_routing, networks, progress
                )
                write_parquet(part, frame)
            frames.append(read_parquet(part))
    frames.append(_expert_rows(given.test))
    frames.append(_pattern_rows(settings, given, progress))
    results = pd.concat(frames, ignore_index=True).reindex(columns=list(COLUMNS))
    folder.finish(results)


def _run_unit(
    settings: StudySettings,
    given: StudyInput,
    method: str,
    placement: Placement,
    replica_routing: str,
    networks: tuple[tuple[str, Topology, Routing], ...],
    progress: Callable[[str, int, int], None],
) -> pd.DataFrame:
    import pandas as pd

    total = total_batches(settings.workload, settings.resamples)
    what = f"{method}, {replica_routing}"
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    results = simulate_networks(
        given.test,
        [(topology, routing) for _, topology, routing in networks],
        placement,
        given.model,
        settings.workload,
        replace(settings.dispatch, replica_routing=replica_routing),
        settings.step,
        settings.resamples,
        settings.seed,
        count,
    )
    shared = settings.shared_expert
    frames = [_placement_rows(given, placement, shared), _device_rows(results[0])]
    for (name, topology, routing), result in zip(networks, results, strict=True):
        parts = [_step_rows(result), _layer_rows(result), _summary_row(result)]
        parts.append(_link_rows(topology, routing, result))
        frames += [p.assign(topology=name, routing=routing.name) for p in parts]
    unit = pd.concat(frames, ignore_index=True)
    return unit.assign(placement=method, replica_routing=replica_routing).reindex(
        columns=list(COLUMNS)
    )


def _step_rows(result: SimulationResult) -> pd.DataFrame:
    import pandas as pd

    times = result.times
    return pd.DataFrame(
        {
            "record": "step",
            "batch": np.arange(len(result.tokens)),
            "tokens": result.tokens,
            "dispatch_s": times.dispatch.sum(axis=1),
            "compute_s": times.compute.sum(axis=1),
            "combine_s": times.combine.sum(axis=1),
            "backward_s": times.backward.sum(axis=1),
            "other_s": times.other,
            "moe_s": times.moe,
            "step_s": times.step,
            "network_bound_s": times.bound.sum(axis=1),
            "max_over_mean": result.max_over_mean.mean(axis=1),
            "remote_bytes": result.remote_bytes.sum(axis=1),
            "cross_row_bytes": result.cross_row_bytes.sum(axis=1),
        }
    )


def _layer_rows(result: SimulationResult) -> pd.DataFrame:
    import pandas as pd

    times = result.times
    return pd.DataFrame(
        {
            "record": "layer",
            "layer": np.arange(times.dispatch.shape[1]),
            "dispatch_s": times.dispatch.mean(axis=0),
            "compute_s": times.compute.mean(axis=0),
            "combine_s": times.combine.mean(axis=0),
            "backward_s": times.backward.mean(axis=0),
            "network_bound_s": times.bound.mean(axis=0),
            "max_over_mean": result.max_over_mean.mean(axis=0),
            "remote_bytes": result.remote_bytes.mean(axis=0),
            "cross_row_bytes": result.cross_row_bytes.mean(axis=0),
        }
    )


def _summary_row(result: SimulationResult) -> pd.DataFrame:
    import pandas as pd

    moe, step = result.moe_time, result.step_time
    low, high = result.mean_interval or (np.nan, np.nan)
    return pd.DataFrame(
        [
            {
                "record": "summary",
                "dispatch_s": float(result.times.dispatch.sum(axis=1).mean()),
                "compute_s": float(result.times.compute.sum(axis=1).mean()),
                "combine_s": float(result.times.combine.sum(axis=1).mean()),
                "backward_s": float(result.times.backward.sum(axis=1).mean()),
                "other_s": float(result.times.other.mean()),
                "network_bound_s": float(result.times.bound.sum(axis=1).mean()),
                "moe_s": moe.mean,
                "moe_p50_s": moe.p50,
                "moe_p95_s": moe.p95,
                "moe_p99_s": moe.p99,
                "step_s": step.mean,
                "step_p50_s": step.p50,
                "step_p95_s": step.p95,
                "step_p99_s": step.p99,
                "step_low_s": low,
                "step_high_s": high,
                "max_over_mean": float(result.max_over_mean.mean()),
                "remote_bytes": float(result.remote_bytes.sum(axis=1).mean()),
                "cross_row_bytes": float(result.cross_row_bytes.sum(axis=1).mean()),
                "tokens": float(result.tokens.mean()),
                "requests": result.requests,
                "positions": result.positions,
            }
        ]
    )


def _link_rows(topology: Topology, routing: Routing, result: SimulationResult) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "record": "link",
            "index": np.arange(topology.num_links),
            "source": topology.links[:, 0],
            "target": topology.links[:, 1],
            "capacity_bytes_per_s": topology.capacity,
            "load_bytes": routing.link_load(result.mean_demand[None])[0],
        }
    )


def _device_rows(result: SimulationResult) -> pd.DataFrame:
    import pandas as pd

    load = result.device_load.mean(axis=0)
    return pd.DataFrame({"record": "device", "index": np.arange(len(load)), "load_pairs": load})


def _placement_rows(given: StudyInput, placement: Placement, shared_expert: str) -> pd.DataFrame:
    """Return balance a layer: held-out and training max/mean, and what is proven possible."""
    import pandas as pd

    train = expert_load(given.train, shared_expert)
    test = expert_load(given.test, shared_expert)
    proof = certificate(placement, train)
    return pd.DataFrame(
        {
            "record": "placement",
            "layer": np.arange(placement.num_layers),
            "max_over_mean": 1.0 / placement.balancedness(test),
            "train_max_over_mean": 1.0 / placement.balancedness(train),
            "bound_max_over_mean": proof.bound / (train.sum(axis=1) / placement.num_devices),
        }
    )


def _expert_rows(trace: RoutingTrace) -> pd.DataFrame:
    import pandas as pd

    load = trace.load()
    layers, experts = load.shape
    return pd.DataFrame(
        {
            "record": "expert",
            "layer": np.repeat(np.arange(layers), experts),
            "index": np.tile(np.arange(experts), layers),
            "share": (load / load.sum(axis=1, keepdims=True)).ravel(),
        }
    )


def _pattern_rows(
    settings: StudySettings, given: StudyInput, progress: Callable[[str, int, int], None]
) -> pd.DataFrame:
    """Return the transfer time of every pattern, level and draw on every network."""
    import pandas as pd

    from topomoe.network import bottleneck

    devices = given.grid[0] * given.grid[1]
    total_bytes = PATTERN_BYTES_PER_PAIR * devices * (devices - 1)
    frames = []
    cells = [(pattern, level) for pattern in given.patterns for level in settings.levels]
    for number, (pattern, level) in enumerate(cells):
        rng = np.random.default_rng([settings.seed, number])
        demand = np.stack(
            [
                pattern_demand(pattern, given.grid, level, total_bytes, rng)
                for _ in range(settings.pattern_draws)
            ]
        ).astype(np.float32)
        for name, topology, routing in given.networks:
            time = bottleneck(topology, routing, demand, mtu=settings.step.mtu or None)
            frames.append(
                pd.DataFrame(
                    {
                        "record": "pattern",
                        "topology": name,
                        "routing": routing.name,
                        "pattern": pattern,
                        "level": level,
                        "batch": np.arange(settings.pattern_draws),
                        "time_s": time,
                    }
                )
            )
        progress("patterns", number + 1, len(cells))
    return pd.concat(frames, ignore_index=True)
