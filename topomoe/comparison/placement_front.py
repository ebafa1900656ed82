"""Balance against traffic against migration: placements scored on held-out requests, and the best.

Placements are made on training requests and serve batches of others, all the same batches under the
same replica routing. A row of the front is one that no other beats in all three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import DispatchSettings
from topomoe.model import MoEModel, model_preset
from topomoe.placement import Placement, PlacementOptions, place
from topomoe.placement.rows.row_bound import least_cross_row_bytes
from topomoe.placement.rows.step_seconds import LATENCY, trace_model
from topomoe.pricing import Job, batch_seeds, dispatch_tokens, make_job
from topomoe.routing_trace import RoutingTrace
from topomoe.simulation import collect, run_batches
from topomoe.step import StepSettings
from topomoe.topologies.budget import build
from topomoe.topologies.errors import InputError
from topomoe.workload import Batch, WorkloadSettings, coverage, make_batches

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Candidate:
    """A method with options of its own; with ``moves`` >= 0 it starts from the incumbent."""

    name: str
    method: str
    options: PlacementOptions = field(default_factory=PlacementOptions)


def candidates(
    balancedness: Sequence[float] = (0.9, 0.95, 0.98, 0.995), moves: Sequence[int] = (0, 8, 24, 64)
) -> tuple[Candidate, ...]:
    """Return eplb, exact, and locality at several limits on balance and on copies that move."""
    at = [
        Candidate(f"locality {b:g}", "locality", PlacementOptions(least_balancedness=b))
        for b in balancedness
    ]
    moved = [Candidate(f"locality {m} moves", "locality", PlacementOptions(moves=m)) for m in moves]
    return (Candidate("eplb", "eplb"), Candidate("exact", "exact"), *at, *moved)


def front_rows(
    train: RoutingTrace,
    test: RoutingTrace,
    grid: tuple[int, int],
    slots: int,
    model: str | MoEModel | None = None,
    methods: Sequence[str | Candidate] = (),
    replica_routings: Sequence[str] = ("weighted", "local-first", "lp"),
    batches: int = 8,
    batch_tokens: int = 8192,
    origins: str = "uniform",
    copies: str = "device",
    topology: str = "torus",
    bandwidth: float = 50e9,
    device: str = "h100",
    seed: int = 0,
    previous: Placement | None = None,
) -> pd.DataFrame:
    """Return a row a candidate and replica routing; ``methods`` empty: those of ``candidates``.

    A candidate is a method's name or a ``Candidate``; batch, device, network and origins are set to
    those given here. ``previous``, the incumbent that migration counts from, is by default ``eplb``
    on the first half of the training requests. ``bandwidth`` bytes/s leave a device, split over its
    links. Bytes and rows are of one token through all layers.

    - balancedness_mean, balancedness_worst: mean over largest device load by the placement's
      shares, mean and worst layer, on the training load; test_...: on the held-out load;
    - batch_balancedness: mean over largest device load of a held-out batch, mean over batches and
      layers; this and the next and migration are what the front is of;
    - cross_row_bytes_per_token, remote_bytes_per_token: copies there and back between rows, and
      between devices; least_cross_row_bytes_per_token: proven for any placement on these slots
      (``least_cross_row_bytes``; NaN for origins by domain or relayed copies);
    - remote_rows_per_token: other rows that a token's experts are on;
    - migration_bytes: weights of experts new to their device, over all layers;
    - step_s, step_p99_s: mean and 99th percentile of the step; on_front.

    Raises InputError for what placement, workload or topology refuse.
    """
    import pandas as pd

    shape = trace_model(train) if model is None else model_preset(model)
    devices = grid[0] * grid[1]
    network = build(topology, grid, bandwidth, LATENCY)
    if network.num_devices != devices:
        raise InputError(f"{network.name} has {network.num_devices} devices, the grid {devices}")
    workload = WorkloadSettings(batches=batches, batch_tokens=batch_tokens, origins=origins)
    served = make_batches(test, devices, grid, workload, np.random.default_rng(seed))
    if previous is None:
        half = train.select(np.arange(max(1, train.num_requests // 2)))
        previous = place(half, devices, slots, "eplb", grid, seed)
    least = np.nan
    if origins == "uniform" and copies != "node-relay":
        drawn = np.concatenate([batch.positions for batch in served])
        least = float(least_cross_row_bytes(_tokens(test, drawn), grid, slots, shape, copies).sum())
    rows = []
    for candidate in (_named(m) for m in methods or candidates()):
        options = replace(
            candidate.options,
            batch_tokens=batch_tokens,
            device=device,
            topology=topology,
            bandwidth=bandwidth,
            origins=origins if origins == "domain-affine" else "uniform",
        )
        placement = place(train, devices, slots, candidate.method, grid, seed, previous, options)
        on_train = placement.balancedness(train.load())
        on_test = placement.balancedness(test.load())
        moved = placement.migration_slots(previous).sum() * shape.expert_weight_bytes
        for name in replica_routings:
            dispatch = DispatchSettings(replica_routing=name, copies=copies, node_size=grid[1])
            job = make_job(
                test, [(network, None)], placement, shape, workload, dispatch,
                StepSettings(device=device), seed,
            )  # fmt: skip
            result = collect(
                run_batches(job, enumerate(served), None), 0, *coverage(test, served), None
            )
            tokens = float(result.tokens.sum())
            rows.append(
                {
                    "candidate": candidate.name,
                    "replica_routing": name,
                    "balancedness_mean": on_train.mean(),
                    "balancedness_worst": on_train.min(),
                    "test_balancedness_mean": on_test.mean(),
                    "test_balancedness_worst": on_test.min(),
                    "batch_balancedness": (1.0 / result.max_over_mean).mean(),
                    "cross_row_bytes_per_token": result.cross_row_bytes.sum() / tokens,
                    "least_cross_row_bytes_per_token": least,
                    "remote_bytes_per_token": result.remote_bytes.sum() / tokens,
                    "remote_rows_per_token": rows_reached(job, served, grid[1]),
                    "migration_bytes": moved,
                    "step_s": result.step_time.mean,
                    "step_p99_s": result.step_time.p99,
                }
            )
    frame = pd.DataFrame(rows)
    frame["on_front"] = undominated(
        np.stack(
            [
                -frame["batch_balancedness"].to_numpy(),
                frame["cross_row_bytes_per_token"].to_numpy(),
                frame["migration_bytes"].to_numpy(),
            ],
            axis=1,
        )
    )
    return frame


def rows_reached(job: Job, batches: Sequence[Batch], columns: int) -> float:
    """Return how many rows of ``columns`` devices, but for its own, a token reaches in a layer."""
    # One copy a row, however many experts are there.
    dispatch = replace(job.dispatch, copies="node-relay", node_size=columns, padded=0.0)
    by_row = replace(job, dispatch=dispatch)
    row = np.arange(job.tables.num_devices) // columns
    other = row[:, None] != row
    sent = tokens = 0.0
    for index, batch in enumerate(batches):
        seeds = batch_seeds(job, index)
        traffic = dispatch_tokens(by_row, batch.positions, batch.origin, seeds)
        sent += float(traffic.copies[:, other].sum(dtype=np.float64))
        tokens += traffic.tokens * job.trace.num_layers
    return sent / tokens


def undominated(costs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows of ``costs`` [X, C] no other row undercuts somewhere and exceeds nowhere.

    >>> undominated(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0]]))
    array([ True,  True, False])
    """
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)
    better = (costs[:, None] < costs[None]).any(axis=2)
    return np.asarray(~(no_worse & better).any(axis=0))


def _named(method: str | Candidate) -> Candidate:
    return method if isinstance(method, Candidate) else Candidate(method, method)


def _tokens(trace: RoutingTrace, positions: NDArray[np.int64]) -> RoutingTrace:
    """Return a trace of these positions alone, as one request, for what only counts tokens."""
    return replace(
        trace.select([0]),
        experts=np.ascontiguousarray(trace.experts[:, positions]),
        request_start=np.array([0, len(positions)]),
        position=np.arange(len(positions), dtype=np.int32),
        weight=None,
    )
