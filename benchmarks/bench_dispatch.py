"""Speed of dispatch on one core, beside a plain numpy restatement of the same rules.

A batch of 16384 tokens, top-8 of 256 experts, through 8 layers placed on 128 devices with 384
slots: every token-expert pair is dealt to a replica by its share, and one copy of a token crosses
to each destination device. Both sides run in this process on one thread, on the same tokens.
``extra_info`` holds token-layers per second and how many times as fast the compiled dispatch is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from topomoe.demand import DispatchSettings, ReplicaTables, dispatch_batch, replica_tables
from topomoe.placement import Placement, place

TOKENS, LAYERS, EXPERTS, TOP_K, DEVICES, SLOTS = 16384, 8, 256, 8, 128, 384
Result = tuple[NDArray[Any], NDArray[Any]]


@pytest.fixture(scope="module")
def experts() -> NDArray[np.int16]:
    """Choices [M, P, K] by loads of a measured spread: standard deviation .7 of the log load."""
    rng = np.random.default_rng(0)
    score = rng.gumbel(size=(LAYERS, TOKENS, EXPERTS)) + rng.normal(0, 0.7, (LAYERS, 1, EXPERTS))
    return np.argpartition(-score, TOP_K, axis=2)[:, :, :TOP_K].astype(np.int16)


@pytest.fixture(scope="module")
def placement(experts: NDArray[np.int16]) -> Placement:
    """The exact placement for the tokens' own load."""
    load = np.stack([np.bincount(layer.ravel(), minlength=EXPERTS) for layer in experts])
    return place(load, DEVICES, SLOTS, method="exact")


def in_numpy(
    experts: NDArray[np.int16], origin: NDArray[np.int32], tables: ReplicaTables
) -> Result:
    """Return copies [M, N, N] and slot load [M, S]: the same rules in array operations."""
    rng = np.random.default_rng(0)
    copies = np.zeros((LAYERS, DEVICES, DEVICES), dtype=np.float32)
    load = np.zeros((LAYERS, SLOTS), dtype=np.int64)
    for m, layer in enumerate(experts):
        start = tables.start[m]
        used = start[-1]
        expert = np.repeat(np.arange(EXPERTS), np.diff(start))
        share = tables.share[m, :used]
        below = np.cumsum(share) - np.cumsum(share)[start[expert]] + share[start[expert]]
        flat = layer.ravel()
        count = np.bincount(flat, minlength=EXPERTS)
        bound = np.floor(count[expert] * below + rng.random(EXPERTS)[expert]).astype(np.int64)
        bound = np.minimum(bound, count[expert])
        bound[start[1:] - 1] = count
        first = np.r_[0, bound[:-1]]
        first[start[:-1]] = 0
        part = bound - first  # tokens of each replica
        slot = tables.slot[m, :used]
        load[m, slot] = part
        shuffled = rng.permutation(len(flat))
        order = shuffled[np.argsort(flat[shuffled], kind="stable")]  # by expert, else at random
        device = np.empty(len(flat), dtype=np.int64)
        device[order] = np.repeat(slot // (SLOTS // DEVICES), part)
        destination = np.sort(device.reshape(layer.shape), axis=1)
        once = np.ones(destination.shape, dtype=np.bool_)
        once[:, 1:] = destination[:, 1:] != destination[:, :-1]
        once &= destination != origin[:, None]
        pair = origin[:, None].astype(np.int64) * DEVICES + destination
        sent = np.bincount(pair[once], minlength=DEVICES * DEVICES)
        copies[m] = sent.reshape(DEVICES, DEVICES)
    return copies, load


def seconds(run: Callable[[], Result], rounds: int) -> float:
    """Return the shortest of several runs."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


@pytest.mark.parametrize("copies", ["device", "expert", "node-relay"])
@pytest.mark.parametrize("replica_routing", ["weighted", "least-loaded", "local-first", "lp"])
def test_dispatch(
    benchmark: BenchmarkFixture,
    experts: NDArray[np.int16],
    placement: Placement,
    replica_routing: str,
    copies: str,
) -> None:
    """All layers of a batch in one call, compiled beforehand."""
    positions = np.arange(TOKENS)
    origin = np.random.default_rng(1).integers(DEVICES, size=TOKENS).astype(np.int32)
    settings = DispatchSettings(replica_routing, copies, node_size=8)
    tables = replica_tables(placement, replica_routing)
    row_of = np.arange(DEVICES) // 8
    seed = np.arange(LAYERS, dtype=np.uint64)

    def run() -> Result:
        sent = dispatch_batch(experts, positions, origin, tables, settings, row_of, seed)
        return sent.copies, sent.slot_load

    sent, load = run()
    assert load.sum() == TOKENS * TOP_K * LAYERS
    benchmark(run)
    mine = seconds(run, 5)
    benchmark.extra_info["token-layers per second"] = round(TOKENS * LAYERS / mine)
    if (replica_routing, copies) == ("weighted", "device"):
        plain_sent, plain_load = in_numpy(experts, origin, tables)
        # The same rules: an expert's replicas differ by at most a token, copies by the draw.
        assert np.abs(plain_load - load).max() <= 1
        assert abs(plain_sent.sum() / sent.sum() - 1) < 0.01
        plain = seconds(lambda: in_numpy(experts, origin, tables), 3)
        benchmark.extra_info["numpy, token-layers per second"] = round(TOKENS * LAYERS / plain)
        benchmark.extra_info["times as fast as numpy"] = round(plain / mine, 2)
