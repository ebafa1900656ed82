"""Speed and quality of the choice of circuits, beside networkx and the greedy, and of schedules.

128 devices, four ports, heavy-tailed demand of every pair. ``extra_info`` holds the share of the
demand that has a circuit of its own, the bottleneck time over the least that the ports allow, or a
schedule's total time over it.
"""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from topomoe.topologies import choose_circuits, from_links, route, schedule_circuits
from topomoe.topologies.matching import METHODS
from topomoe.topologies.matching.scheduling import SCHEDULES

DEVICES, DEGREE = 128, 4


def heavy_tailed() -> NDArray[np.float64]:
    """Return [N, N] bytes, Pareto of shape 1.2."""
    demand = np.ceil(np.random.default_rng(0).pareto(1.2, (DEVICES, DEVICES)) * 1e6)
    np.fill_diagonal(demand, 0)
    return demand


def busiest(demand: NDArray[np.float64]) -> float:
    """Return the most bytes that a device sends or receives."""
    return float(max(demand.sum(axis=0).max(), demand.sum(axis=1).max()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["directed", "bidirectional"])
def test_choose(benchmark: BenchmarkFixture, method: str, bidirectional: bool) -> None:
    """The circuits alone join all devices, so that the bottleneck is that of relaying."""
    demand = heavy_tailed()
    arguments = (demand, DEGREE, method, bidirectional, True)
    circuits = benchmark.pedantic(choose_circuits, arguments, rounds=2, warmup_rounds=1)
    links, copies = np.unique(circuits, axis=0, return_counts=True)
    topology = from_links(links, copies.astype(float), devices=DEVICES)
    time = float(route(topology, "ecmp").transfer_time(demand[None])[0])
    benchmark.extra_info["carried directly"] = round(demand[tuple(links.T)].sum() / demand.sum(), 3)
    benchmark.extra_info["bottleneck over bound"] = round(time / (busiest(demand) / DEGREE), 2)


def test_b_matching_of_degree_one_beside_networkx(benchmark: BenchmarkFixture) -> None:
    """networkx's blossom algorithm on the same undirected pairs, to the same weight."""
    demand = heavy_tailed()[:48, :48]
    graph = nx.Graph()
    weight = np.triu(demand + demand.T)
    graph.add_weighted_edges_from((a, b, weight[a, b]) for a, b in np.argwhere(weight).tolist())
    wanted = sum(weight[min(e), max(e)] for e in nx.max_weight_matching(graph))
    arguments = (demand, 1, "b-matching", True)
    circuits = benchmark.pedantic(choose_circuits, arguments, rounds=3, warmup_rounds=1)
    assert demand[tuple(circuits.T)].sum() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("method", SCHEDULES)
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_schedule(benchmark: BenchmarkFixture, method: str, share: float) -> None:
    """One port a device; the delay as a share of the shortest time without any."""
    demand = heavy_tailed()[:64, :64]
    unit = busiest(demand) / 1e9
    arguments = (demand, 1e9, share * unit, 1, method)
    plan = benchmark.pedantic(schedule_circuits, arguments, rounds=1, warmup_rounds=1)
    benchmark.extra_info["total time over bound"] = round(plan.total_time / unit, 3)
    benchmark.extra_info["reconfigurations"] = plan.reconfigurations
