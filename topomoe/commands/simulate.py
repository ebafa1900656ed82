"""What ``topomoe simulate`` runs: one placement on one topology, for one or several groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topomoe.groups import Group, partition, simulate_groups
from topomoe.inputs import (
    check_circuits,
    least_exact_slots,
    load_or_make,
    scale_note,
    topology_at_budget,
)
from topomoe.model import MoEModel
from topomoe.placement import Placement, load_placement, place
from topomoe.run_folder import RunFolder
from topomoe.settings import to_dict
from topomoe.simulate_settings import SimulateSettings
from topomoe.step import SimulationResult
from topomoe.topologies.errors import InputError
from topomoe.topologies.matching import METHODS
from topomoe.topologies.registry import parse_grid
from topomoe.topologies.routing import is_fitted, route
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology
from topomoe.trace import RoutingTrace
from topomoe.workload import as_served, workload_notes


@dataclass(frozen=True, eq=False)
class SimulateInput:
    """What the settings come to."""

    groups: tuple[Group, ...]
    topology: Topology
    routing: Routing
    notes: tuple[str, ...]


def prepare_groups(settings: SimulateSettings) -> SimulateInput:
    """Load the trace, build the network, place every group; InputError for what does not fit."""
    grid = parse_grid(settings.grid)
    if is_fitted(settings.routing):
        raise InputError(
            f"routing {settings.routing} is made for a demand: topomoe study and network make it"
        )
    if settings.circuits in METHODS:
        raise InputError(
            f"circuits {settings.circuits} are chosen for a demand: topomoe study and network "
            "choose them"
        )
    check_circuits(settings.circuits, grid)
    model, trace = load_or_make(
        settings.trace,
        settings.model,
        settings.synthetic_requests,
        settings.seed,
        settings.node_limit,
    )
    phase = settings.workload.phase
    train, test = (as_served(p, phase) for p in trace.split(settings.test_fraction, settings.seed))
    topology = topology_at_budget(settings, settings.topology, grid)
    routing = route(topology, settings.routing or None)
    parts = partition(
        topology.num_devices,
        settings.groups,
        settings.group_layout,
        np.random.default_rng(settings.seed),
    )
    placement = _placement(settings, model, train, len(parts[0]))
    return SimulateInput(
        tuple(Group(devices, test, placement, settings.workload, model) for devices in parts),
        topology,
        routing,
        (*scale_note(settings, topology), *trace.notes, *workload_notes(test, settings.workload)),
    )


def _placement(
    settings: SimulateSettings, model: MoEModel, train: RoutingTrace, devices: int
) -> Placement:
    if Path(settings.placement).suffix in (".npz", ".json", ".pt", ".yaml", ".yml"):
        return load_placement(Path(settings.placement), devices=devices)
    slots = settings.slots or least_exact_slots(train.num_experts, devices)
    grid = parse_grid(settings.grid)
    return place(
        train,
        devices=devices,
        slots=slots,
        method=settings.placement,
        # Groups of a cluster are on any of its devices: only a single one has its rows.
        grid=grid if settings.groups == 1 else None,
        seed=settings.seed,
        options=settings.placement_options(),
    )


def run_simulate(settings: SimulateSettings, given: SimulateInput) -> list[dict[str, str]]:
    """Return a row of text a group, times in milliseconds."""
    results = simulate_groups(
        given.groups,
        given.topology,
        given.routing,
        settings.dispatch,
        settings.step,
        settings.synchronous,
        settings.seed,
    )
    return [_row(number, r) for number, r in enumerate(results)]


def _row(number: int, result: SimulationResult) -> dict[str, str]:
    def ms(seconds: float) -> str:
        return f"{seconds * 1e3:.3f}"

    times = result.times
    return {
        "group": str(number),
        "MoE ms": ms(result.moe_time.mean),
        "p50": ms(result.moe_time.p50),
        "p99": ms(result.moe_time.p99),
        "dispatch": ms(float(times.dispatch.sum(axis=1).mean())),
        "compute": ms(float(times.compute.sum(axis=1).mean())),
        "combine": ms(float(times.combine.sum(axis=1).mean())),
        "network bound": ms(float(times.bound.sum(axis=1).mean())),
        "step ms": ms(result.step_time.mean),
        "step p99": ms(result.step_time.p99),
        "max/mean": f"{result.max_over_mean.mean():.3f}",
        "pre-drop CV": f"{result.pre_drop_cv.mean():.3f}",
        "dropped": f"{result.dropped_share.mean():.4f}",
        "rerouted": f"{result.rerouted_share.mean():.4f}",
        "requests": str(result.requests),
    }


def write_simulate(
    settings: SimulateSettings,
    given: SimulateInput,
    rows: list[dict[str, str]],
    out: str,
    overwrite: bool,
) -> Path:
    """Write the rows and the resolved config into a run folder; return the results' path."""
    import pandas as pd

    folder = RunFolder.start(out, "simulate", to_dict(settings), False, overwrite, given.notes)
    frame = pd.DataFrame(rows).apply(pd.to_numeric)
    folder.finish(frame)
    return folder.path / "results.parquet"
