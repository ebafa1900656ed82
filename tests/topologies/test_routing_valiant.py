"""O1TURN, Valiant and UGAL: conservation, agreement with matrices, and loads in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from topomoe.topologies import InputError, Routing, Topology, from_links, make, route
from topomoe.topologies.routing.mixture import MixtureRouting

Array = NDArray[np.float64]


def permutation(target: NDArray[Any], amount: float = 1.0) -> Array:
    """The demand of each device that sends all it has to ``target`` [N]."""
    demand = np.zeros((len(target),) * 2)
    demand[np.arange(len(target)), target] = amount
    np.fill_diagonal(demand, 0)
    return demand


def transpose(size: int) -> Array:
    return permutation(np.arange(size * size).reshape(size, size).T.reshape(-1))


def tornado(size: int) -> Array:
    """On a ring, just under half way round, everyone the same way."""
    return permutation((np.arange(size) + size // 2 - 1) % size)


def most(topology: Topology, policy: str, demand: Array, **options: Any) -> float:
    """The bytes on the busiest link, all links alike."""
    routing = route(topology, policy, **options)
    assert routing.topology is topology
    return float(routing.link_load(demand[None]).max())


def uneven(topology: Topology) -> Topology:
    """The topology with a capacity and a latency of its own for each link."""
    rng = np.random.default_rng(4)
    count = topology.num_links
    return replace(topology, capacity=rng.uniform(1, 3, count), latency=rng.uniform(0, 2, count))


def hosts_on_a_ring(switches: int, hosts: int) -> Topology:
    """A ring of switches with some devices each."""
    devices = switches * hosts
    at = devices + np.arange(switches)
    ring = np.stack([at, np.roll(at, -1)], axis=-1)
    host = np.stack([np.arange(devices), np.repeat(at, hosts)], axis=-1)
    edges = np.concatenate([ring, host])
    links = np.concatenate([edges, edges[:, ::-1]])
    return from_links(links, 1.0, 1.0, devices=devices)


NETWORKS = {
    "torus": lambda: make("torus", grid=(3, 4), bandwidth=1.0),
    "mesh": lambda: make("mesh", grid=(4, 3), bandwidth=1.0),
    "twisted": lambda: make("twisted-torus", grid=(4, 4), bandwidth=1.0),
    "optical": lambda: make("optical", grid=(3, 4), bandwidth=1.0),
    "switches": lambda: hosts_on_a_ring(5, 2),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def over_every_intermediate(routing: Routing) -> Array:
    """Valiant's fractions [L, N, N] from the base's matrix, one intermediate after the other."""
    topology = routing.topology
    devices = topology.num_devices
    base = route(topology).matrix.toarray().reshape(-1, devices, devices)
    total = np.zeros_like(base)
    hangs_on_a_switch = topology.num_nodes > devices and (topology.device_degree == 1).all()
    for u in range(devices):
        for s in range(devices):
            for d in range(devices):
                if s == d:
                    continue
                both = base[:, s, u] + base[:, u, d]
                if hangs_on_a_switch:
                    # Never into u and out again, but out of s and into d.
                    for link, (tail, head) in enumerate(topology.links.tolist()):
                        if tail < devices or head < devices:
                            both[link] = float(tail == s or head == d)
                total[:, s, d] += both / devices
    return total


@every_network
def test_valiant_is_the_mean_over_all_intermediates(name: str) -> None:
    topology = uneven(NETWORKS[name]())
    routing = route(topology, "valiant")
    wanted = over_every_intermediate(routing)
    devices = topology.num_devices
    assert routing.matrix.toarray() == pytest.approx(wanted.reshape(-1, devices**2), abs=1e-12)
    value = np.random.default_rng(6).uniform(1, 2, topology.num_links)
    assert routing.path_sum(value) == pytest.approx(np.tensordot(value, wanted, 1), rel=1e-12)
    largest = np.where(wanted > 1e-15, value[:, None, None], 0.0).max(axis=0)
    assert np.array_equal(routing.path_max(value), largest)
    assert routing.hops == pytest.approx(wanted.sum(axis=0), rel=1e-12)


@every_network
@pytest.mark.parametrize("policy", ["valiant", "ugal"])
def test_loads_and_times_are_those_of_the_matrix(name: str, policy: str) -> None:
    topology = uneven(NETWORKS[name]())
    devices = topology.num_devices
    rng = np.random.default_rng(8)
    demand = rng.exponential(5.0, (4, devices, devices)) * (rng.random((4, devices, devices)) < 0.3)
    options = {"demand": demand[0]} if policy == "ugal" else {}
    routing = route(topology, policy, **options)
    flows = demand * (1 - np.eye(devices))
    load = flows.reshape(4, -1) @ routing.matrix.toarray().T
    assert routing.link_load(demand) == pytest.approx(load, rel=1e-9)
    assert routing.link_load(demand).sum(axis=1) == pytest.approx(
        (flows * routing.hops).sum(axis=(1, 2)), rel=1e-9
    )
    use = load / topology.capacity
    assert routing.transfer_time(demand) == pytest.approx(use.max(axis=1), rel=1e-9)
    worst = [
        np.where(f > 0, routing.path_max(u) + routing.latency, 0).max()
        for f, u in zip(flows, use, strict=True)
    ]
    time = routing.transfer_time(demand, routing.latency)
    assert time == pytest.approx(worst, rel=1e-9)
    single = routing.transfer_time(demand.astype(np.float32), routing.latency)
    assert single == pytest.approx(time, rel=1e-5)
    assert routing.link_load(demand.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("tie", ["balanced", "plus"])
@pytest.mark.parametrize("name", ["torus", "mesh"])
def test_o1turn_is_half_of_each_dimension_order(name: str, tie: str) -> None:
    topology = make(name, grid=(4, 6))
    rows, columns = (
        route(topology, "dimension-order", tie=tie, first=first).matrix
        for first in ("rows", "columns")
    )
    both = route(topology, "o1turn", tie=tie).matrix
    assert abs(both - (rows + columns) / 2).max() < 1e-15


@pytest.mark.parametrize("size", [4, 5, 8])
def test_transposing_a_mesh_loads_a_corner_with_all_its_side_under_one_order_and_half_under_both(
    size: int,
) -> None:
    mesh = make("mesh", grid=(size, size))
    # Rows first, all of row i turn at device (i, i): the others of the last row enter it one way.
    assert most(mesh, "dimension-order", transpose(size)) == size - 1
    assert most(mesh, "o1turn", transpose(size)) == pytest.approx((size - 1) / 2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), wraps=st.booleans())
def test_o1turn_is_never_worse_than_the_worse_order_and_even_on_what_is_its_own_transpose(
    seed: int, wraps: bool
) -> None:
    topology = make("torus" if wraps else "mesh", grid=(4, 4))
    rng = np.random.default_rng(seed)
    demand = rng.exponential(1.0, (16, 16)) * (rng.random((16, 16)) < 0.2)
    orders = [most(topology, "dimension-order", demand, first=f) for f in ("rows", "columns")]
    assert most(topology, "o1turn", demand) <= max(orders) * (1 + 1e-12)
    turned = np.arange(16).reshape(4, 4).T.reshape(-1)
    alike = demand + demand[turned][:, turned]
    one_order = most(topology, "dimension-order", alike)
    assert most(topology, "o1turn", alike) <= one_order * (1 + 1e-12)


@pytest.mark.parametrize("grid", [(4, 4), (5, 3), (8, 1), (4, 6)])
def test_valiant_on_a_torus_doubles_the_load_of_uniform_traffic(grid: tuple[int, int]) -> None:
    torus = make("torus", grid=grid)
    devices = torus.num_devices
    uniform = 1.0 - np.eye(devices)
    minimal = route(torus).link_load(uniform[None])
    # The intermediates are all N devices, the pair's own two included: (N-1)/N of twice.
    doubled = 2 * minimal * (devices - 1) / devices
    assert route(torus, "valiant").link_load(uniform[None]) == pytest.approx(doubled)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_under_valiant_no_permutation_loads_a_link_more_than_uniform_traffic_twice(
    seed: int,
) -> None:
    torus = make("torus", grid=(4, 4))
    demand = permutation(np.random.default_rng(seed).permutation(16))
    uniform = np.full((16, 16), 1 / 16)
    np.fill_diagonal(uniform, 0)
    assert most(torus, "valiant", demand) <= 2 * most(torus, "dimension-order", uniform) + 1e-12


@pytest.mark.parametrize("size", [8, 12, 16])
def test_a_tornado_on_a_ring_loads_one_way_minimally_and_half_of_it_under_valiant(
    size: int,
) -> None:
    ring = make("torus", grid=(size, 1))
    assert most(ring, "dimension-order", tornado(size)) == size // 2 - 1
    # Both phases are uniform traffic, k/8 a link each; ties go even up, odd down.
    assert most(ring, "valiant", tornado(size)) == pytest.approx(size / 4)
    adaptive = route(ring, "ugal", demand=tornado(size))
    assert adaptive.link_load(tornado(size)[None]).max() <= size / 4 + 1e-9


def test_traffic_over_a_switched_intermediate_turns_in_its_switch() -> None:
    topology = hosts_on_a_ring(5, 2)
    demand = permutation(np.roll(np.arange(10), 3), 7.0)
    load = route(topology, "valiant").link_load(demand[None])[0]
    host = (topology.links < 10).any(axis=1)
    assert load[host] == pytest.approx(np.full(20, 7.0))


@every_network
@pytest.mark.parametrize("seed", range(3))
def test_ugal_is_never_busier_than_minimal_or_valiant_and_nearly_the_best_split(
    name: str, seed: int
) -> None:
    topology = uneven(NETWORKS[name]())
    devices = topology.num_devices
    demand = permutation(np.random.default_rng(seed).permutation(devices), 3.0)
    adaptive = route(topology, "ugal", demand=demand)
    minimal, spread = route(topology), route(topology, "valiant")
    time, direct, detour = (
        float(routing.transfer_time(demand[None])[0]) for routing in (adaptive, minimal, spread)
    )
    assert time <= min(direct, detour) * (1 + 1e-12)
    # The best split as a linear program: the share a of each pair on its minimal route.
    pairs = np.flatnonzero(demand)
    per_byte = (demand.reshape(-1)[pairs] / topology.capacity[:, None]).reshape(-1, len(pairs))
    on_minimal = minimal.matrix.toarray()[:, pairs] * per_byte
    on_spread = spread.matrix.toarray()[:, pairs] * per_byte
    best = linprog(
        np.r_[np.zeros(len(pairs)), 1.0],
        A_ub=np.c_[on_minimal - on_spread, -np.ones(topology.num_links)],
        b_ub=-on_spread.sum(axis=1),
        bounds=[*[(0, 1)] * len(pairs), (0, None)],
    ).fun
    assert best * (1 - 1e-9) <= time <= best * 1.03


def test_ugal_takes_minimal_routes_where_traffic_is_uniform() -> None:
    torus = make("torus", grid=(4, 4))
    routing = route(torus, "ugal", demand=np.ones((16, 16)))
    assert isinstance(routing, MixtureRouting)
    assert np.array_equal(routing.parts[0][1], np.ones((16, 16)))


def test_ugal_gives_the_same_split_every_time_and_for_any_unit() -> None:
    torus = make("torus", grid=(4, 4))
    demand = permutation(np.random.default_rng(3).permutation(16))
    shares = []
    for scale in (1.0, 1.0, 2.0**30):
        routing = route(torus, "ugal", demand=demand * scale)
        assert isinstance(routing, MixtureRouting)
        assert np.all((routing.parts[0][1] >= 0) & (routing.parts[0][1] <= 1))
        assert routing.parts[0][1] + routing.parts[1][1] == pytest.approx(np.ones((16, 16)))
        shares.append(routing.parts[0][1])
    assert np.array_equal(shares[0], shares[1])
    assert np.array_equal(shares[0], shares[2])


def test_ugal_leaves_no_share_of_rounding_size() -> None:
    """On this demand the search ends with shares of 1e-22, which would wait for Valiant's links."""
    mesh = make("mesh", grid=(4, 4))
    demand = np.random.default_rng(7).pareto(1.2, (16, 16))
    routing = route(mesh, "ugal", demand=demand)
    assert isinstance(routing, MixtureRouting)
    for _, share in routing.parts:
        assert ((share == 0) | (share >= 1e-9)).all()


def test_ugal_without_any_demand_is_minimal() -> None:
    torus = make("torus", grid=(2, 4))
    routing = route(torus, "ugal", demand=np.zeros((8, 8)))
    assert np.array_equal(routing.hops, route(torus).hops)


def test_a_failed_device_is_no_intermediate() -> None:
    torus = make("torus", grid=(3, 3))
    kept = (torus.links != 4).all(axis=1)
    degraded = replace(
        torus,
        links=torus.links[kept],
        capacity=torus.capacity[kept],
        latency=torus.latency[kept],
        optical=torus.optical[kept],
        default_routing="ecmp",
        parameters={"failed_devices": np.array([4])},
    )
    routing = route(degraded, "valiant")
    alive = np.delete(np.arange(9), 4)
    assert routing.reachable[np.ix_(alive, alive)].all()
    assert not routing.reachable[4, alive].any()
    hops = route(degraded).hops[np.ix_(alive, alive)]
    wanted = hops.mean(axis=1)[:, None] + hops.mean(axis=0)
    np.fill_diagonal(wanted, 0)
    assert routing.hops[np.ix_(alive, alive)] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("topology", "policy", "options", "message"),
    [
        ("leaf-spine", "o1turn", {}, "o1turn needs a mesh or torus topology, got leaf-spine"),
        ("twisted-torus", "o1turn", {}, "o1turn has no path over the twist of torus-twist-2"),
        ("torus", "o1turn", {"tie": "even"}, "unknown tie rule 'even'"),
        ("leaf-spine", "valiant", {}, "valiant on leaf-spine is ecmp"),
        ("fat-tree", "valiant", {}, "valiant on fat-tree is ecmp"),
        ("torus", "valiant", {"base": "emcp"}, "unknown routing 'emcp'; did you mean 'ecmp'"),
        ("torus", "valiant", {"seed": 1}, "unknown option of valiant 'seed'"),
        ("torus", "ugal", {}, "ugal needs demand=, none given"),
        ("torus", "ugal", {"demand": np.ones((4, 4))}, r"ugal: demand must have shape \[16, 16\]"),
        ("torus", "ugal", {"demand": -np.ones((16, 16))}, "demand must be finite and >= 0 bytes"),
        ("torus", "ugal", {"demand": np.full((16, 16), np.nan)}, "demand must be finite"),
        ("torus", "ugal", {"demand": "much"}, "ugal: demand must be numbers, got text"),
        (
            "torus",
            "ugal",
            {"demand": np.ones((16, 16)), "iterations": -1},
            "ugal: iterations must be >= 0, got -1",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    topology: str, policy: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        route(make(topology, grid=(4, 4)), policy, **options)
    assert "\n" not in str(error.value)
