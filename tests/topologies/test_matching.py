"""Circuits chosen for a demand: within the ports, and as good as they are said to be."""

from __future__ import annotations

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe.topologies import InputError, choose_circuits, from_links, make, route
from topomoe.topologies.circuits import check_ports
from topomoe.topologies.matching import METHODS
from topomoe.topologies.matching.ring import demand_ring, strongly_connected

every_method = pytest.mark.parametrize("method", METHODS)


def drawn(devices: int, seed: int = 0, share: float = 1.0) -> NDArray[np.float64]:
    """Heavy-tailed demand of ``share`` of the pairs, in whole bytes."""
    rng = np.random.default_rng(seed)
    demand = np.ceil(rng.pareto(1.2, (devices, devices)) * 1e6)
    demand *= rng.random((devices, devices)) < share
    np.fill_diagonal(demand, 0)
    return demand


def carried(demand: NDArray[Any], circuits: NDArray[np.int64]) -> float:
    """Demand of the pairs that have a circuit."""
    return float(demand[tuple(np.unique(circuits, axis=0).T)].sum())


def bottleneck(demand: NDArray[Any], circuits: NDArray[np.int64]) -> float:
    links, copies = np.unique(circuits, axis=0, return_counts=True)
    topology = from_links(links, copies.astype(float), devices=len(demand))
    return float(route(topology, "ecmp").transfer_time(demand[None])[0])


@settings(max_examples=80, deadline=None)
@given(
    devices=st.integers(2, 9),
    degree=st.integers(1, 5),
    method=st.sampled_from(sorted(METHODS)),
    bidirectional=st.booleans(),
    connected=st.booleans(),
    share=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_no_choice_exceeds_the_ports_of_a_device(
    devices: int,
    degree: int,
    method: str,
    bidirectional: bool,
    connected: bool,
    share: float,
    seed: int,
) -> None:
    demand = drawn(devices, seed, share)
    try:
        circuits = choose_circuits(demand, degree, method, bidirectional, connected)
    except InputError as error:
        assert "a ring both ways needs degree >= 2" in str(error)  # noqa: PT017
        assert bidirectional
        assert degree == 1
        return
    check_ports(circuits, devices, degree)
    assert circuits.dtype == np.int64
    assert circuits.tolist() == sorted(circuits.tolist())
    if bidirectional:
        assert circuits.tolist() == sorted(circuits[:, ::-1].tolist())
    if connected or method == "topo-opt":
        assert strongly_connected(circuits, devices)


@every_method
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_same_demand_gives_the_same_circuits(method: str, bidirectional: bool) -> None:
    demand = drawn(16)
    first, second = (choose_circuits(demand, 3, method, bidirectional) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@every_method
@pytest.mark.parametrize("seed", range(3))
def test_a_permutation_gets_one_circuit_a_pair(method: str, seed: int) -> None:
    """A cyclic one, so that it joins all devices too."""
    order = np.random.default_rng(seed).permutation(12)
    demand = np.zeros((12, 12))
    demand[order, np.roll(order, -1)] = np.arange(1, 13)
    circuits = choose_circuits(demand, 1, method)
    assert circuits.tolist() == np.argwhere(demand).tolist()


def best_by_trying_all(demand: NDArray[Any], degree: int, bidirectional: bool) -> float:
    weight = np.triu(demand + demand.T) if bidirectional else demand
    pairs = [(int(a), int(b)) for a, b in np.argwhere(weight > 0)]
    best = 0.0
    for lit in itertools.product([False, True], repeat=len(pairs)):
        chosen = [pair for pair, on in zip(pairs, lit, strict=True) if on]
        out = [a for a, _ in chosen]
        into = [b for _, b in chosen]
        ports = [out + into] if bidirectional else [out, into]
        if all(used.count(n) <= degree for used in ports for n in range(len(demand))):
            best = max(best, sum(weight[pair] for pair in chosen))
    return best


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_b_matching_is_the_best_of_all_choices(degree: int, bidirectional: bool, seed: int) -> None:
    demand = drawn(5 if bidirectional else 4, seed)
    circuits = choose_circuits(demand, degree, "b-matching", bidirectional)
    assert carried(demand, circuits) == best_by_trying_all(demand, degree, bidirectional)


@pytest.mark.parametrize("seed", range(3))
def test_b_matching_of_degree_one_is_networkx_maximum_weight_matching(seed: int) -> None:
    demand = drawn(21, seed)
    directed, undirected = nx.Graph(), nx.Graph()
    for a, b in np.argwhere(demand).tolist():
        directed.add_edge(("out", a), ("in", b), weight=demand[a, b])
        undirected.add_edge(a, b, weight=demand[a, b] + demand[b, a])
    for graph, bidirectional in ((directed, False), (undirected, True)):
        wanted = sum(graph.edges[edge]["weight"] for edge in nx.max_weight_matching(graph))
        circuits = choose_circuits(demand, 1, "b-matching", bidirectional)
        assert carried(demand, circuits) == pytest.approx(wanted, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    devices=st.integers(2, 12),
    degree=st.integers(1, 4),
    bidirectional=st.booleans(),
    seed=st.integers(0, 999),
)
def test_b_matching_carries_no_less_than_the_greedy_and_at_most_twice_as_much(
    devices: int, degree: int, bidirectional: bool, seed: int
) -> None:
    demand = drawn(devices, seed, share=0.7)
    exact, greedy = (
        carried(demand, choose_circuits(demand, degree, method, bidirectional))
        for method in ("b-matching", "mixnet")
    )
    assert greedy * (1 - 1e-9) <= exact <= 2 * greedy * (1 + 1e-9)


def test_pairs_far_below_the_solvers_tolerance_take_the_ports_left_over() -> None:
    demand = np.zeros((4, 4))
    demand[0, 1], demand[2, 3], demand[2, 1] = 1e12, 1e-3, 1e-2
    assert choose_circuits(demand, 1).tolist() == [[0, 1], [2, 3]]


def test_parallel_circuits_count_in_parts() -> None:
    """A second circuit of 10 counts 5: more than a first of 4, less than a first of 6."""
    demand = np.zeros((3, 3))
    demand[0, 1] = 10
    for other, wanted in ((4, [[0, 1], [0, 1]]), (6, [[0, 1], [0, 2]])):
        demand[0, 2] = other
        assert choose_circuits(demand, 2, parallel=True).tolist() == wanted
        assert choose_circuits(demand, 2).tolist() == [[0, 1], [0, 2]]


def test_the_greedy_lights_one_circuit_after_the_other_by_completion_time() -> None:
    """With a base worth one circuit the times are 12, 5 and 2; then 6, 5, 2; then 4, 5, 2."""
    demand = np.array([[0, 12, 5], [0, 0, 2], [0, 0, 0]])
    assert choose_circuits(demand, 3, "mixnet", base=1).tolist() == [
        [0, 1], [0, 1], [0, 2], [1, 2], [1, 2],
    ]  # fmt: skip
    assert choose_circuits(demand, 1, "mixnet").tolist() == [[0, 1], [1, 2]]


def test_the_greedy_as_printed_stops_early_on_dense_demand() -> None:
    demand = drawn(16)
    printed = choose_circuits(demand, 4, "mixnet", as_printed=True)
    skipping = choose_circuits(demand, 4, "mixnet")
    assert len(printed) < len(skipping) == 64
    assert {*map(tuple, printed.tolist())} <= {*map(tuple, skipping.tolist())}


@every_method
@pytest.mark.parametrize("bidirectional", [False, True])
def test_connected_circuits_join_devices_that_the_demand_does_not(
    method: str, bidirectional: bool
) -> None:
    demand = np.kron(np.eye(3), np.ones((4, 4)))  # three groups that never talk to each other
    circuits = choose_circuits(demand, 3, method, bidirectional, connected=True)
    assert strongly_connected(circuits, 12)
    make("optical", grid=(3, 4), circuits=circuits, base=None, degree=3)


@settings(max_examples=40, deadline=None)
@given(devices=st.integers(2, 12), seed=st.integers(0, 999), share=st.sampled_from([0, 0.2, 1]))
def test_the_ring_passes_every_device_once(devices: int, seed: int, share: float) -> None:
    ring = demand_ring(drawn(devices, seed, share))
    graph = nx.DiGraph(ring.tolist())
    assert len(ring) == devices == len(graph)
    assert nx.is_strongly_connected(graph)
    assert all(degree == 1 for _, degree in graph.out_degree)


def test_a_ring_that_carries_all_demand_is_found() -> None:
    order = np.random.default_rng(0).permutation(9)
    demand = np.zeros((9, 9))
    demand[order, np.roll(order, -1)] = 1.0
    assert carried(demand, demand_ring(demand)) == 9.0


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_topo_opt_is_never_slower_than_what_it_starts_from(
    bidirectional: bool, share: float
) -> None:
    demand = drawn(16, 1, share)
    times = [
        bottleneck(demand, choose_circuits(demand, 4, "topo-opt", bidirectional, **effort))
        for effort in ({"rounds": 0, "swaps": 0}, {"swaps": 0}, {"swaps": 40}, {})
    ]
    assert times == sorted(times, reverse=True)
    assert times[-1] < 0.8 * times[0]


def test_topo_opt_gives_a_heavy_pair_parallel_circuits_where_that_is_best() -> None:
    demand = np.ones((4, 4))
    demand[0, 1] = 100
    circuits = choose_circuits(demand, 3, "topo-opt").tolist()
    assert bottleneck(demand, np.array(circuits)) < 100


def test_optical_lights_the_circuits_of_a_demand() -> None:
    demand = drawn(16)
    fabric = make("optical", grid=(4, 4), circuits="b-matching", demand=demand, degree=3)
    np.testing.assert_array_equal(fabric.parameters["circuits"], choose_circuits(demand, 3))
    assert fabric.name == "optical-b-matching"
    alone = make("optical", grid=(4, 4), circuits="mixnet", demand=demand * 0, degree=2, base=None)
    assert strongly_connected(alone.parameters["circuits"], 16)
    both = make(
        "optical", (4, 4), circuits="topo-opt", demand=demand, bidirectional=True, base=None
    )
    np.testing.assert_array_equal(
        both.parameters["circuits"], choose_circuits(demand, 4, "topo-opt", True)
    )


SQUARE = np.ones((4, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"demand": np.ones((3, 4))}, r"demand must be square \[N, N\], got shape \(3, 4\)"),
        ({"demand": np.ones((1, 1))}, "demand must join at least 2 devices"),
        ({"demand": SQUARE * np.nan}, "demand must be finite and >= 0, device 0 to 1 has nan"),
        ({"demand": np.eye(4) - 1}, "demand must be finite and >= 0, device 0 to 1 has -1"),
        ({"demand": [[0, "many"]]}, "demand must be numbers, got text"),
        ({"degree": 0}, "degree must be >= 1, got 0"),
        ({"degree": 1.5}, "degree must be a whole number, got 1.5"),
        ({"method": "bmatching"}, "unknown circuit method 'bmatching'; did you mean 'b-matching'"),
        ({"base": 1}, "unknown option of b-matching 'base'"),
        ({"method": "mixnet", "base": -1}, "mixnet: base must be finite and >= 0, got -1"),
        ({"method": "topo-opt", "rounds": -1}, "topo-opt: rounds must be >= 0, got -1"),
        (
            {"degree": 1, "bidirectional": True, "connected": True},
            "a ring both ways needs degree >= 2, got degree=1",
        ),
    ],
)
def test_bad_choices_are_named_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        choose_circuits(**{"demand": SQUARE, "degree": 2, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"circuits": "b-matching"}, r"circuits=b-matching need demand \[N, N\] in bytes"),
        ({"circuits": "torus", "demand": np.ones((16, 16))}, "got torus circuits"),
        ({"circuits": [(0, 1)], "demand": np.ones((16, 16))}, "got given circuits"),
        ({"circuits": "mixnet", "demand": SQUARE}, r"shape \[16, 16\], got \[4, 4\]"),
    ],
)
def test_a_demand_and_circuits_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make("optical", grid=(4, 4), **options)


def test_a_matching_over_the_port_budget_is_refused() -> None:
    circuits = choose_circuits(drawn(16), degree=3)
    with pytest.raises(InputError, match="at most degree=2 transmit ports a device, device 0"):
        make("optical", grid=(4, 4), circuits=circuits, degree=2)
