"""Every policy on the topologies it suits: conservation, and fast sums beside plain ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
import pytest
from numpy.typing import NDArray

from topomoe.topologies import Routing, Topology, from_links, make, route


class Case(NamedTuple):
    topology: str
    grid: tuple[int, int]
    options: tuple[tuple[str, Any], ...]
    policy: str
    policy_options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        options = [f"{k}={v}" for k, v in (*self.options, *self.policy_options)]
        return "-".join([self.topology, "x".join(map(str, self.grid)), self.policy, *options])


GRIDS = [(1, 4), (4, 1), (2, 2), (2, 3), (3, 5), (5, 2), (4, 8)]
COLUMNS = (("first", "columns"),)
DIMENSION_ORDER = [
    *(Case("torus", g, (), "dimension-order", (("tie", "balanced"),)) for g in GRIDS),
    *(Case("torus", g, (), "dimension-order", (("tie", "plus"),)) for g in GRIDS),
    *(Case("mesh", g, (), "dimension-order") for g in GRIDS),
    *(Case(t, g, (), "dimension-order", COLUMNS) for t in ("torus", "mesh") for g in GRIDS),
    *(Case(t, g, (), "o1turn") for t in ("torus", "mesh") for g in GRIDS),
]
SINGLE = ("shortest", "ecmp-hash")
SHORTEST = [
    *(Case("torus", g, (), p) for g in [(2, 2), (3, 5), (4, 4)] for p in ("ecmp", *SINGLE)),
    *(
        Case("torus", g, (("twist", t),), p)
        for g, t in [((4, 4), 2), ((4, 3), 1), ((2, 3), 1)]
        for p in ("ecmp", *SINGLE)
    ),
    Case("mesh", (3, 5), (), "ecmp"),
    *(
        Case("leaf-spine", g, (("spines", s), ("oversubscription", 2.0)), p)
        for g, s in [((4, 3), 2), ((1, 4), 3), ((3, 1), 2)]
        for p in ("ecmp", "d-mod-k", *SINGLE)
    ),
    *(
        Case("fat-tree", g, (), p)
        for g in [(2, 1), (3, 5), (4, 5), (4, 8)]
        for p in ("ecmp", "d-mod-k", *SINGLE)
    ),
    Case("optical", (4, 4), (("base", None),), "ecmp"),
    Case("optical", (4, 4), (), "ecmp"),
    *(Case("one-way ring", (1, 5), (), p) for p in ("ecmp", *SINGLE)),
]
CIRCUITS = [
    Case("optical", (4, 4), options, policy)
    for options in [
        (),
        (("circuits", "rows"), ("base", "fat-tree")),
        (("circuits", "torus"), ("base", "mesh")),
        (("circuits", ((0, 5), (5, 0), (3, 9))), ("base_bandwidth", 0.25)),
    ]
    for policy in ("hybrid", "circuit-relay", "circuit-direct")
]
EVERY = [*DIMENSION_ORDER, *SHORTEST, *CIRCUITS]


@cache
def routed(case: Case) -> Routing:
    """The routing, over links whose capacities and latencies all differ."""
    if case.topology == "one-way ring":
        ring = [(0, 1), (1, 2), (2, 5), (5, 3), (3, 4), (4, 0), (0, 5)]
        topology = from_links(ring, 1.0, devices=5)
    else:
        topology = make(case.topology, case.grid, bandwidth=1.0, latency=1.0, **dict(case.options))
    rng = np.random.default_rng(7)
    topology = replace(
        topology,
        capacity=topology.capacity * rng.uniform(1, 3, topology.num_links),
        latency=rng.uniform(0, 2, topology.num_links),
    )
    return route(topology, case.policy, **dict(case.policy_options))


def fractions(routing: Routing) -> NDArray[np.float64]:
    """The matrix as [L, N, N]."""
    devices = routing.topology.num_devices
    return routing.matrix.toarray().reshape(-1, devices, devices)


def random_demand(routing: Routing, batches: int = 19) -> NDArray[np.float64]:
    """[B, N, N]: some pairs without demand, something on the diagonal, the last batch empty."""
    rng = np.random.default_rng(3)
    shape = (batches, *(routing.topology.num_devices,) * 2)
    demand = rng.exponential(5.0, shape) * (rng.random(shape) < 0.4)
    demand[-1] = 0
    return demand


def plain_load(routing: Routing, demand: NDArray[np.float64]) -> NDArray[np.float64]:
    flows = demand * (1 - np.eye(routing.topology.num_devices))
    return flows.reshape(len(demand), -1) @ routing.matrix.toarray().T


def plain_time(
    routing: Routing, demand: NDArray[np.float64], offset: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The definition: over pairs with demand, the worst link the pair uses, plus its offset."""
    use = plain_load(routing, demand) / routing.topology.capacity
    uses = fractions(routing) > 0
    off_diagonal = ~np.eye(routing.topology.num_devices, dtype=bool)
    worst = np.where(uses, use[:, :, None, None], 0.0).max(axis=1) + offset
    return np.where((demand > 0) & off_diagonal, worst, 0.0).max(axis=(1, 2))


def shortest_lengths(topology: Topology) -> NDArray[np.float64]:
    lengths = dict(nx.all_pairs_shortest_path_length(topology.graph))
    devices = range(topology.num_devices)
    return np.array([[lengths[a][b] for b in devices] for a in devices], dtype=float)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_each_pairs_traffic_leaves_once_arrives_once_and_is_kept_between(case: Case) -> None:
    routing = routed(case)
    topology = routing.topology
    flow = fractions(routing)
    balance = np.zeros((topology.num_nodes, *flow.shape[1:]))
    np.add.at(balance, topology.links[:, 0], flow)
    np.subtract.at(balance, topology.links[:, 1], flow)
    wanted = np.zeros_like(balance)
    for device in range(topology.num_devices):
        wanted[device, device, :] += 1
        wanted[device, :, device] -= 1
    assert balance == pytest.approx(wanted, abs=1e-12)
    assert flow.min() >= 0
    assert flow.max() <= 1 + 1e-12
    diagonal = np.arange(topology.num_devices)
    assert not flow[:, diagonal, diagonal].any()
    # No way back into the source: what leaves it is all there is.
    for device in diagonal:
        assert not flow[topology.links[:, 1] == device, device].any()


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_link_load_is_matrix_times_demand(case: Case) -> None:
    routing = routed(case)
    demand = random_demand(routing)
    assert routing.link_load(demand) == pytest.approx(plain_load(routing, demand), rel=1e-12)


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_path_sums_and_maxima_are_those_of_the_matrix(case: Case) -> None:
    routing = routed(case)
    flow = fractions(routing)
    value = np.random.default_rng(5).uniform(1, 2, len(flow))
    assert routing.path_sum(value) == pytest.approx(np.tensordot(value, flow, 1), rel=1e-12)
    largest = np.where(flow > 0, value[:, None, None], 0).max(axis=0)
    assert np.array_equal(routing.path_max(value), largest)
    assert routing.hops == pytest.approx(flow.sum(axis=0), rel=1e-12)
    latency = np.tensordot(routing.topology.latency, flow, 1)
    assert routing.latency == pytest.approx(latency, rel=1e-12)
    if case in CIRCUITS or case.policy == "o1turn":
        return  # packets of one part wait for none of the other: see test_routing_circuits.py
    per_byte = 1 / routing.topology.capacity
    held_back = np.tensordot(per_byte, flow, 1)
    held_back -= np.where(flow > 0, per_byte[:, None, None], 0).max(axis=0)
    assert routing.store_and_forward(100.0) == pytest.approx(
        100 * np.maximum(held_back, 0), rel=1e-9, abs=1e-12
    )


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_transfer_time_is_the_plain_definition(case: Case) -> None:
    routing = routed(case)
    demand = random_demand(routing)
    use = plain_load(routing, demand) / routing.topology.capacity
    assert routing.transfer_time(demand) == pytest.approx(use.max(axis=1), rel=1e-12)

    offset = np.random.default_rng(9).uniform(0, 3 * use.max(), demand.shape[1:])
    np.fill_diagonal(offset, 0)
    wanted = plain_time(routing, demand, offset)
    assert routing.transfer_time(demand, offset) == pytest.approx(wanted, rel=1e-12)
    assert routing.worst_pair(use, demand, offset) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    "case", [c for c in EVERY if c.grid not in ((2, 3), (3, 5), (4, 1), (1, 4))], ids=str
)
def test_float32_demand_is_computed_in_float32_and_close(case: Case) -> None:
    routing = routed(case)
    demand = random_demand(routing)
    single = demand.astype(np.float32)
    load = routing.link_load(single)
    assert load.dtype == np.float32
    assert load == pytest.approx(plain_load(routing, demand), rel=1e-5)
    assert routing.transfer_time(single) == pytest.approx(routing.transfer_time(demand), rel=1e-5)
    assert routing.transfer_time(single, routing.latency) == pytest.approx(
        plain_time(routing, demand, routing.latency), rel=1e-5
    )


@pytest.mark.parametrize("case", [*DIMENSION_ORDER, *SHORTEST], ids=str)
def test_hops_are_those_of_shortest_paths(case: Case) -> None:
    routing = routed(case)
    assert routing.hops == pytest.approx(shortest_lengths(routing.topology), rel=1e-12)


@pytest.mark.parametrize("case", [c for c in EVERY if c.policy in (*SINGLE, "d-mod-k")], ids=str)
def test_single_path_policies_do_not_split(case: Case) -> None:
    assert set(np.unique(routed(case).matrix.data)) <= {1.0}


@pytest.mark.parametrize("case", [c for c in SHORTEST if c.policy == "ecmp"], ids=str)
def test_ecmp_splits_equally_over_next_hops_on_shortest_paths(case: Case) -> None:
    routing = routed(case)
    topology = routing.topology
    flow = fractions(routing)
    to = {
        device: nx.single_target_shortest_path_length(topology.graph, device)
        for device in range(topology.num_devices)
    }
    for node in range(topology.num_nodes):
        out = np.flatnonzero(topology.links[:, 0] == node)
        for device in range(topology.num_devices):
            nearer = [to[device][h] < to[device][node] for h in topology.links[out, 1].tolist()]
            share = flow[out[nearer], :, device]
            assert share == pytest.approx(np.broadcast_to(share[:1], share.shape))
