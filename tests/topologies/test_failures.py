"""What is left of a topology after failures, and how traffic goes around them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topomoe.network import bottleneck, capacity_bound, node_cut
from topomoe.network.place_cut import places
from topomoe.topologies import (
    Failures,
    InputError,
    bill_of_materials,
    components,
    fail,
    make,
    names,
    route,
    surviving,
)
from topomoe.topologies.failure_scenarios import failure_scenarios
from topomoe.topologies.topology import Topology

GRID = (4, 4)


def small(name: str) -> Topology:
    options = {"node_size": 4} if name == "rails" else {}
    return make(name, GRID, **options)


def uniform(devices: np.ndarray, count: int = 16) -> np.ndarray:
    demand = np.zeros((count, count))
    demand[np.ix_(devices, devices)] = 65536.0
    return demand * (1.0 - np.eye(count))


def test_a_cable_names_both_directions_and_an_arrow_one() -> None:
    torus = small("torus")
    both = fail(torus, Failures(links=("0-1",)))
    one = fail(torus, Failures(links=("0>1",)))
    assert torus.num_links - both.num_links == 2
    assert torus.num_links - one.num_links == 1
    assert both.link_ids([0, 1], [1, 0]).tolist() == [-1, -1]
    assert one.link_ids([0], [1])[0] == -1
    assert one.link_ids([1], [0])[0] >= 0
    assert both.parameters["failed_links"].tolist() == [[0, 1], [1, 0]]
    assert (both.capacity == torus.capacity[0]).all()


def test_no_failure_is_the_topology_itself() -> None:
    torus = small("torus")
    assert fail(torus, Failures()) is torus


def test_a_ring_with_a_cut_cable_sends_all_of_its_traffic_the_other_way() -> None:
    """On a line of four the middle link carries 2 x 2 pairs, on the ring no link more than 2."""
    ring = make("torus", (4, 1), bandwidth=1.0, latency=0.0)
    line = fail(ring, Failures(links=("0-3",)))
    demand = 1.0 - np.eye(4)
    assert bottleneck(ring, route(ring), demand) == pytest.approx(2.0)
    assert bottleneck(line, route(line), demand) == pytest.approx(4.0)
    assert route(line).hops[0, 3] == 3


def test_traffic_between_leaves_goes_around_a_dead_spine() -> None:
    fabric = make("leaf-spine", GRID, bandwidth=1.0, latency=0.0)
    broken = fail(fabric, Failures(switches=(20,)))
    demand = uniform(np.arange(16))
    assert broken.num_links == fabric.num_links - 8
    # 4 x 12 messages leave a leaf over 3 spines instead of 4.
    assert bottleneck(broken, route(broken), demand) == pytest.approx(48 / 3 * 65536)
    assert bottleneck(fabric, route(fabric), demand) == pytest.approx(15 * 65536)


def test_half_the_leaf_spine_links_of_a_leaf_halve_what_leaves_it() -> None:
    fabric = make("leaf-spine", GRID, bandwidth=1.0, latency=0.0)
    broken = fail(fabric, Failures(links=("16-20", "16-21")))
    load = route(broken).link_load(uniform(np.arange(16))[None])[0]
    out = broken.link_ids(np.full(2, 16), np.array([22, 23]))
    assert load[out] == pytest.approx(np.full(2, 48 * 65536 / 2))
    assert np.isin(broken.links[load > 0], [20, 21]).any()  # other leaves still use them


@pytest.mark.parametrize("name", ["torus", "leaf-spine", "fat-tree", "optical", "rails", "mesh"])
def test_a_failed_device_is_an_isolated_node_that_no_traffic_touches(name: str) -> None:
    broken = fail(small(name), Failures(devices=(5,)))
    assert broken.num_devices == 16
    assert not (broken.links == 5).any()
    assert broken.parameters["failed_devices"] == (5,)
    alive = surviving(broken)
    assert alive.tolist() == [d for d in range(16) if d != 5]
    demand = uniform(alive)
    time = bottleneck(broken, route(broken), demand)
    assert np.isfinite(time)
    assert time >= node_cut(broken, demand)
    assert time >= capacity_bound(broken, demand)
    with pytest.raises(InputError, match="device 5"):
        bottleneck(broken, route(broken), uniform(np.arange(16)))


@pytest.mark.parametrize("name", ["torus", "mesh", "leaf-spine", "fat-tree"])
def test_routings_that_need_the_whole_shape_refuse_what_is_left(name: str) -> None:
    whole = small(name)
    broken = fail(whole, Failures(random_links=1, failure_seed=3), allow_partition=True)
    assert broken.default_routing == "ecmp"
    with pytest.raises(InputError, match=f"{name}-degraded"):
        route(broken, "d-mod-k" if whole.default_routing == "ecmp" else "dimension-order")


def test_ecmp_on_a_tree_is_by_path_once_a_link_is_gone() -> None:
    """The group sums would count on the missing link."""
    fabric = small("leaf-spine")
    broken = fail(fabric, Failures(links=("16-20",)))
    routing = route(broken)
    demand = uniform(np.arange(16))[None]
    by_matrix = routing.matrix @ demand.reshape(-1)
    assert routing.link_load(demand)[0] == pytest.approx(by_matrix)
    assert routing.matrix.shape[0] == fabric.num_links - 2


def test_a_dark_circuit_leaves_the_base_beside_it_lit() -> None:
    """A circuit beside a mesh link is one link of both capacities."""
    fabric = make("optical", GRID, bandwidth=3.0, base_bandwidth=1.0, circuits="torus", base="mesh")
    broken = fail(fabric, Failures(circuits=("0>1", "0>3")))
    assert broken.capacity[broken.link_ids([0], [1])[0]] == 1.0
    assert not broken.optical[broken.link_ids([0], [1])[0]]
    assert broken.capacity[broken.link_ids([1], [0])[0]] == 4.0
    assert broken.link_ids([0], [3])[0] == -1  # a wrap: no mesh link beside it
    assert broken.parameters["failed_circuits"].tolist() == [[0, 1], [0, 3]]
    assert len(broken.parameters["circuits"]) == len(fabric.parameters["circuits"]) - 2
    assert route(broken).name == "hybrid"


def test_of_two_circuits_between_the_same_devices_one_may_fail() -> None:
    fabric = make("optical", (1, 2), bandwidth=1.0, circuits=[(0, 1), (0, 1)], base="torus")
    once = fail(fabric, Failures(circuits=("0>1",)))
    twice = fail(fabric, Failures(circuits=("0>1", "0>1")))
    capacity = [t.capacity[t.link_ids([0], [1])[0]] for t in (fabric, once, twice)]
    assert capacity == [3.0, 2.0, 1.0]


def test_devices_cut_off_from_the_base_are_reached_over_their_circuits() -> None:
    fabric = small("optical")
    broken = fail(fabric, Failures(links=("3-16",)))
    assert broken.parameters["base"].num_links == fabric.parameters["base"].num_links - 2
    routing = route(broken)
    assert routing.name == "hybrid"
    assert routing.reachable.all()
    demand = uniform(np.arange(16))[None]
    assert routing.link_load(demand)[0] == pytest.approx(routing.matrix @ demand.reshape(-1))


def test_an_optical_fabric_without_a_base_or_without_circuits_falls_back_to_ecmp() -> None:
    fabric = small("optical")
    no_base = fail(fabric, Failures(switches=tuple(range(16, 24))))
    assert no_base.parameters["base"] is None
    assert no_base.optical.all()
    assert route(no_base).name == "ecmp"
    no_circuits = fail(fabric, Failures(random_circuits=len(fabric.parameters["circuits"])))
    assert not no_circuits.optical.any()
    assert route(no_circuits).name == "ecmp"
    demand = uniform(np.arange(16))
    base = fabric.parameters["base"]
    assert bottleneck(no_circuits, route(no_circuits), demand) == pytest.approx(
        bottleneck(base, route(base), demand)
    )


def test_a_partition_names_a_pair_and_the_parts() -> None:
    ring = make("torus", (6, 1))
    cut = Failures(links=("0-1", "3-4"))
    with pytest.raises(InputError, match=r"no path from device 0 to device 1 \(18 such pairs\)"):
        fail(ring, cut)
    with pytest.raises(InputError, match="2 parts of 3, 3 devices"):
        fail(ring, cut)
    left = fail(ring, cut, allow_partition=True)
    assert [part.tolist() for part in components(left)] == [[0, 4, 5], [1, 2, 3]]


def test_a_one_way_cut_is_a_partition_too() -> None:
    line = make("mesh", (3, 1))
    left = fail(line, Failures(links=("1>2",)), allow_partition=True)
    assert [part.tolist() for part in components(left)] == [[0, 1], [2]]


def test_failures_one_after_another_are_those_at_once() -> None:
    torus = small("torus")
    after = fail(fail(torus, Failures(devices=(5,))), Failures(links=("0-1",), devices=(9,)))
    once = fail(torus, Failures(devices=(5, 9), links=("0-1",)))
    assert np.array_equal(after.links, once.links)
    assert after.parameters["failed_devices"] == once.parameters["failed_devices"] == (5, 9)
    assert after.name == once.name == "torus-degraded"
    assert after.parameters["of"] == "torus"


@given(
    name=st.sampled_from([n for n in names() if n in ("torus", "mesh", "optical", "leaf-spine")]),
    fewer=st.integers(0, 3),
    more=st.integers(0, 3),
    seed=st.integers(0, 50),
)
def test_more_random_failures_hold_the_fewer_ones(
    name: str, fewer: int, more: int, seed: int
) -> None:
    whole = small(name)

    def left(count: int) -> Topology:
        chosen = Failures(random_links=count, random_devices=count // 2, failure_seed=seed)
        return fail(whole, chosen, allow_partition=True)

    first, second = left(fewer), left(fewer + more)
    kept = {(a, b) for a, b in second.links.tolist()}
    assert kept <= {(a, b) for a, b in first.links.tolist()}
    assert np.array_equal(left(fewer).links, first.links)
    assert set(surviving(second)) <= set(surviving(first))


@given(seed=st.integers(0, 200), count=st.integers(1, 12))
def test_what_is_left_is_never_faster_under_the_node_cut(seed: int, count: int) -> None:
    whole = small("torus")
    broken = fail(whole, Failures(random_links=count, failure_seed=seed), allow_partition=True)
    demand = uniform(np.arange(16))
    assert broken.num_links == whole.num_links - 2 * count
    assert node_cut(broken, demand) >= node_cut(whole, demand)
    assert capacity_bound(broken, demand) >= capacity_bound(whole, demand)


@pytest.mark.parametrize("name", ["dragonfly", "hamming-mesh", "rails"])
def test_what_is_left_lies_where_it_lay(name: str) -> None:
    whole = small(name)
    broken = fail(fail(whole, Failures(devices=(5,))), Failures(devices=(6,)))
    before, after = places(whole), places(broken)
    assert before is not None
    assert after is not None
    assert np.array_equal(before.label, after.label)
    assert (after.leaving <= before.leaving).all()
    # A cable inside a place does not become two transceivers and a fibre because another one broke.
    left, had = (
        {row.item: row.count for row in bill_of_materials(t).rows} for t in (broken, whole)
    )
    assert all(count <= had.get(item, 0.0) for item, count in left.items())


@pytest.mark.parametrize(
    ("failures", "message"),
    [
        (Failures(links=("0-5",)), "links: torus has no link 0-5"),
        (Failures(links=("0-99",)), "links: torus has no link 0-99"),
        (Failures(switches=(3,)), "switches of torus are none: it has no switches, got 3"),
        (Failures(devices=(16,)), "devices of torus are 0..15, got 16"),
        (Failures(circuits=("0>1",)), "circuits: torus has no circuit 0>1"),
        (Failures(random_links=33), "random_links must be <= 32 on torus, got 33"),
        (Failures(random_devices=15), "at least 2 devices must survive, 1 do"),
        (Failures(random_links=32), "no link survives"),
    ],
)
def test_what_the_topology_does_not_have_is_one_clear_line(
    failures: Failures, message: str
) -> None:
    with pytest.raises(InputError) as error:
        fail(small("torus"), failures)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("links", ("3",), "links must name two nodes such as 3-17 or 3>17, got '3'"),
        ("circuits", ("a>b",), "circuits must name two nodes"),
        ("devices", (-1,), "devices must be >= 0"),
        ("devices", 5, "devices must be a tuple of parts, got 5"),
        ("links", "0-1", "links must be a tuple of parts, got '0-1'"),
        ("random_links", -1, "random_links must be >= 0, got -1"),
        ("failure_seed", -1, "failure_seed must be >= 0"),
    ],
)
def test_failures_check_their_fields(field: str, value: object, message: str) -> None:
    with pytest.raises(InputError, match="^" + message.split(",")[0]):
        Failures(**{field: value})  # type: ignore[arg-type]


def test_a_sweep_of_texts_is_scenarios_with_draws() -> None:
    found = failure_scenarios(["links:1", "4", "device:5+switches:1", "link:0-1"], draws=3, seed=7)
    assert [s.name for s in found] == [
        *["links:1"] * 3,
        *["links:4"] * 3,
        *["device:5+switches:1"] * 3,
        "link:0-1",
    ]
    assert [s.failures.failure_seed for s in found[:3]] == [7, 8, 9]
    assert found[6].failures == Failures(devices=(5,), random_switches=1, failure_seed=7)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["link:1", "2"], "links|two nodes"),
        (["3"], "needs a kind before it"),
        (["cables:1"], "unknown failure 'cables'"),
        (["links:x"], "whole number"),
        (["links"], "kind:value"),
        (["links:1", "1"], "twice"),
        (["links:1+links:2"], "twice"),
    ],
)
def test_other_texts_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        failure_scenarios(texts)
