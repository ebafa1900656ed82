"""Maximum concurrent flow: closed forms, its proof, a plain program beside it, and the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import block_diag, csr_array, hstack, vstack

from topomoe.topologies import InputError, Topology, from_links, make
from topomoe.topologies.concurrent_flow import ConcurrentFlow, solve, solver
from topomoe.topologies.concurrent_flow.prices import hop_distances
from topomoe.topologies.concurrent_flow.program import Network
from topomoe.topologies.concurrent_flow.tables import forwarding_tables
from topomoe.topologies.concurrent_flow.trees import fold_trees

CAPACITY = 12.5e9  # 100 Gb/s
BYTES = 65536.0
EXACT = 1e-9

Demand = NDArray[np.float64]


def build(name: str, grid: tuple[int, int], **options: Any) -> Topology:
    return make(name, grid=grid, bandwidth=CAPACITY, latency=0.0, **options)


def uniform(devices: int) -> Demand:
    return BYTES * (1.0 - np.eye(devices))


def zipf(devices: int) -> Demand:
    """The demand of the stored reference runs: one Zipf column order for all sources."""
    weight = np.zeros(devices)
    weight[np.random.default_rng(0).permutation(devices)] = 1.0 / np.arange(1, devices + 1)
    demand = np.tile(weight, (devices, 1))
    np.fill_diagonal(demand, 0.0)
    demand *= (devices - 1) * BYTES / demand.sum(axis=1, keepdims=True)
    return np.round(demand)


def random_demand(devices: int, seed: int, density: float = 0.5) -> Demand:
    rng = np.random.default_rng(seed)
    demand = rng.exponential(BYTES, (devices, devices)) * (rng.random((devices, devices)) < density)
    np.fill_diagonal(demand, 0.0)
    return demand


def random_topology(seed: int) -> Topology:
    """A strongly connected directed graph of devices and switches with capacities of all sizes.

    Some nodes hang on one other, some links have no way back.
    """
    rng = np.random.default_rng(seed)
    core, hosts = int(rng.integers(2, 7)), int(rng.integers(0, 4))
    links = {(v, (v + 1) % core) for v in range(core)}
    links |= {(int(a), int(b)) for a, b in rng.integers(0, core, (2 * core, 2)) if a != b}
    for host in range(core, core + hosts):
        on = int(rng.integers(0, host))
        links |= {(host, on), (on, host)}
    nodes = core + hosts
    name = rng.permutation(nodes)
    listed = [(int(name[a]), int(name[b])) for a, b in sorted(links)]
    capacity = rng.uniform(0.1, 10.0, len(listed)) * CAPACITY
    return from_links(listed, capacity, 0.0, devices=int(rng.integers(2, nodes + 1)))


def plain_optimum(topology: Topology, demand: Demand) -> float:
    """The textbook program: a commodity for every pair, every link, no reduction."""
    links, nodes = topology.num_links, topology.num_nodes
    tail, head = topology.links.T
    incidence = np.zeros((nodes, links))
    incidence[tail, np.arange(links)] += 1
    incidence[head, np.arange(links)] -= 1
    pairs = np.argwhere(demand > 0)
    wanted = np.zeros((len(pairs), nodes))
    for p, (s, d) in enumerate(pairs):
        wanted[p, [s, d]] = demand[s, d], -demand[s, d]
    scale = demand.max()
    balance = hstack([block_diag([csr_array(incidence)] * len(pairs)), csr_array((wanted.size, 1))])
    room = hstack([csr_array(np.eye(links))] * len(pairs))
    room = hstack([room, csr_array(-topology.capacity[:, None] / topology.capacity.max())])
    result = linprog(
        np.eye(balance.shape[1])[-1],
        A_ub=vstack([room]).tocsr(),
        b_ub=np.zeros(links),
        A_eq=balance.tocsr(),
        b_eq=wanted.reshape(-1) / scale,
        method="highs-ds",
    )
    assert result.status == 0
    return float(result.fun * scale / topology.capacity.max())


def assert_proven(topology: Topology, demand: Demand, flow: ConcurrentFlow) -> None:
    """The prices, by another library's shortest paths, prove the time to be the least."""
    assert (flow.price >= 0).all()
    assert flow.price @ topology.capacity == pytest.approx(1.0, rel=EXACT)
    graph = nx.DiGraph()
    for (tail, head), price in zip(topology.links.tolist(), flow.price.tolist(), strict=True):
        graph.add_edge(tail, head, weight=price)
    needed = 0.0
    for source in range(topology.num_devices):
        distance = nx.single_source_dijkstra_path_length(graph, source)
        for destination in np.flatnonzero(demand[source]).tolist():
            if destination != source:
                needed += demand[source, destination] * distance[destination]
    assert flow.bound == pytest.approx(needed, rel=EXACT)
    assert flow.time == pytest.approx(needed, rel=1e-8)


@pytest.mark.parametrize(
    ("name", "demand", "microseconds"),
    [("torus", zipf, 3916.74), ("mesh", zipf, 5222.33), ("twisted-torus", uniform, 891.29)],
)
def test_the_optimum_of_128_devices(name: str, demand: Any, microseconds: float) -> None:
    topology, matrix = build(name, (16, 8)), demand(128)
    flow = solve(topology, matrix)
    assert 1e6 * flow.time == pytest.approx(microseconds, abs=0.005)
    if demand is zipf:  # all links into the device that all others send most to
        exact = matrix.sum(axis=0) / topology.reception
    else:  # every link busy all the time
        exact = (matrix * topology.least_hops).sum() / topology.capacity.sum()
    assert flow.time == pytest.approx(exact.max(), rel=EXACT)
    assert_proven(topology, matrix, flow)


@pytest.mark.parametrize("devices", [2, 4, 6, 8, 16])
def test_uniform_all_to_all_on_a_ring_takes_k_squared_over_8(devices: int) -> None:
    links = {(v, (v + s) % devices) for v in range(devices) for s in (1, -1)}
    ring = from_links(sorted(links), CAPACITY, 0.0, devices=devices)
    # A ring of 2 has one link between neighbours where a larger one has two ways round.
    expected = max(devices**2 / 8, 1.0) * BYTES / CAPACITY
    assert solve(ring, uniform(devices)).time == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize("seed", range(3))
def test_a_leaf_spine_of_full_bisection_is_as_good_as_its_hosts(seed: int) -> None:
    topology, demand = build("leaf-spine", (4, 4)), random_demand(16, seed)
    expected = max(demand.sum(axis=0).max(), demand.sum(axis=1).max()) / CAPACITY
    flow = solve(topology, demand)
    assert flow.time == flow.bound == pytest.approx(expected, rel=EXACT)


def test_an_oversubscribed_leaf_spine_is_as_good_as_its_leaves() -> None:
    topology = build("leaf-spine", (4, 4), spines=3, oversubscription=2.0)
    flow = solve(topology, uniform(16))
    assert flow.time == pytest.approx(4 * 12 * BYTES / (4 * CAPACITY / 2), rel=EXACT)
    assert len(flow.destination) == 4  # hosts fold onto their leaves


def test_two_ways_of_different_capacity_share_by_capacity() -> None:
    links = [(0, 1), (0, 2), (2, 1)]
    topology = from_links([*links, (1, 0)], [1.0, 3.0, 2.0, 1.0], 0.0, devices=2)
    flow = solve(topology, [[0, 6], [0, 0]])
    assert flow.time == pytest.approx(2.0, rel=EXACT)
    loads = flow.load[topology.link_ids(*np.array(links).T)]
    assert loads == pytest.approx([2.0, 4.0, 4.0])


def test_a_tree_needs_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(solver, "solve_program", never)
    star = nx.balanced_tree(2, 3)
    links = [link for a, b in star.edges for link in ((a, b), (b, a))]
    topology, demand = from_links(links, 1.0, 0.0, devices=15), random_demand(15, 0)
    flow = solve(topology, demand)
    cuts = []
    for a, b in star.edges:
        cut = star.copy()
        cut.remove_edge(a, b)
        side = sorted(nx.node_connected_component(cut, a))
        other = np.setdiff1d(np.arange(15), side)
        cuts += [demand[np.ix_(side, other)].sum(), demand[np.ix_(other, side)].sum()]
    assert flow.time == flow.bound == pytest.approx(max(cuts), rel=EXACT)
    assert sorted(flow.load) == pytest.approx(sorted(cuts), rel=EXACT)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31), density=st.sampled_from([0.1, 0.5, 1.0]))
def test_it_is_what_the_plain_program_with_a_commodity_a_pair_finds(
    seed: int, density: float
) -> None:
    topology = random_topology(seed)
    demand = random_demand(topology.num_devices, seed, density)
    flow = solve(topology, demand, cache=False)
    if not demand.any():
        assert flow.time == flow.bound == 0.0
        return
    assert flow.time == pytest.approx(plain_optimum(topology, demand), rel=1e-6)
    assert_proven(topology, demand, flow)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**31))
def test_its_tables_deliver_every_byte_in_its_time(seed: int) -> None:
    topology = random_topology(seed)
    demand = random_demand(topology.num_devices, seed)
    flow = solve(topology, demand, cache=False)
    core, load = fold_trees(topology).fold(demand)
    for k, goal in enumerate(flow.destination):
        entries = slice(flow.ptr[k], flow.ptr[k + 1])
        tail, head = topology.links[flow.link[entries]].T
        # What a node passes on is complete: all entries into it come before all out of it.
        first = {int(node): len(tail) - 1 - place for place, node in enumerate(tail[::-1])}
        for place, node in enumerate(head.tolist()):
            assert place < first.get(node, len(tail))
        left = core[:, goal].copy()
        np.subtract.at(left, tail, flow.flow[entries])
        np.add.at(left, head, flow.flow[entries])
        assert left[goal] == pytest.approx(core[:, goal].sum(), rel=EXACT)
        assert np.delete(left, goal) == pytest.approx(0.0, abs=1e-9 * demand.max())
        np.add.at(load, flow.link[entries], flow.flow[entries])
    assert flow.load == pytest.approx(load, rel=EXACT, abs=1e-9 * demand.max())
    assert flow.time == (flow.load / topology.capacity).max()


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), factor=st.sampled_from([1e-9, 0.5, 2.0, 1e12]))
def test_time_goes_with_demand_and_against_capacity(seed: int, factor: float) -> None:
    topology = random_topology(seed)
    demand = random_demand(topology.num_devices, seed)
    time = solve(topology, demand, cache=False).time
    more = solve(topology, factor * demand, cache=False).time
    wider = replace(topology, capacity=topology.capacity * factor)
    assert more == pytest.approx(factor * time, rel=1e-8)
    assert solve(wider, demand, cache=False).time == pytest.approx(time / factor, rel=1e-8)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_new_numbers_for_devices_change_nothing(seed: int) -> None:
    topology = random_topology(seed)
    demand = random_demand(topology.num_devices, seed)
    new = np.arange(topology.num_nodes)
    new[: topology.num_devices] = np.random.default_rng(seed).permutation(topology.num_devices)
    renamed = from_links(new[topology.links], topology.capacity, 0.0, devices=topology.num_devices)
    moved = np.zeros_like(demand)
    moved[np.ix_(new[: len(demand)], new[: len(demand)])] = demand
    time = solve(topology, demand, cache=False).time
    assert solve(renamed, moved, cache=False).time == pytest.approx(time, rel=1e-8)


@pytest.mark.parametrize("name", ["mesh", "torus", "hypercube", "optical"])
def test_starting_from_shortest_paths_ends_where_all_links_at_once_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology, demand = build(name, (4, 4)), random_demand(16, 5, 0.1)
    few = solve(topology, demand, cache=False)
    tried = []

    def every_link(network: Network, price: NDArray[np.float64]) -> NDArray[np.bool_]:
        tried.append(len(network.links))
        return np.ones((len(network.destination), len(network.links)), dtype=np.bool_)

    monkeypatch.setattr(solver, "priced_links", every_link)
    assert solve(topology, demand, cache=False).time == pytest.approx(few.time, rel=1e-8)
    assert len(tried) == 1


@pytest.mark.parametrize("name", ["torus-3d", "hypercube"])
def test_where_equal_splits_keep_every_link_busy_no_program_runs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solver, "solve_program", lambda *_: pytest.fail("a program"))
    topology = build(name, (4, 4))
    flow = solve(topology, uniform(16), cache=False)
    exact = (uniform(16) * topology.least_hops).sum() / topology.capacity.sum()
    assert flow.time == pytest.approx(exact, rel=EXACT)
    assert_proven(topology, uniform(16), flow)


def test_a_demand_far_smaller_than_the_others_is_delivered_too() -> None:
    """Below the solver's tolerance it gives no way at all: the tables still have one."""
    topology = build("torus", (4, 4))
    demand = random_demand(16, 1)
    demand[3] = 0.0
    demand[3, 9] = 1e-15 * BYTES
    flow = solve(topology, demand)
    into = topology.links[:, 1] == 9
    assert flow.time == pytest.approx(flow.bound, rel=1e-8)
    k = flow.destination.tolist().index(9)
    entries = slice(flow.ptr[k], flow.ptr[k + 1])
    leaving = topology.links[flow.link[entries], 0] == 3
    assert flow.fraction[entries][leaving].sum() == pytest.approx(1.0, rel=EXACT)
    assert flow.load[into].sum() >= demand[:, 9].sum() * (1 - EXACT)


def test_flow_in_a_circle_is_taken_out_and_gaps_take_shortest_paths() -> None:
    #   0 -> 1 -> 2 -> 3 with a circle 1 -> 2 -> 1; node 4 is given no way, 4 -> 0 is its shortest.
    links = np.array([(0, 1), (1, 2), (2, 1), (2, 3), (4, 0), (4, 2), (0, 4)])
    demand = np.array([[1.0, 0, 0, 0, 2.0]])
    network = Network(links, np.ones(7), 5, np.array([3]), demand)
    solved = np.array([[1.0, 6.0, 5.0, 1.0, 0, 0, 0]])
    tables = forwarding_tables(network, hop_distances(network), solved)
    assert tables.load.tolist() == [1.0, 1.0, 0.0, 3.0, 0.0, 2.0, 0.0]
    assert tables.fraction.tolist() == [1.0, 1.0, 1.0, 1.0]
    seen: list[int] = []
    for tail, head in links[tables.link].tolist():
        assert head not in seen
        seen.append(tail)


def test_a_solved_problem_is_read_and_not_solved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPOMOE_CACHE", str(tmp_path / "new"))
    topology, demand = build("torus", (4, 4)), random_demand(16, 3)
    fresh = solve(topology, demand, cache=False)
    assert not (tmp_path / "new").exists()
    first = solve(topology, demand)
    (path,) = (tmp_path / "new").iterdir()

    def same(flow: ConcurrentFlow) -> bool:
        left, right = vars(flow), vars(fresh)
        return left.keys() == right.keys() and all(
            np.asarray(left[k]).tobytes() == np.asarray(right[k]).tobytes() for k in left
        )

    with monkeypatch.context() as patch:
        patch.setattr(solver, "_solve", lambda *_: pytest.fail("solved again"))
        again = solve(replace(topology, name="other", latency=topology.latency + 1), demand)
    assert same(first)
    assert same(again)
    whole = path.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:200] + whole[201:]):
        path.write_bytes(damaged)
        assert same(solve(topology, demand))
        assert same(solve(topology, demand))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_problems_have_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPOMOE_CACHE", str(tmp_path))
    topology, demand = build("torus", (2, 4)), random_demand(8, 3)
    more = demand.copy()
    more[0, 1] = np.nextafter(more[0, 1] + 1, np.inf)
    capacity = topology.capacity.copy()
    capacity[-1] *= 2
    solve(topology, demand)
    solve(topology, more)
    solve(replace(topology, capacity=capacity), demand)
    solve(topology, demand + np.diag(np.ones(8)))  # the diagonal is no flow
    assert len(list(tmp_path.iterdir())) == 3


def test_a_folder_that_cannot_be_written_is_an_error_only_where_it_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    topology, demand = build("torus", (2, 4)), random_demand(8, 3)
    monkeypatch.delenv("TOPOMOE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert solve(topology, demand).time > 0
    monkeypatch.setenv("TOPOMOE_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match="cannot be written"):
        solve(topology, demand)


def test_bad_demand_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = build("torus", (4, 4))
    with pytest.raises(
        InputError, match=r"demand must have shape \[16, 16\] on torus, got \[8, 8\]"
    ):
        solve(topology, uniform(8))
    with pytest.raises(
        InputError, match="demand must be finite and >= 0, device 0 to 1 has -65536"
    ):
        solve(topology, -uniform(16))
    monkeypatch.setattr(solver, "VARIABLES", 1000)
    message = (
        "torus: the optimum needs 16 destinations x 64 links = 1,024 variables, more than 1,000"
    )
    with pytest.raises(InputError, match=message):
        solve(topology, uniform(16), cache=False)


def test_demand_without_a_path_is_refused_and_only_that() -> None:
    topology = Topology(
        "two rings",
        4,
        4,
        np.array([(0, 1), (1, 0), (2, 3), (3, 2)]),
        np.ones(4),
        np.zeros(4),
        np.zeros(4, dtype=np.bool_),
    )
    demand = np.zeros((4, 4))
    demand[[0, 3], [1, 2]] = 1.0, 2.0
    assert solve(topology, demand).time == 2.0
    demand[1, 2] = 1.0
    with pytest.raises(InputError, match="demand from device 1 to device 2 has no path"):
        solve(topology, demand)


def test_no_pair_waits_for_a_way_that_carries_next_to_nothing() -> None:
    demand = np.random.default_rng(31).pareto(1.2, (4, 4)) * 1e5
    np.fill_diagonal(demand, 0.0)
    fabric = make("optical", (2, 2), circuits="torus")
    assert solve(fabric, demand, cache=False).fraction.min() > 1e-10
