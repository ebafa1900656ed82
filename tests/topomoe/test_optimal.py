"""The optimum beside bounds and routings, and the routing that it exports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe import network
from topomoe.topologies import InputError, Routing, Topology, from_links, make, route

CAPACITY = 12.5e9
BYTES = 65536.0
NEAR = 1e-8

Demand = NDArray[np.float64]


def build(name: str, grid: tuple[int, int], **options: Any) -> Topology:
    return make(name, grid=grid, bandwidth=CAPACITY, latency=0.0, **options)


def random_demand(devices: int, seed: int, density: float = 0.6) -> Demand:
    rng = np.random.default_rng(seed)
    demand = rng.exponential(BYTES, (devices, devices)) * (rng.random((devices, devices)) < density)
    np.fill_diagonal(demand, 0.0)
    return demand


def random_topology(seed: int) -> Topology:
    """A ring with chords and hosts, every link both ways, capacities of all sizes."""
    rng = np.random.default_rng(seed)
    core, hosts = int(rng.integers(3, 8)), int(rng.integers(0, 5))
    edges = {(v, (v + 1) % core) for v in range(core)}
    edges |= {(int(a), int(b)) for a, b in rng.integers(0, core, (core, 2)) if a < b}
    edges |= {(int(rng.integers(0, host)), host) for host in range(core, core + hosts)}
    name = rng.permutation(core + hosts)
    links = {(int(name[a]), int(name[b])) for e in sorted(edges) for a, b in (e, e[::-1])}
    capacity = rng.uniform(0.1, 10.0, len(links)) * CAPACITY
    return from_links(sorted(links), capacity, 0.0, devices=int(rng.integers(2, core + hosts + 1)))


def assert_conserves(routing: Routing, pairs: NDArray[np.bool_]) -> None:
    """Every pair's fractions leave its source, reach its destination and are lost nowhere."""
    topology = routing.topology
    devices, nodes = topology.num_devices, topology.num_nodes
    matrix = routing.matrix.toarray().reshape(topology.num_links, devices, devices)
    for source, destination in np.argwhere(pairs):
        left = np.zeros(nodes)
        np.add.at(left, topology.links[:, 0], matrix[:, source, destination])
        np.subtract.at(left, topology.links[:, 1], matrix[:, source, destination])
        left[[source, destination]] -= [1.0, -1.0]
        assert left == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), density=st.sampled_from([0.1, 0.6, 1.0]))
def test_bounds_are_below_the_optimum_and_every_routing_above(seed: int, density: float) -> None:
    topology = random_topology(seed)
    demand = random_demand(topology.num_devices, seed, density)
    found = network.bounds(topology, demand, cache=False)
    best = network.optimal(topology, demand, cache=False)
    assert found == {
        "node_cut": network.node_cut(topology, demand),
        "place_cut": 0.0,
        "capacity_bound": network.capacity_bound(topology, demand),
        "optimal": best,
    }
    assert max(found["node_cut"], found["capacity_bound"]) <= best * (1 + NEAR)
    for policy in ("ecmp", "shortest", "ecmp-hash"):
        assert best <= network.bottleneck(topology, route(topology, policy), demand) * (1 + NEAR)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), density=st.sampled_from([0.1, 0.6, 1.0]))
def test_the_exported_routing_attains_the_optimum_and_carries_other_demands(
    seed: int, density: float
) -> None:
    topology = random_topology(seed)
    devices = topology.num_devices
    demand, other = random_demand(devices, seed, density), random_demand(devices, seed + 1)
    routing = route(topology, "optimal", demand=demand)
    assert routing.name == "optimal"
    best = network.optimal(topology, demand)
    assert network.bottleneck(topology, routing, demand) == pytest.approx(best, rel=NEAR)
    assert_conserves(routing, ~np.eye(devices, dtype=np.bool_))
    loads = routing.link_load(other[None])[0]
    assert loads == pytest.approx(routing.matrix @ other.reshape(-1), rel=1e-9)
    time = network.bottleneck(topology, routing, other)
    assert network.optimal(topology, other) <= time * (1 + NEAR)


TOPOLOGIES = {
    "torus": build("torus", (4, 4)),
    "mesh": build("mesh", (3, 5)),
    "leaf-spine": build("leaf-spine", (4, 3), spines=2, oversubscription=2.0),
    "fat-tree": build("fat-tree", (4, 5)),
    "optical": build("optical", (4, 4)),
    "circuits alone": build("optical", (4, 4), base=None),
}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_the_routing_of_a_sparse_demand_is_whole(name: str) -> None:
    """One source, two destinations: all other tables are shortest paths."""
    topology = TOPOLOGIES[name]
    devices = topology.num_devices
    demand = np.zeros((devices, devices))
    demand[0, [3, 7]] = BYTES
    routing = route(topology, "optimal", demand=demand)
    best = network.optimal(topology, demand)
    assert network.bottleneck(topology, routing, demand) == pytest.approx(best, rel=NEAR)
    assert_conserves(routing, ~np.eye(devices, dtype=np.bool_))
    untouched = np.zeros((devices, devices))
    untouched[:, 5] = BYTES
    ecmp = route(topology, "ecmp")
    if name not in ("leaf-spine", "fat-tree"):  # where 5 shares its switch's tables with 3
        assert routing.link_load(untouched[None]) == pytest.approx(ecmp.link_load(untouched[None]))
    assert (routing.hops >= topology.least_hops - 1e-9).all()


def test_no_demand_takes_no_time_and_leaves_shortest_paths() -> None:
    topology = TOPOLOGIES["torus"]
    demand = np.zeros((16, 16))
    assert network.optimal(topology, demand) == 0.0
    assert network.optimal(topology, BYTES * np.eye(16)) == 0.0
    routing = route(topology, "optimal", demand=demand)
    assert routing.hops == pytest.approx(topology.least_hops)


def test_a_batch_of_demands_gives_a_time_each() -> None:
    topology = TOPOLOGIES["torus"]
    batch = np.stack([random_demand(16, seed) for seed in range(3)])
    times = network.optimal(topology, batch)
    assert times.shape == (3,)
    assert times.tolist() == [network.optimal(topology, one) for one in batch]
    found = network.bounds(topology, batch)
    assert [value.shape for value in found.values()] == [(3,)] * 4


def test_single_path_routing_is_twice_the_optimum_under_a_hot_device() -> None:
    """The Zipf demand of the reference runs on a 16x8 torus: 8106.91 us against 3916.74."""
    topology = build("torus", (16, 8))
    weight = np.zeros(128)
    weight[np.random.default_rng(0).permutation(128)] = 1.0 / np.arange(1, 129)
    demand = np.tile(weight, (128, 1))
    np.fill_diagonal(demand, 0.0)
    demand = np.round(demand * 127 * BYTES / demand.sum(axis=1, keepdims=True))
    single = network.bottleneck(topology, route(topology, "dimension-order"), demand)
    assert 1e6 * single == pytest.approx(8106.91, abs=0.005)
    optimum = network.optimal(topology, demand)
    assert 1e6 * optimum == pytest.approx(3916.74, abs=0.005)
    routing = route(topology, "optimal", demand=demand)
    assert network.bottleneck(topology, routing, demand) == pytest.approx(optimum, rel=NEAR)


def test_the_routing_needs_a_demand() -> None:
    with pytest.raises(InputError, match="optimal needs demand="):
        route(TOPOLOGIES["torus"], "optimal")
