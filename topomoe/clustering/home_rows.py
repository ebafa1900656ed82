"""The rows of devices where tokens start best: where the experts of their cluster sit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.clustering.token_clusters import FloatArray, IntArray, TokenClusters, fit
from topomoe.model import MoEModel, match_model, model_preset
from topomoe.placement import Placement
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError
from topomoe.workload import WorkloadSettings

_UNITS_OF_A_ROW = 8  # tokens of a cluster are shared out over rows in 1/8 of a row


def cluster_rows(
    train: RoutingTrace,
    test: RoutingTrace,
    placement: Placement,
    grid: tuple[int, int],
    clusters: int | None = None,
    seed: int = 0,
    unit: str = "request",
    pin_after: int | None = None,
) -> NDArray[np.int32]:
    """Return the rows of the grid where each position of ``test`` starts best, [P, R], best first.

    Clusters (by default one a row) are fitted to ``train``. The rows are shared out to them so that
    the most picks find their expert on the own row, each row taking an equal part of the tokens (an
    assignment problem over eighths of rows); the requests of a cluster with several rows take turns
    on them. The further rows of a position follow by the same overlap. A position's cluster is that
    of ``TokenClusters.assign``: nothing it or a later position routes has a say.

    ``placement`` is made for the training requests too. Raises InputError for a grid of another
    size than the placement, and what ``fit`` refuses.
    """
    rows, columns = grid
    if rows < 1 or columns < 1 or rows * columns != placement.num_devices:
        raise InputError(
            f"grid must be rows x columns = devices, got {rows}x{columns} and "
            f"{placement.num_devices}"
        )
    found = fit(train, rows if clusters is None else clusters, seed, unit)
    served = row_overlap(found, train, placement, rows, pin_after)
    parts = _share_out(
        served,
        np.bincount(found.assign(train, pin_after=pin_after), minlength=found.num_clusters),
        rows,
    )
    home, order = _preferences(served, parts)
    cluster = found.assign(test, pin_after=pin_after)
    # Golden-ratio steps deal the requests of a cluster over its rows, and each keeps its turn.
    turn = np.arange(1, test.num_requests + 1) * 0.6180339887498949 % 1.0
    at = (turn[test.position_request] * home.shape[1]).astype(np.int64)
    first = home[cluster, at]
    rest = order[cluster]
    others = rest[rest != first[:, None]].reshape(len(first), rows - 1)
    return np.concatenate([first[:, None], others], axis=1).astype(np.int32)


def rows_for(
    settings: WorkloadSettings,
    train: RoutingTrace,
    test: RoutingTrace,
    placement: Placement,
    grid: tuple[int, int],
    seed: int,
) -> NDArray[np.int32] | None:
    """Return ``cluster_rows`` where origins are clustered, else None."""
    if settings.origins != "clustered":
        return None
    return cluster_rows(train, test, placement, grid, seed=seed)


def row_overlap(
    found: TokenClusters,
    trace: RoutingTrace,
    placement: Placement,
    rows: int,
    pin_after: int | None = None,
) -> FloatArray:
    """Return the picks of a cluster's token that each row serves, by share, [C, R]."""
    from topomoe.clustering import token_clusters_kernel as kernels

    label = found.assign(trace, pin_after=pin_after)
    counts = np.zeros((found.num_clusters, trace.num_layers, trace.num_experts), dtype=np.int64)
    kernels.pick_counts(trace.experts, np.arange(trace.num_positions), label, counts)
    of_row = np.zeros((rows, trace.num_layers, placement.num_experts))
    row = placement.slot_device // (placement.num_devices // rows)
    for m in range(trace.num_layers):
        np.add.at(of_row[:, m], (row, placement.slot_expert[m]), placement.slot_share[m])
    tokens = np.maximum(np.bincount(label, minlength=found.num_clusters), 1)
    routed = of_row[..., : trace.num_experts]  # a routed shared expert is picked by all alike
    return np.asarray(np.einsum("cme,rme->cr", counts / tokens[:, None, None], routed))


def _share_out(served: FloatArray, tokens: IntArray, rows: int) -> IntArray:
    """Return the parts of rows that each cluster gets, [C, R]; every row has as many parts."""
    from scipy.optimize import linear_sum_assignment

    clusters = len(served)
    parts_of_row = max(_UNITS_OF_A_ROW, -(-2 * clusters // rows))
    total = parts_of_row * rows
    wanted = tokens / tokens.sum() * total
    parts = np.floor(wanted).astype(np.int64)
    short = np.argsort(-(wanted - parts), kind="stable")[: total - parts.sum()]
    parts[short] += 1
    owner = np.repeat(np.arange(clusters), parts)
    row = np.repeat(np.arange(rows), parts_of_row)
    chosen, place = linear_sum_assignment(served[owner][:, row], maximize=True)
    table = np.zeros((clusters, rows), dtype=np.int64)
    np.add.at(table, (owner[chosen], row[place]), 1)
    return table


def _preferences(served: FloatArray, parts: IntArray) -> tuple[IntArray, IntArray]:
    """Return each cluster's home rows by turn [C, 64], and all rows by overlap [C, R]."""
    order = np.argsort(-served, axis=1, kind="stable")
    turns = (np.arange(64) + 0.5) / 64
    home = np.empty((len(served), len(turns)), dtype=np.int64)
    for cluster, own in enumerate(parts):
        share = np.cumsum(own) / own.sum() if own.any() else np.ones(1)
        rows = np.searchsorted(share, turns) if own.any() else order[cluster, 0]
        home[cluster] = rows
    return home, order


def moved_bytes(
    trace: RoutingTrace, home_rows: NDArray[np.int32], model: str | MoEModel | None = None
) -> FloatArray:
    """Return the bytes of cache that follow each request from row to row, [Q].

    A request that changes its home row before position p takes the keys and values of its p earlier
    positions along. ``model`` None: the preset of the trace's shape.
    """
    shape = (
        match_model(trace.num_layers, trace.num_experts, trace.usual_top_k)
        if model is None
        else model_preset(model)
    )
    home = np.asarray(home_rows).reshape(trace.num_positions, -1)[:, 0]
    moves = np.flatnonzero(home[1:] != home[:-1]) + 1
    moves = moves[~np.isin(moves, trace.request_start)]
    layers = shape.num_layers + shape.num_dense_layers
    request = trace.position_request[moves]
    earlier = trace.position[moves].astype(np.float64)
    positions = np.bincount(request, earlier, minlength=trace.num_requests).astype(np.float64)
    return positions * (shape.kv_bytes * layers)
