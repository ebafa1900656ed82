"""How balanced single batches are under each replica routing: what a placement's mean hides.

A placement balances expected loads; a batch is a draw. With few tokens a device, or with requests
that resemble each other, its loads are not the expected ones, and the largest device load over the
mean says what routing among replicas makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.demand import (
    REPLICA_ROUTINGS,
    SPILL,
    DispatchSettings,
    dispatch_batch,
    replica_tables,
)
from topomoe.placement import Placement
from topomoe.routing_trace import RoutingTrace
from topomoe.stats import max_over_mean
from topomoe.topologies.checked import numbers, whole
from topomoe.topologies.errors import InputError
from topomoe.workload import WorkloadSettings, iter_batches

if TYPE_CHECKING:
    import pandas as pd

TOKENS_PER_DEVICE = (16, 64, 128, 512, 1024, 4096)
COLUMNS = (
    "placement",
    "replica_routing",
    "draw",
    "tokens_per_device",
    "batches",
    "max_over_mean",
    "max_over_mean_p99",
    "remote_copies_per_token",
    "cross_row_copies_per_token",
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def batch_balance_rows(
    placements: Mapping[str, Placement],
    load: ArrayLike | None = None,
    trace: RoutingTrace | None = None,
    replica_routings: Sequence[str] = REPLICA_ROUTINGS,
    tokens_per_device: Sequence[int] = TOKENS_PER_DEVICE,
    batches: int = 64,
    top_k: int = 8,
    seed: int = 0,
    columns: int | None = None,
    spill: float = SPILL,
) -> pd.DataFrame:
    """Return a row a draw, batch size, placement and replica routing.

    ``load`` [M, E] gives rows of draw "iid": each token-expert pair of a batch of ``top_k`` a token
    is drawn from the layer's loads by itself, and starts on any device alike. ``trace`` gives rows
    of draw "trace": tokens resampled by request, decode, through dispatch. All placements and
    routings see the same draws. ``max_over_mean`` is the mean over batches and layers of the
    largest device load over the mean load, ``max_over_mean_p99`` the 99th percentile; copies of a
    token that go to another device, or another row of ``columns`` devices (default: all one row),
    are a mean a layer, known of a trace only.

    Raises InputError where neither load nor trace is given, or they do not fit the placements.
    """
    import pandas as pd

    if load is None and trace is None:
        raise InputError("batch balance needs a load or a trace")
    settings = [DispatchSettings(name, spill=spill) for name in replica_routings]
    sizes = [whole(n, "tokens_per_device", 1) for n in tokens_per_device]
    whole(batches, "batches", 1)
    whole(top_k, "top_k", 1)
    whole(seed, "seed", 0)
    if columns is not None:
        whole(columns, "columns", 1)
    rows: list[dict[str, object]] = []
    for size in sizes:
        for name, placement in placements.items():
            row_of = np.arange(placement.num_devices) // (columns or placement.num_devices)
            for each in settings:
                given: dict[str, object] = {
                    "placement": name,
                    "replica_routing": each.replica_routing,
                    "tokens_per_device": size,
                    "batches": batches,
                }
                if load is not None:
                    p = _shares(load, placement)
                    ratios = _iid(p, placement, each, size, batches, top_k, seed, row_of)
                    rows.append({**given, "draw": "iid", **_summary(ratios)})
                if trace is not None:
                    rows.append(
                        {
                            **given,
                            "draw": "trace",
                            **_traced(trace, placement, each, size, batches, seed, row_of),
                        }
                    )
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _summary(ratios: FloatArray) -> dict[str, float]:
    return {
        "max_over_mean": float(ratios.mean()),
        "max_over_mean_p99": float(np.percentile(ratios, 99)),
    }


def _shares(load: ArrayLike, placement: Placement) -> FloatArray:
    """Return loads [M, E] as shares of a layer's; InputError where they cannot be."""
    p = np.atleast_2d(numbers(load, "load"))
    if p.shape != (placement.num_layers, placement.num_experts):
        raise InputError(
            f"load must be [M, E] = [{placement.num_layers}, {placement.num_experts}], "
            f"got shape {p.shape}"
        )
    if not (np.isfinite(p).all() and (p >= 0).all() and (p.sum(axis=1) > 0).all()):
        raise InputError("load must be finite and >= 0, with a load in every layer")
    shares: FloatArray = p / p.sum(axis=1, keepdims=True)
    return shares


def _iid(
    p: FloatArray,
    placement: Placement,
    settings: DispatchSettings,
    size: int,
    batches: int,
    top_k: int,
    seed: int,
    row_of: IntArray,
) -> FloatArray:
    """Return the largest over the mean device load [M, B] of batches of independent pairs."""
    from topomoe.comparison import batch_balance_kernel as balance

    devices = placement.num_devices
    pairs = size * devices * top_k
    tables = replica_tables(placement, settings.replica_routing)
    choice = {
        "least-loaded": balance.LEAST_LOADED,
        "local-first": balance.LOCAL_FIRST,
        "lp": balance.LEAST_LARGEST,
    }.get(settings.replica_routing, balance.BY_SHARE)
    largest = np.zeros((len(p), batches), dtype=np.int64)
    for m in range(len(p)):
        rng, origins = np.random.default_rng([seed, size, m]).spawn(2)
        count = rng.multinomial(pairs, p[m], size=batches)
        start, used = tables.start[m], tables.start[m, -1]
        device = tables.device[m, :used]
        row_count = np.zeros((1, 1, 1), dtype=np.int64)
        own = np.zeros((1, 1), dtype=np.int64)
        if choice == balance.LOCAL_FIRST:
            row_count, own = _origins(count, start, device, row_of, origins)
        balance.largest_loads(
            count,
            row_count,
            own,
            start,
            device,
            tables.share[m, :used],
            row_of,
            choice,
            settings.spill,
            rng.integers(2**63, size=batches).astype(np.uint64),
            largest[m],
        )
    return largest / (pairs / devices)


def _origins(
    count: IntArray, start: IntArray, device: IntArray, row_of: IntArray, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Draw how many tokens of each expert start in each row, [B, E, R], and on a replica, [B, X].

    Experts with one replica have no choice, so that their tokens need no origin: row 0 stands in.
    """
    width = np.bincount(row_of)
    row_count = np.zeros((*count.shape, len(width)), dtype=np.int64)
    row_count[:, :, 0] = count
    several = np.flatnonzero(np.diff(start) > 1)
    share = width / width.sum()
    row_count[:, several] = rng.multinomial(count[:, several], share)
    own = np.zeros((len(count), len(device)), dtype=np.int64)
    for e in several:
        left = row_count[:, e].copy()
        room = width.copy()  # devices of a row whose tokens are not drawn yet
        seen: set[int] = set()
        for x in range(start[e], start[e + 1]):
            if device[x] in seen:
                continue
            seen.add(int(device[x]))
            row = row_of[device[x]]
            own[:, x] = rng.binomial(left[:, row], 1.0 / room[row])
            left[:, row] -= own[:, x]
            room[row] -= 1
    return row_count, own


def _traced(
    trace: RoutingTrace,
    placement: Placement,
    settings: DispatchSettings,
    size: int,
    batches: int,
    seed: int,
    row_of: IntArray,
) -> dict[str, float]:
    """Return the columns of resampled decode batches."""
    if (placement.num_layers, placement.num_experts) != (trace.num_layers, trace.num_experts):
        raise InputError(
            f"placements must have the trace's {trace.num_layers} layers and {trace.num_experts} "
            f"experts, got {placement.num_layers} and {placement.num_experts}"
        )
    tables = replica_tables(placement, settings.replica_routing)
    crossing = row_of[:, None] != row_of
    ratios, remote, cross = [], 0.0, 0.0
    tokens = size * placement.num_devices
    for positions, origin, seeds in _batches(trace, placement.num_devices, tokens, batches, seed):
        sent = dispatch_batch(trace.experts, positions, origin, tables, settings, row_of, seeds)
        device_load = sent.slot_load.reshape(trace.num_layers, placement.num_devices, -1).sum(2)
        ratios.append(max_over_mean(device_load))
        copies = sent.copies.sum(axis=0, dtype=np.float64)
        remote += float(copies.sum())
        cross += float(copies[crossing].sum())
    token_layers = tokens * batches * trace.num_layers
    return {
        **_summary(np.stack(ratios)),
        "remote_copies_per_token": remote / token_layers,
        "cross_row_copies_per_token": cross / token_layers,
    }


def _batches(
    trace: RoutingTrace, devices: int, tokens: int, batches: int, seed: int
) -> Iterator[tuple[IntArray, NDArray[np.int32], NDArray[np.uint64]]]:
    """Yield positions, origins and dispatch seeds, the same for all placements and routings."""
    workload = WorkloadSettings(batches=batches, batch_tokens=tokens)
    rng = np.random.default_rng([seed, tokens])
    stream = iter_batches(trace, devices, None, workload, rng)
    for index, batch in zip(range(batches), stream, strict=False):
        seeds = np.random.default_rng([seed, tokens, index]).integers(2**63, size=trace.num_layers)
        yield batch.positions, batch.origin, seeds.astype(np.uint64)
