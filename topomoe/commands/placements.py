"""What ``topomoe placements`` does: every method on the same training and held-out requests.

The results are one long table; ``record`` says what a row is:

method   balance, gap, traffic and migration of one method's placement
layer    one layer of it: max/mean on training and held-out requests, and what is proven possible
step     it on one network: seconds of the MoE layers
compute  expert seconds of one method at one batch size (``placement_compute``)
batch    balance of single batches, by placement and replica routing (``batch_balance``)
front    balance against remote bytes and migration (``placement_front``)
shift    one domain or workload left out (``load_shift``)
moves    rebalanced with so many moves (``load_shift``)

How long placing takes differs from run to run and is in timing.csv, not in the results.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topomoe.clustering.home_rows import rows_for
from topomoe.commands.placement_parts import PARTS, place_by
from topomoe.comparison.placement_front import rows_reached
from topomoe.demand import DispatchSettings
from topomoe.inputs import (
    check_circuits,
    least_exact_slots,
    load_or_make,
    scale_note,
    topology_at_budget,
)
from topomoe.model import MoEModel
from topomoe.place_settings import PlacementsSettings
from topomoe.placement import Placement, certificate, place
from topomoe.placement.registry import check_slots
from topomoe.pricing import make_job
from topomoe.routing_trace import RoutingTrace
from topomoe.run_folder import RunFolder
from topomoe.settings import to_dict
from topomoe.simulation import simulate_networks
from topomoe.step import SimulationResult
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic
from topomoe.topologies.prices import load_prices
from topomoe.topologies.registry import parse_grid
from topomoe.topologies.topology import Topology
from topomoe.workload import as_served, check_batches, make_batches, workload_notes

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[str, int, int], None]
TIMING = "timing.csv"
ROW_BATCHES = 8  # behind the rows that a token reaches
_QUICK = 0.5  # CPU seconds below which placing is timed three times


@dataclass(frozen=True, eq=False)
class PlacementsInput:
    """What the settings come to."""

    train: RoutingTrace
    test: RoutingTrace
    model: MoEModel
    grid: tuple[int, int]
    slots: int
    networks: tuple[tuple[str, Topology], ...]
    notes: tuple[str, ...]

    @property
    def devices(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def facts(self) -> dict[str, Any]:
        """Return what the settings left open, for the run's config."""
        return {
            "model": self.model.name,
            "slots": self.slots,
            "train_requests": self.train.num_requests,
            "test_requests": self.test.num_requests,
        }


@dataclass(frozen=True, eq=False)
class PlacementsResult:
    """The long table, and the CPU time of every method."""

    results: pd.DataFrame
    timing: pd.DataFrame


def prepare_placements(settings: PlacementsSettings) -> PlacementsInput:
    """Load the trace, split it and build the networks; InputError for what does not fit."""
    grid = parse_grid(settings.grid)
    check_circuits(settings.circuits, grid)
    load_prices(settings.prices)
    model, trace = load_or_make(
        settings.trace, settings.model, settings.synthetic_requests, settings.seed
    )
    if trace.num_requests < 3:
        raise InputError("trace must hold at least 3 requests: 2 to train on, 1 held out")
    phase = settings.workload.phase
    train, test = (as_served(p, phase) for p in trace.split(settings.test_fraction, settings.seed))
    if train.num_requests < 2:
        raise InputError("test_fraction must leave at least 2 requests to train on")
    devices = grid[0] * grid[1]
    slots = settings.slots or least_exact_slots(trace.num_experts, devices)
    check_slots(trace.num_experts, devices, slots)
    if "shift" in settings.parts and settings.trace and len(trace.domain_names) < 2:
        raise InputError(
            f"parts: shift leaves out one domain at a time, the trace has {len(trace.domain_names)}"
        )
    networks = tuple(
        (name, topology_at_budget(settings, name, grid)) for name in settings.topologies
    )
    check_batches(test, devices, grid, settings.workload, settings.seed)
    return PlacementsInput(
        train,
        test,
        model,
        grid,
        slots,
        networks,
        (
            *(note for _, topology in networks for note in scale_note(settings, topology)),
            *trace.notes,
            *workload_notes(test, settings.workload),
        ),
    )


def run_placements(
    settings: PlacementsSettings, given: PlacementsInput, progress: Progress
) -> PlacementsResult:
    """Run the parts that the settings name, one after another."""
    import pandas as pd

    frames, timing = [], []
    placements: dict[str, Placement] = {}
    incumbent = place_incumbent(settings, given)
    for number, method in enumerate(settings.methods):
        placement, cpu_ms = timed_placement(settings, given, method, incumbent)
        placements[method] = placement
        timing.append({"method": method, "cpu_ms": cpu_ms})
        progress("placements", number + 1, len(settings.methods))
    for part in settings.parts:
        if part == "method":
            frames += method_frames(settings, given, placements, incumbent, progress)
        else:
            rows = PARTS[part](settings, given, placements, incumbent, progress)
            frames.append(rows.assign(record=part))
    results = pd.concat(frames, ignore_index=True)
    results.insert(0, "record", results.pop("record"))
    return PlacementsResult(results, pd.DataFrame(timing))


def place_incumbent(settings: PlacementsSettings, given: PlacementsInput) -> Placement:
    """Return the placement served so far: eplb on the earlier half of the training requests."""
    earlier = given.train.select(np.arange(given.train.num_requests // 2))
    return place(earlier, given.devices, given.slots, method="eplb", grid=given.grid)


def timed_placement(
    settings: PlacementsSettings, given: PlacementsInput, method: str, incumbent: Placement
) -> tuple[Placement, float]:
    """Return a method's placement and the CPU milliseconds of making it, compilation aside."""

    first = Placement(
        incumbent.slot_expert[:1],
        incumbent.slot_share[:1],
        incumbent.num_devices,
        incumbent.num_experts,
    )
    one = given.train.filter(layers=[0])
    place_by(settings, given, method, first, one)  # imports and compiles
    seconds: list[float] = []
    while not seconds or (len(seconds) < 3 and seconds[0] < _QUICK):
        start = time.process_time()
        placement = place_by(settings, given, method, incumbent)
        seconds.append(time.process_time() - start)
    return placement, 1e3 * min(seconds)


def method_frames(
    settings: PlacementsSettings,
    given: PlacementsInput,
    placements: dict[str, Placement],
    incumbent: Placement,
    progress: Progress,
) -> list[pd.DataFrame]:
    """Return the rows of records ``method``, ``layer`` and ``step``."""
    import pandas as pd

    frames = []
    total = len(placements) * len(settings.replica_routings) * settings.workload.batches
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress("steps", done, total)

    for method, placement in placements.items():
        balance, layers = balance_rows(given, placement)
        frames.append(pd.DataFrame(layers).assign(record="layer", method=method))
        moved = int(placement.migration_slots(incumbent).sum())
        homes = rows_for(
            settings.workload, given.train, given.test, placement, given.grid, settings.seed
        )
        for replica_routing in settings.replica_routings:
            dispatch = replace(settings.dispatch, replica_routing=replica_routing)
            results = simulate_networks(
                given.test,
                [(topology, None) for _, topology in given.networks],
                placement,
                given.model,
                settings.workload,
                dispatch,
                settings.step,
                seed=settings.seed,
                progress=count,
                home_rows=homes,
            )
            tokens = float(results[0].tokens.sum()) * given.test.num_layers
            name = {"method": method, "replica_routing": replica_routing}
            row = {
                "record": "method",
                **name,
                **balance,
                "rows_per_token": rows_per_token(settings, given, placement, dispatch, homes),
                "cross_row_bytes": float(results[0].cross_row_bytes.sum()) / tokens,
                "remote_bytes": float(results[0].remote_bytes.sum()) / tokens,
                "batch_max_over_mean": float(results[0].max_over_mean.mean()),
                "new_copies": moved,
                "migration_bytes": moved * given.model.expert_weight_bytes,
            }
            frames.append(pd.DataFrame([row]))
            for (topology, _), result in zip(given.networks, results, strict=True):
                frames.append(pd.DataFrame([{**name, **step_row(topology, result)}]))
    return frames


def balance_rows(
    given: PlacementsInput, placement: Placement
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return balance and gap on training and held-out requests: over layers, and layer by layer."""
    row: dict[str, float] = {}
    layers: dict[str, Any] = {"layer": np.arange(placement.num_layers)}
    for part, load in (("train", given.train.load()), ("test", given.test.load())):
        proof = certificate(placement, load)
        balance = placement.balancedness(load)
        layers[f"{part}_max_over_mean"] = 1.0 / balance
        layers[f"{part}_bound_max_over_mean"] = 1.0 / balance / (1.0 + proof.gap)
        row |= {
            f"{part}_balancedness_mean": float(balance.mean()),
            f"{part}_balancedness_worst": float(balance.min()),
            f"{part}_gap_mean": float(proof.gap.mean()),
            f"{part}_gap_worst": float(proof.gap.max()),
        }
    return row, layers


def step_row(topology: str, result: SimulationResult) -> dict[str, Any]:
    """Return the seconds of a step's MoE layers on one network, and of their parts."""
    return {
        "record": "step",
        "topology": topology,
        **result.moe_seconds(),
        "requests": result.requests,
    }


def rows_per_token(
    settings: PlacementsSettings,
    given: PlacementsInput,
    placement: Placement,
    dispatch: DispatchSettings,
    homes: NDArray[np.int32] | None,
) -> float:
    """Return how many rows of the grid other than its own a token is sent to, in a mean layer."""
    workload = replace(settings.workload, batches=min(settings.workload.batches, ROW_BATCHES))
    job = make_job(
        given.test,
        [(given.networks[0][1], None)],
        placement,
        given.model,
        workload,
        dispatch,
        settings.step,
        settings.seed,
    )
    rng = np.random.default_rng(settings.seed)
    batches = make_batches(given.test, given.devices, given.grid, workload, rng, homes)
    return rows_reached(job, batches, given.grid[1])


def write_placements(
    settings: PlacementsSettings,
    given: PlacementsInput,
    found: PlacementsResult,
    out: str,
    overwrite: bool,
) -> RunFolder:
    """Write config, results and timing into a run folder."""
    folder = RunFolder.start(
        out, "placements", to_dict(settings), False, overwrite, given.notes, given.facts()
    )
    timing = found.timing.to_csv(index=False, lineterminator="\n")
    write_atomic(folder.path / TIMING, timing)
    folder.finish(found.results)
    return folder
