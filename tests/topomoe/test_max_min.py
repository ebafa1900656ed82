"""Max-min completion times: a plain restatement, closed forms, orderings, bytes conserved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe.network import bottleneck, completion_times, max_min, node_cut
from topomoe.topologies import InputError, Routing, from_links, make, route

CAPACITY = 12.5e9  # 100 Gb/s
BYTES = 65536.0
Flows = dict[str, Any]


def fair_rates(capacity: Any, paths: list[dict[int, float]], active: list[int]) -> dict[int, float]:
    """Textbook progressive filling: raise all rates together until a link is full; fix; repeat."""
    left = list(capacity)
    rate: dict[int, float] = {}
    while len(rate) < len(active):
        use = [sum(paths[f].get(i, 0.0) for f in active if f not in rate) for i in range(len(left))]
        level, link = min((left[i] / use[i], i) for i in range(len(left)) if use[i] > 1e-12)
        for f in active:
            if f not in rate and paths[f].get(link, 0.0) > 0:
                rate[f] = level
                for i, part in paths[f].items():
                    left[i] -= level * part
    return rate


def slow_times(
    capacity: Any, ptr: Any, links: Any, sizes: Any, start: Any, fraction: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Completion times from one event to the next, and the bytes that each link has carried."""
    paths: list[dict[int, float]] = []
    for f in range(len(sizes)):
        path: dict[int, float] = {}
        for entry in range(ptr[f], ptr[f + 1]):
            path[links[entry]] = path.get(links[entry], 0.0) + fraction[entry]
        paths.append({i: part for i, part in path.items() if part > 0})
    remaining = np.array([s if paths[f] else 0.0 for f, s in enumerate(sizes)], dtype=float)
    begin = np.broadcast_to(np.asarray(start, dtype=float), remaining.shape)
    fct, carried, clock = begin.copy(), np.zeros(len(capacity)), 0.0
    while (remaining > 0).any():
        active = [f for f in np.flatnonzero(remaining > 0) if begin[f] <= clock]
        later = begin[(remaining > 0) & (begin > clock)]
        rate = fair_rates(capacity, paths, active)
        step = min([remaining[f] / rate[f] for f in active] + [np.inf])
        step = min(step, later.min(initial=np.inf) - clock)
        for f in active:
            remaining[f] -= rate[f] * step
            for i, part in paths[f].items():
                carried[i] += rate[f] * part * step
            if remaining[f] <= 1e-9 * sizes[f]:
                remaining[f], fct[f] = 0.0, clock + step
        clock = later.min() if len(later) and clock + step >= later.min() else clock + step
    return fct, carried


@st.composite
def networks_of_flows(draw: st.DrawFn) -> Flows:
    """A few flows over a few links: repeated paths, sizes, links, starts and empty paths too."""
    links = draw(st.integers(1, 6))
    flows = draw(st.integers(1, 10))
    few = st.sampled_from([1.0, 2.0, 3.0])
    path = st.lists(st.integers(0, links - 1), max_size=4)
    paths = draw(st.lists(path, min_size=flows, max_size=flows))
    entries = sum(map(len, paths))
    part = st.sampled_from([0.0, 0.125, 1 / 3, 0.7, 1.0])

    def some(number: st.SearchStrategy[float], count: int) -> list[float]:
        return draw(st.lists(number, min_size=count, max_size=count))

    return {
        "capacity": some(few | st.floats(0.5, 8), links),
        "ptr": np.cumsum([0, *map(len, paths)]),
        "links": np.array([i for path in paths for i in path], dtype=np.int64),
        "sizes": some(st.just(0.0) | few | st.floats(0.01, 9), flows),
        "start": some(st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 4), flows),
        "fraction": some(part | st.floats(0.05, 1), entries),
    }


@settings(max_examples=300)
@given(networks_of_flows())
def test_times_are_those_of_a_plain_restatement(flows: Flows) -> None:
    expected, _ = slow_times(**flows)
    assert completion_times(**flows) == pytest.approx(expected, rel=1e-8)


@settings(max_examples=100)
@given(networks_of_flows(), st.randoms(use_true_random=False))
def test_the_order_of_flows_and_of_links_does_not_matter(flows: Flows, random: Any) -> None:
    ptr, count = flows["ptr"], len(flows["sizes"])
    order = random.sample(range(count), count)
    relabel = np.array(random.sample(range(len(flows["capacity"])), len(flows["capacity"])))
    entry = [e for f in order for e in range(ptr[f], ptr[f + 1])]
    capacity = np.empty(len(relabel))
    capacity[relabel] = flows["capacity"]
    moved = {
        "capacity": capacity,
        "ptr": np.cumsum([0, *(ptr[f + 1] - ptr[f] for f in order)]),
        "links": relabel[flows["links"][entry]],
        "sizes": np.array(flows["sizes"])[order],
        "start": np.array(flows["start"])[order],
        "fraction": np.array(flows["fraction"])[entry],
    }
    assert completion_times(**moved) == pytest.approx(completion_times(**flows)[order], rel=1e-9)


@settings(max_examples=100)
@given(networks_of_flows())
def test_half_the_capacity_takes_twice_as_long(flows: Flows) -> None:
    slower = flows | {
        "capacity": np.array(flows["capacity"]) / 2,
        "start": np.array(flows["start"]) * 2,
    }
    assert completion_times(**slower) == pytest.approx(2 * completion_times(**flows), rel=1e-9)


@settings(max_examples=100)
@given(networks_of_flows())
def test_no_link_carries_more_than_its_capacity_over_any_prefix_of_time(flows: Flows) -> None:
    """Bytes due by a time, of flows that are done by then, fit through the link by then."""
    fct = completion_times(**flows)
    owner = np.repeat(np.arange(len(fct)), np.diff(flows["ptr"]))
    sent = np.array(flows["sizes"])[owner] * flows["fraction"]
    for link, rate in enumerate(flows["capacity"]):
        on_link = flows["links"] == link
        for time in fct:
            due = sent[on_link & (fct[owner] <= time)].sum()
            assert due <= rate * time * (1 + 1e-9)


@settings(max_examples=30)
@given(networks_of_flows())
def test_bytes_delivered_are_rates_integrated(flows: Flows) -> None:
    _, carried = slow_times(**flows)
    owner = np.repeat(np.arange(len(flows["sizes"])), np.diff(flows["ptr"]))
    sent = np.array(flows["sizes"])[owner] * flows["fraction"]
    assert carried == pytest.approx(
        np.bincount(flows["links"], weights=sent, minlength=len(carried)), rel=1e-6, abs=1e-9
    )


# Closed forms.


def test_two_flows_share_a_link_until_the_smaller_is_done() -> None:
    assert completion_times([1.0], [0, 1, 2], [0, 0], [3.0, 4.0]).tolist() == [6.0, 7.0]


def test_a_later_flow_takes_half_of_the_link_from_its_start() -> None:
    fct = completion_times([2.0], [0, 1, 2], [0, 0], [4.0, 1.0], start=[0.0, 1.0])
    assert fct.tolist() == [2.5, 2.0]


def test_a_flow_without_bytes_or_links_is_done_when_it_starts() -> None:
    fct = completion_times([1.0], [0, 1, 1, 2], [0, 0], [0.0, 5.0, 2.0], start=[3.0, 4.0, 0.0])
    assert fct.tolist() == [3.0, 4.0, 2.0]
    assert completion_times([1.0], [0], [], []).shape == (0,)
    assert completion_times([], [0, 0], [], [1.0]).tolist() == [0.0]


def test_a_split_flow_takes_its_fraction_of_each_link() -> None:
    paths = {"ptr": [0, 2, 3], "links": [0, 1, 0], "sizes": [8.0, 2.0]}
    fct = completion_times([3.0, 1.0], **paths, fraction=[0.5, 0.5, 1.0])
    # Both rise to 2 on link 0 (0.5 r + r = 3), which fills link 1 just as well.
    assert fct == pytest.approx([4.0, 1.0])


def test_max_min_is_longer_than_the_bound_on_the_counterexample() -> None:
    """One link of 10 ms of bytes, yet fair shares finish after 14 ms (hence no bound is max-min).

    A and B send 62.5 MB over links 1 and 0, and 2 and 0; nine short flows on link 1 and on link 2
    hold them back to a tenth, so that link 0 is four fifths idle for 5 ms.
    """
    ptr = np.concatenate([[0, 2], np.arange(4, 23)])
    links = [1, 0, 2, 0] + [1] * 9 + [2] * 9
    sizes = np.array([62.5e6, 62.5e6] + [6.25e6] * 18)
    fct = completion_times([CAPACITY] * 3, ptr, links, sizes)
    assert fct == pytest.approx([0.014, 0.014] + [0.005] * 18, rel=1e-12)
    load = np.bincount(links, weights=np.repeat(sizes, np.diff(ptr)))
    assert load.max() / CAPACITY == pytest.approx(0.010)


# The fast mode.


def random_traffic(seed: int, staggered: bool) -> Flows:
    rng = np.random.default_rng(seed)
    topology = make("torus", grid=(4, 4), bandwidth=CAPACITY, latency=0.0)
    pair = rng.integers(0, 16 * 16, 400)
    path = route(topology, "dimension-order").matrix.T.tocsr()[pair]
    return {
        "capacity": topology.capacity,
        "ptr": path.indptr,
        "links": path.indices,
        "sizes": BYTES * rng.lognormal(0, 1.5, len(pair)),
        "start": rng.exponential(BYTES / CAPACITY, len(pair)) if staggered else 0.0,
    }


@pytest.mark.parametrize("rtol", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("staggered", [False, True])
def test_fast_times_are_within_rtol_of_the_exact_ones(rtol: float, staggered: bool) -> None:
    for seed in range(10):
        flows = random_traffic(seed, staggered)
        exact, fast = completion_times(**flows), completion_times(**flows, rtol=rtol)
        assert fast == pytest.approx(exact, rel=rtol)
        assert fast.max() == pytest.approx(exact.max(), rel=rtol / 2)
        assert (fast >= flows["start"]).all()


def test_fast_mode_leaves_no_bandwidth_idle() -> None:
    """Nearly equal flows on one link: gaps until each window's end would add up to 0.65 rtol."""
    sizes = BYTES * (1 + 0.5 * np.arange(2000) / 2000)
    fct = completion_times([CAPACITY], np.arange(2001), np.zeros(2000), sizes, rtol=1e-2)
    assert fct.max() == pytest.approx(sizes.sum() / CAPACITY, rel=2e-3)


def test_fast_mode_does_not_end_a_flow_at_a_rate_that_it_has_for_a_moment_only() -> None:
    """While one byte crosses Y, the first flow is held back there and leaves X to the third."""
    flows: dict[str, Any] = {
        "capacity": [0.75e9, 1e9],  # X, Y
        "ptr": [0, 2, 3, 4],
        "links": [0, 1, 1, 0],
        "fraction": [1.0, 1.0, 1.0, 1e-4],
        "sizes": [1e12, 1.0, 1e8],
        "start": [0.0, 1.0, 1.0],
    }
    exact, fast = completion_times(**flows), completion_times(**flows, rtol=1e-3)
    assert exact[2] == pytest.approx(1.0 + 1e8 * 1.0001 / 0.75e9, rel=1e-5)
    assert fast == pytest.approx(exact, rel=1e-3)


# On topologies.

NETWORKS: dict[str, tuple[str, str]] = {
    "torus": ("torus", "dimension-order"),
    "mesh": ("mesh", "dimension-order"),
    "leaf-spine": ("leaf-spine", "ecmp"),
    "d-mod-k": ("leaf-spine", "d-mod-k"),
    "fat-tree": ("fat-tree", "ecmp"),
    "twisted": ("twisted-torus", "ecmp"),
}
every_network = pytest.mark.parametrize("network", NETWORKS)


def build(network: str, latency: float = 0.0) -> tuple[Any, Routing]:
    name, policy = NETWORKS[network]
    topology = make(name, grid=(4, 4), bandwidth=CAPACITY, latency=latency)
    return topology, route(topology, policy)


def random_demand(devices: int, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return rng.exponential(BYTES, (devices, devices)) * (rng.random((devices, devices)) < 0.7)


@every_network
def test_node_cut_bottleneck_and_makespan_are_in_order(network: str) -> None:
    topology, routing = build(network)
    for seed in range(5):
        demand = random_demand(topology.num_devices, seed)
        makespan = max_min(topology, routing, demand).makespan
        bound = bottleneck(topology, routing, demand)
        assert node_cut(topology, demand) <= bound * (1 + 1e-12)
        assert bound <= makespan * (1 + 1e-12)


@every_network
def test_each_flow_starts_at_its_latency_and_its_packets_delay(network: str) -> None:
    """A lone flow takes its bytes over its slowest share of a link, after path and packets."""
    topology, routing = build(network, latency=1e-6)
    demand = np.zeros((16, 16))
    demand[2, 13] = BYTES
    transfer = bottleneck(topology, routing, demand) - routing.latency[2, 13]
    result = max_min(topology, routing, demand)
    assert result.fct == pytest.approx([routing.latency[2, 13] + transfer], rel=1e-12)
    delayed = max_min(topology, routing, demand, mtu=4096).makespan
    assert delayed == pytest.approx(
        result.makespan + routing.store_and_forward(4096.0)[2, 13], rel=1e-12
    )


@every_network
@pytest.mark.parametrize("staggered", [False, True])
def test_times_on_networks_are_those_of_a_plain_restatement(network: str, staggered: bool) -> None:
    """Split flows, many levels and repeated pairs: 50 flows at a time."""
    topology, routing = build(network)
    rng = np.random.default_rng(1)
    pair = rng.choice(np.flatnonzero(1 - np.eye(16)), 50)
    path = routing.matrix.T.tocsr()[pair]
    flows = {
        "capacity": topology.capacity * rng.choice([1.0, 0.5], topology.num_links),
        "ptr": path.indptr,
        "links": path.indices,
        "sizes": BYTES * rng.lognormal(0, 1, len(pair)),
        "start": rng.exponential(BYTES / CAPACITY, len(pair)) if staggered else 0.0,
        "fraction": path.data,
    }
    assert completion_times(**flows) == pytest.approx(slow_times(**flows)[0], rel=1e-9)


def test_flows_come_in_the_order_of_the_demand_without_its_diagonal() -> None:
    topology, routing = build("torus")
    demand = random_demand(16)
    result = max_min(topology, routing, demand)
    off_diagonal = demand * (1 - np.eye(16))
    assert np.array_equal([result.source, result.destination], np.nonzero(off_diagonal))
    assert result.makespan == result.fct.max()
    assert max_min(topology, routing, np.zeros((16, 16))).makespan == 0.0


def test_uniform_traffic_on_a_torus_ends_together_at_the_bound() -> None:
    topology = make("torus", grid=(16, 8), bandwidth=CAPACITY, latency=0.0)
    demand = BYTES * (1 - np.eye(128))
    result = max_min(topology, route(topology, "dimension-order"), demand)
    assert result.makespan == pytest.approx(256 * BYTES / CAPACITY, rel=1e-12)


# Bad input.

GOOD: Flows = {"capacity": [1.0, 2.0], "ptr": [0, 1, 3], "links": [0, 0, 1], "sizes": [1.0, 1.0]}
BAD = {
    "capacity must be finite and > 0 bytes/s, link 1 has 0": {"capacity": [1.0, 0.0]},
    "capacity must be finite and > 0 bytes/s, link 0 has nan": {"capacity": [np.nan, 1.0]},
    "sizes must be finite and >= 0 bytes, flow 1 has -1": {"sizes": [1.0, -1.0]},
    "sizes must be finite and >= 0 bytes, flow 0 has nan": {"sizes": [np.nan, 1.0]},
    "start must be finite and >= 0 seconds, flow 0 has -2": {"start": [-2.0, 0.0]},
    "start must be a number or have one entry a flow (2), got shape [3]": {"start": [0.0] * 3},
    "link ids must be in 0..1, entry 2 is 2": {"links": [0, 0, 2]},
    "link ids must be in 0..1, entry 0 is -1": {"links": [-1, 0, 1]},
    "ptr must have one entry more than there are sizes (3), got shape [2]": {"ptr": [0, 3]},
    "ptr must start at 0 and end at the number of link ids (3), runs from 0 to 2": {
        "ptr": [0, 1, 2]
    },
    "ptr must not decrease, does after flow 1": {"ptr": [0, 4, 3]},
    "links must be whole numbers": {"links": [0, 0.5, 1]},
    "fraction must have one entry a link id (3), got 2": {"fraction": [1.0, 1.0]},
    "fraction must be finite and >= 0 of the flow, link id 1 has -1": {
        "fraction": [1.0, -1.0, 1.0]
    },
    "rtol must be >= 0 and < 1, got -0.5": {"rtol": -0.5},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_flows_are_refused_in_one_line(message: str) -> None:
    with pytest.raises(InputError) as raised:
        completion_times(**GOOD | BAD[message])
    assert str(raised.value) == message


def test_demand_without_a_path_is_refused() -> None:
    topology = from_links([(0, 1), (1, 0), (1, 2), (2, 1)], CAPACITY, 0.0, devices=3)
    routing = Routing.from_paths(topology, [0, 1], [0])
    demand = np.zeros((3, 3))
    demand[0, 1] = BYTES
    assert max_min(topology, routing, demand).makespan == pytest.approx(BYTES / CAPACITY)
    demand[1, 2] = BYTES
    with pytest.raises(InputError, match="demand from device 1 to device 2 has no path"):
        max_min(topology, routing, demand)


def test_another_topology_and_a_batch_are_refused() -> None:
    topology, routing = build("torus")
    with pytest.raises(InputError, match="routing is over another topology"):
        max_min(build("mesh")[0], routing, random_demand(16))
    with pytest.raises(InputError, match="one demand"):
        max_min(topology, routing, np.zeros((2, 16, 16)))
    with pytest.raises(InputError, match="demand must be finite and >= 0"):
        max_min(topology, routing, -random_demand(16))
