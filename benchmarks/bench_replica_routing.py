"""Speed of the per-batch optimum among replicas, beside HiGHS on the same counts in the same run.

A batch of 16384 tokens, top-8 of 256 experts, drawn from calibrated loads; 128 devices with 384
slots. ``minimise_largest`` starts from the placement's shares, as dispatch does; HiGHS solves the
same programme in fractions of tokens, its sparse matrices made outside the timed part.
``extra_info`` holds microseconds a layer of both, and the largest load over the mean.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from scipy import sparse
from scipy.optimize import linprog

from topomoe.comparison.batch_balance_kernel import LEAST_LARGEST, largest_loads
from topomoe.demand import replica_tables
from topomoe.placement import LayerPlacement, place
from topomoe.synthetic import calibrated_loads

LAYERS, DEVICES, SLOTS, PAIRS, BATCHES = 8, 128, 384, 16384 * 8, 16
IntArray = NDArray[np.int64]


def highs(count: IntArray, placement: LayerPlacement) -> tuple[float, float]:
    """Return the optimum in fractions of tokens and the seconds that HiGHS took."""
    slots, experts = placement.num_slots, placement.num_experts
    one, slot = np.ones(slots), np.arange(slots)
    equal = sparse.csr_matrix((one, (placement.slot_expert, slot)), (experts, slots + 1))
    held = sparse.csr_matrix((one, (placement.slot_device, slot)), (DEVICES, slots))
    most = sparse.hstack([held, sparse.csr_matrix(-np.ones((DEVICES, 1)))], format="csr")
    cost = np.append(np.zeros(slots), 1.0)
    begin = time.perf_counter()
    found = linprog(cost, most, np.zeros(DEVICES), equal, count, method="highs")
    return float(found.fun), time.perf_counter() - begin


@pytest.mark.parametrize("method", ["exact", "eplb"])
def test_lp(benchmark: BenchmarkFixture, method: str) -> None:
    """Many batches of every layer, compiled beforehand; all optima equal those of HiGHS."""
    load = calibrated_loads("deepseek-v3", 0, layers=LAYERS)
    placement = place(load, DEVICES, SLOTS, method=method)
    tables = replica_tables(placement, "lp")
    rng = np.random.default_rng(0)
    count = np.stack([rng.multinomial(PAIRS, p, size=BATCHES) for p in load])
    largest = np.zeros((LAYERS, BATCHES), dtype=np.int64)
    no_rows, no_own = np.zeros((1, 1, 1), dtype=np.int64), np.zeros((1, 1), dtype=np.int64)
    row_of, seed = np.zeros(DEVICES, dtype=np.int64), np.arange(BATCHES, dtype=np.uint64)

    def run() -> float:
        begin = time.perf_counter()
        for m in range(LAYERS):
            largest_loads(
                count[m],
                no_rows,
                no_own,
                tables.start[m],
                tables.device[m],
                tables.share[m],
                row_of,
                LEAST_LARGEST,
                0.0,
                seed,
                largest[m],
            )
        return time.perf_counter() - begin

    run()
    benchmark(run)
    mine = min(run() for _ in range(5)) / (LAYERS * BATCHES)
    peers = []
    for m, layer in enumerate(placement):
        for b in range(2):
            optimum, took = highs(count[m, b], layer)
            assert largest[m, b] == int(np.ceil(optimum - 1e-6))
            peers.append(took)
    benchmark.extra_info["us a layer"] = round(1e6 * mine, 1)
    benchmark.extra_info["HiGHS, us a layer"] = round(1e6 * float(np.median(peers)))
    benchmark.extra_info["times as fast as HiGHS"] = round(float(np.median(peers)) / mine)
    ratio = largest / (PAIRS / DEVICES)
    benchmark.extra_info["max/mean, mean"] = round(float(ratio.mean()), 4)
    benchmark.extra_info["max/mean, p99"] = round(float(np.percentile(ratio, 99)), 4)
