"""Speed of the optimum beside the textbook program, and on the networks that studies use.

The peer is maximum concurrent flow with a commodity for every pair of devices and every link in
the program, solved by the same HiGHS. Both sides run in this process; nothing is read from the
cache. ``extra_info`` holds the proven gap and how many times as fast the optimum is as the peer.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack, kron

from topomoe.topologies import Topology, make
from topomoe.topologies.concurrent_flow import solve

NETWORKS = ("torus", "mesh", "twisted-torus", "torus-3d", "leaf-spine", "fat-tree", "rails")


def random_demand(devices: int) -> NDArray[np.float64]:
    """Return [N, N] bytes, every pair of devices with some."""
    demand = np.random.default_rng(0).exponential(65536, (devices, devices))
    np.fill_diagonal(demand, 0)
    return demand


def zipf_demand(devices: int) -> NDArray[np.float64]:
    """Return [N, N] bytes: device r is sent 1 / (r + 1) as much as device 0."""
    demand = np.tile(1.0 / np.arange(1, devices + 1), (devices, 1))
    np.fill_diagonal(demand, 0)
    return demand * 65536 * (devices - 1) / demand.sum(axis=1, keepdims=True)


def commodity_a_pair(topology: Topology, demand: NDArray[np.float64]) -> float:
    """Return the seconds of the textbook program, demand and capacities scaled to order 1."""
    links, nodes = topology.num_links, topology.num_nodes
    tail, head = topology.links.T
    column = np.arange(links)
    ends = (np.concatenate([tail, head]), np.concatenate([column, column]))
    incidence = csr_array((np.repeat([1.0, -1.0], links), ends), shape=(nodes, links))
    pairs = np.argwhere(demand > 0)
    count = len(pairs)
    byte, capacity = demand[demand > 0].mean(), topology.capacity.max()
    wanted = np.zeros((count, nodes))
    wanted[np.arange(count), pairs[:, 0]] = demand[tuple(pairs.T)] / byte
    wanted[np.arange(count), pairs[:, 1]] = -demand[tuple(pairs.T)] / byte
    balance = hstack([kron(eye_array(count), incidence), csr_array((count * nodes, 1))])
    room = hstack(
        [kron(np.ones((1, count)), eye_array(links)), -topology.capacity[:, None] / capacity]
    )
    result = linprog(
        np.eye(1, count * links + 1, count * links)[0],
        A_ub=room.tocsr(),
        b_ub=np.zeros(links),
        A_eq=balance.tocsr(),
        b_eq=wanted.reshape(-1),
        method="highs-ipm",
    )
    assert result.status == 0
    return float(result.fun * byte / capacity)


@pytest.mark.parametrize("name", ["torus", "mesh", "leaf-spine"])
def test_optimum_beside_a_commodity_a_pair(benchmark: BenchmarkFixture, name: str) -> None:
    """A full random demand on 6 x 4 devices."""
    topology = make(name, grid=(6, 4), bandwidth="100Gbps", latency=0.0)
    demand = random_demand(24)
    flow = benchmark.pedantic(
        solve, (topology, demand), {"cache": False}, rounds=3, warmup_rounds=1
    )
    start = time.perf_counter()
    plain = commodity_a_pair(topology, demand)
    spent = time.perf_counter() - start
    assert flow.time == pytest.approx(plain, rel=1e-6)
    benchmark.extra_info["gap"] = flow.time / flow.bound - 1
    benchmark.extra_info["times as fast as a commodity a pair"] = round(
        spent / benchmark.stats.stats.min, 1
    )


@pytest.mark.parametrize("demand", [random_demand, zipf_demand], ids=["random", "zipf"])
@pytest.mark.parametrize("name", NETWORKS)
def test_optimum_of_128_devices(benchmark: BenchmarkFixture, name: str, demand: object) -> None:
    """What a study waits for, once for each demand on each network."""
    assert callable(demand)
    topology = make(name, grid=(16, 8), bandwidth="100Gbps", latency=0.0)
    flow = benchmark.pedantic(solve, (topology, demand(128)), {"cache": False}, rounds=1)
    benchmark.extra_info["gap"] = flow.time / flow.bound - 1
    assert flow.time <= flow.bound * (1 + 1e-6)
