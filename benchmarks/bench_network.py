"""Speed of the bottleneck model beside SciPy's sparse products, and of building networks.

The peer keeps the routing as one sparse float32 matrix, each row divided by its link's capacity,
and multiplies it with the demands: all at once (they lie transposed and contiguous beforehand) or
one by one. Both sides run in this process on one thread, on the same demands. ``extra_info`` holds
evaluations per second and how many times as fast the model is as each of the two.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.sparse import csr_array, diags_array

from topomoe.network import bottleneck
from topomoe.topologies import Topology, make, route

DEMANDS = 256
NETWORKS: dict[str, tuple[str, str | None]] = {
    "torus": ("torus", "dimension-order"),
    "mesh": ("mesh", "dimension-order"),
    "leaf-spine": ("leaf-spine", "ecmp"),
    "leaf-spine d-mod-k": ("leaf-spine", "d-mod-k"),
    "fat-tree": ("fat-tree", "ecmp"),
    "twisted-torus": ("twisted-torus", "ecmp"),
    "optical": ("optical", "hybrid"),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def random_demands(devices: int) -> NDArray[np.float32]:
    """Return [DEMANDS, N, N] bytes, every pair of devices with some."""
    demand = np.random.default_rng(0).exponential(65536, (DEMANDS, devices, devices))
    demand[:, np.arange(devices), np.arange(devices)] = 0
    return demand.astype(np.float32)


def best_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the shortest of several runs, after one that does not count."""
    function()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        spent.append(time.perf_counter() - start)
    return min(spent)


def network(name: str, latency: float) -> tuple[Topology, Any]:
    """Return one of ``NETWORKS`` over 16 x 8 devices."""
    kind, policy = NETWORKS[name]
    topology = make(kind, grid=(16, 8), bandwidth="400Gbps", latency=latency)
    return topology, route(topology, policy)


@every_network
def test_bottleneck_beside_sparse_products(benchmark: BenchmarkFixture, name: str) -> None:
    """256 float32 demands on 128 devices in one call, latency 0: the peer computes none."""
    topology, routing = network(name, latency=0.0)
    demand = random_demands(topology.num_devices)
    matrix = csr_array(diags_array(1 / topology.capacity) @ routing.matrix).astype(np.float32)
    transposed = np.ascontiguousarray(demand.reshape(DEMANDS, -1).T)
    rows = demand.reshape(DEMANDS, -1)

    def batched() -> NDArray[np.float32]:
        return (matrix @ transposed).max(axis=0)

    def one_by_one() -> list[np.float32]:
        return [(matrix @ row).max() for row in rows]

    assert bottleneck(topology, routing, demand) == pytest.approx(batched(), rel=1e-4)
    benchmark.pedantic(bottleneck, (topology, routing, demand), rounds=15, warmup_rounds=2)
    seconds = benchmark.stats.stats.min
    benchmark.extra_info["evaluations/s"] = round(DEMANDS / seconds)
    for peer, function, repeats in (("batched", batched, 5), ("one by one", one_by_one, 3)):
        spent = best_seconds(function, repeats)
        benchmark.extra_info[f"scipy {peer} evaluations/s"] = round(DEMANDS / spent)
        benchmark.extra_info[f"times as fast as scipy {peer}"] = round(spent / seconds, 2)


@every_network
def test_bottleneck_with_latency_and_packets(benchmark: BenchmarkFixture, name: str) -> None:
    """The same demands with path latency and store-and-forward: a maximum over pairs."""
    topology, routing = network(name, latency=1e-6)
    demand = random_demands(topology.num_devices)
    benchmark.pedantic(bottleneck, (topology, routing, demand, 4096), rounds=10, warmup_rounds=2)
    benchmark.extra_info["evaluations/s"] = round(DEMANDS / benchmark.stats.stats.min)


@every_network
@pytest.mark.parametrize("grid", [(16, 8), (32, 32)], ids=["16x8", "32x32"])
def test_build(benchmark: BenchmarkFixture, name: str, grid: tuple[int, int]) -> None:
    """Topology and routing from a name, with the path latency of every pair."""
    kind, policy = NETWORKS[name]

    def build() -> Any:
        return route(make(kind, grid=grid), policy).latency

    benchmark.pedantic(build, rounds=3, warmup_rounds=1)
    benchmark.extra_info["devices"] = grid[0] * grid[1]
