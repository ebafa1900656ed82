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
optimum    mean demand of a layer on one network beside the least time of any routing (--optimum)
cost       what one topology costs and draws
failure    one topology with something failed, beside the same one whole (--failures)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from topomoe.clustering.home_rows import rows_for
from topomoe.degradation import degraded_topologies, failure_rows
from topomoe.demand import check_node_size
from topomoe.inputs import (
    check_routed,
    expert_load,
    least_exact_slots,
    load_or_make,
    placement_source,
)
from topomoe.model import MoEModel
from topomoe.patterns import PATTERNS, pattern_demand
from topomoe.placement import Placement, place
from topomoe.placement.registry import check_method, check_slots
from topomoe.run_folder import RunFolder, read_parquet, write_parquet
from topomoe.simulation import simulate_networks, total_batches
from topomoe.study_networks import StudyNetwork, build_networks
from topomoe.study_optimum import optimum_rows
from topomoe.study_rows import (
    COLUMNS,
    cost_rows,
    device_rows,
    expert_rows,
    layer_rows,
    link_rows,
    pattern_rows,
    placement_rows,
    step_rows,
    summary_row,
)
from topomoe.study_settings import StudySettings
from topomoe.topologies.errors import InputError
from topomoe.topologies.failure_scenarios import FailureScenario, failure_scenarios
from topomoe.topologies.prices import load_prices
from topomoe.topologies.registry import parse_grid
from topomoe.trace import RoutingTrace
from topomoe.workload import as_served, check_batches, workload_notes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class StudyInput:
    """What the settings come to: the trace split, the model and the networks."""

    train: RoutingTrace
    test: RoutingTrace
    model: MoEModel
    grid: tuple[int, int]
    slots: int
    networks: tuple[StudyNetwork, ...]  # under default routings
    others: tuple[StudyNetwork, ...]  # the same topologies under other routings
    scenarios: tuple[FailureScenario, ...]
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
    model, trace = load_or_make(
        settings.trace,
        settings.model,
        settings.synthetic_requests,
        settings.seed,
        settings.node_limit,
    )
    if settings.layers or settings.domains:
        trace = trace.filter(domains=settings.domains or None, layers=settings.layers or None)
    if trace.num_requests < 2:
        raise InputError("trace must hold at least 2 requests: some are held out")
    phase = settings.workload.phase
    train, test = (as_served(p, phase) for p in trace.split(settings.test_fraction, settings.seed))
    devices = grid[0] * grid[1]
    routed = settings.shared_expert == "routed"
    if routed:
        check_routed(model)
    slots = settings.slots or least_exact_slots(trace.num_experts + routed, devices)
    _check(settings, trace, grid, slots)
    patterns, pattern_notes = patterns_of(grid)
    networks, others, notes = build_networks(settings, grid, train, model, slots)
    return StudyInput(
        train,
        test,
        model,
        grid,
        slots,
        networks,
        others,
        _scenarios(settings, networks),
        patterns,
        (*notes, *pattern_notes, *trace.notes, *workload_notes(test, settings.workload)),
    )


def _check(settings: StudySettings, trace: RoutingTrace, grid: tuple[int, int], slots: int) -> None:
    """Raise InputError for what the run would only find after it has begun to write."""
    devices = grid[0] * grid[1]
    for method in settings.placements:
        check_method(method)
    check_slots(trace.num_experts, devices, slots)
    load_prices(settings.prices)
    for replica_routing in settings.replica_routings:
        check_node_size(replace(settings.dispatch, replica_routing=replica_routing), devices)
    check_batches(trace, devices, grid, settings.workload, settings.seed)
    if settings.failures and settings.workload.origins == "clustered":
        raise InputError("failures need origins other than clustered: rows lose devices")


def _scenarios(
    settings: StudySettings, networks: tuple[StudyNetwork, ...]
) -> tuple[FailureScenario, ...]:
    """Return the failure scenarios; InputError where a topology, or all, lack what they name."""
    scenarios = failure_scenarios(settings.failures, settings.failure_draws, settings.seed)
    found = degraded_topologies(
        [(network.name, network.topology) for network in networks], scenarios
    )
    suffered = {case.scenario for case in found}
    for scenario in scenarios:
        if scenario.name not in suffered:
            raise InputError(f"failures: no topology of the study has what {scenario.name} fails")
    return scenarios


def _failures(
    settings: StudySettings, given: StudyInput, progress: Callable[[str, int, int], None]
) -> pd.DataFrame:
    """Return the failure rows: the last placement method, first replica routing, held-out steps."""
    return failure_rows(
        given.test,
        expert_load(given.train, settings.shared_expert),
        [(network.name, network.topology) for network in given.networks],
        given.scenarios,
        given.slots,
        given.model,
        settings.placements[-1],
        workload=settings.workload,
        dispatch=replace(settings.dispatch, replica_routing=settings.replica_routings[0]),
        step=settings.step,
        seed=settings.seed,
        progress=lambda done, of: progress("failures", done, of),
    )


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
                        placement_source(given.train, settings.shared_expert),
                        devices=given.grid[0] * given.grid[1],
                        slots=given.slots,
                        method=method,
                        grid=given.grid,
                        seed=settings.seed,
                        options=settings.placement_options(),
                    )
                with_others = last and replica_number == 0
                frame = _run_unit(
                    settings, given, method, placement, replica_routing, with_others, progress
                )
                write_parquet(part, frame)
            frames.append(read_parquet(part))
    frames.append(expert_rows(given.test))
    frames.append(cost_rows(settings, given.networks))
    if given.scenarios:
        frames.append(_failures(settings, given, progress))
    frames.append(pattern_rows(settings, given.grid, given.networks, given.patterns, progress))
    results = pd.concat(frames, ignore_index=True).reindex(columns=list(COLUMNS))
    folder.finish(results)


def fastest(folder: RunFolder, most: int = 5) -> list[dict[str, str]]:
    """Return the combinations with the fastest MoE layers of a finished study, as text."""
    results = folder.results()
    rows = results[results["record"] == "summary"].sort_values("moe_s", kind="stable")
    network = rows["dispatch_s"] + rows["combine_s"]
    table = {
        "topology": rows["topology"],
        "routing": rows["routing"],
        "placement": rows["placement"],
        "replicas": rows["replica_routing"],
        "MoE ms": (1e3 * rows["moe_s"]).map("{:.3f}".format),
        "p99": (1e3 * rows["moe_p99_s"]).map("{:.3f}".format),
        "network / bound": (network / rows["network_bound_s"]).map("{:.2f}".format),
    }
    return [
        {name: str(column.iloc[place]) for name, column in table.items()}
        for place in range(min(most, len(rows)))
    ]


def _run_unit(
    settings: StudySettings,
    given: StudyInput,
    method: str,
    placement: Placement,
    replica_routing: str,
    with_others: bool,
    progress: Callable[[str, int, int], None],
) -> pd.DataFrame:
    import pandas as pd

    networks = (*given.networks, *given.others) if with_others else given.networks
    total = total_batches(settings.workload, settings.resamples)
    what = f"{method}, {replica_routing}"
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress(what, done, total)

    results = simulate_networks(
        given.test,
        [(network.topology, network.routing) for network in networks],
        placement,
        given.model,
        settings.workload,
        replace(settings.dispatch, replica_routing=replica_routing),
        settings.step,
        settings.resamples,
        settings.seed,
        count,
        rows_for(settings.workload, given.train, given.test, placement, given.grid, settings.seed),
    )
    shared = settings.shared_expert
    frames = [placement_rows(given.train, given.test, placement, shared), device_rows(results[0])]
    for network, result in zip(networks, results, strict=True):
        parts = [step_rows(result), layer_rows(result), summary_row(result)]
        parts.append(link_rows(network, result))
        frames += [p.assign(topology=network.name, routing=network.routing_name) for p in parts]
    if settings.optimum and with_others:
        frames.append(optimum_rows(networks, results, progress))
    unit = pd.concat(frames, ignore_index=True)
    return unit.assign(placement=method, replica_routing=replica_routing).reindex(
        columns=list(COLUMNS)
    )
