"""Rows of devices by graph partitioning: experts that fire together go to the same row.

Vertices are the experts that do not get a slot in every row, edges the tokens that choose two of
them; an edge that is not cut is a token that finds both in one row. Partitioned by Mt-KaHyPar
(Gottesbueren et al. 2024, "Scalable High-Quality Hypergraph Partitioning") with its deterministic
preset, on one thread.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mtkahypar import Initializer

IMBALANCE = 0.03  # of the experts a row gets; their number is evened out afterwards
HEAVIEST = 1000.0  # whole weight of the heaviest edge; those below 1 are left out


def row_start(
    pairs: NDArray[np.float64],
    load: NDArray[np.float64],
    grid: tuple[int, int],
    slots: int,
    seed: int,
) -> NDArray[np.int32]:
    """Return the experts [S] of one layer's slots: the hottest in every row, the rest by row.

    ``pairs`` [E, E] tokens that chose both, ``load`` [E] pairs; rows divide the slots, and hold
    fewer than E each. The h experts of largest load get a slot in each of R rows, h =
    (S - E) / (R - 1) rounded down but less than S/R; rows share out the others by the partition,
    then fill up with the hottest that they lack. Within a row the heaviest go first, each to the
    device with the least load that has room.
    """
    rows, columns = grid
    in_row = slots // rows
    by_load = np.argsort(-load, kind="stable")
    everywhere = min((slots - len(load)) // max(rows - 1, 1), in_row - 1)
    hot, cold = by_load[:everywhere], np.sort(by_load[everywhere:])
    row = _partition(pairs, cold, rows, seed) if len(cold) > rows else None
    if row is None:
        row = np.arange(len(cold)) % rows
    contents = [[int(e) for e in hot] for _ in range(rows)]
    homeless: list[int] = []
    for e in cold[np.argsort(-load[cold], kind="stable")]:
        home = contents[row[np.searchsorted(cold, e)]]
        (home if len(home) < in_row else homeless).append(int(e))
    for e in homeless:
        min(contents, key=len).append(e)
    replicas = np.zeros(len(load))
    for held in contents:
        replicas[held] += 1
    slot_expert = np.empty(slots, dtype=np.int32)
    for r, held in enumerate(contents):
        missing = [int(e) for e in by_load if e not in held]
        held += missing[: in_row - len(held)]
        replicas[missing[: in_row - len(held)]] += 1
        slot_expert[r * in_row : (r + 1) * in_row] = _pack(held, load / replicas, columns)
    return slot_expert


def _pack(held: list[int], load: NDArray[np.float64], columns: int) -> list[int]:
    """Return a row's experts device by device."""
    per_device = -(-len(held) // columns)
    device: list[list[int]] = [[] for _ in range(columns)]
    total = np.zeros(columns)
    for e in sorted(held, key=lambda e: (-load[e], e)):
        room = [d for d in range(columns) if len(device[d]) < per_device]
        best = min(room, key=lambda d: (total[d], d))
        device[best].append(e)
        total[best] += load[e]
    return [e for experts in device for e in experts]


@cache
def _library() -> Initializer:
    import mtkahypar

    return mtkahypar.initialize(1, False)


def _partition(
    pairs: NDArray[np.float64], cold: NDArray[np.int64], rows: int, seed: int
) -> NDArray[np.int64] | None:
    """Return the row of each of ``cold``; None where no two of them fire together."""
    import mtkahypar

    among = pairs[np.ix_(cold, cold)]
    first, second = np.triu_indices(len(cold), 1)
    weight = among[first, second] * (HEAVIEST / max(among.max(), 1.0))
    kept = np.flatnonzero(weight >= 1.0)
    if not len(kept):
        return None
    library = _library()
    mtkahypar.set_seed(seed)
    context = library.context_from_preset(mtkahypar.PresetType.DETERMINISTIC)
    context.set_partitioning_parameters(rows, IMBALANCE, mtkahypar.Objective.CUT)
    context.logging = False
    edges = [(int(first[i]), int(second[i])) for i in kept]
    graph = library.create_graph(
        context, len(cold), len(edges), edges, [1] * len(cold), [int(weight[i]) for i in kept]
    )
    return np.array(graph.partition(context).get_partition(), dtype=np.int64)
