"""Rails: scale-up links inside a node, a NIC a device outside, and traffic that changes rail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.topologies import InputError, Topology, budget, make, policies, route

NIC = 50e9
NVLINK = 450e9


def rails(grid: tuple[int, int] = (4, 8), **options: object) -> Topology:
    return make("rails", grid, NIC, "1us", **options)


def all_to_all(devices: int, size: float = 1.0) -> np.ndarray:
    return np.where(np.eye(devices, dtype=bool), 0.0, size)


def nodes_on_path(topology: Topology, source: int, destination: int) -> list[int]:
    """The nodes that a pair's single path visits, in order."""
    column = route(topology).matrix[:, [source * topology.num_devices + destination]]
    following = dict(topology.links[column.nonzero()[0]].tolist())
    path = [source]
    while path[-1] != destination:
        path.append(following[path[-1]])
    return path


# The graph.


@pytest.mark.parametrize(
    ("grid", "size", "spines"), [((4, 8), 8, None), ((4, 4), 2, 3), ((3, 4), 4, 0), ((1, 8), 8, 1)]
)
def test_every_device_has_a_link_in_its_node_and_a_nic_to_its_rail(
    grid: tuple[int, int], size: int, spines: int | None
) -> None:
    topology = rails(grid, node_size=size, spines=spines)
    devices = grid[0] * grid[1]
    nodes = devices // size
    count = nodes if spines is None else spines
    inside = {(d, devices + d // size) for d in range(devices)}
    nic = {(d, devices + nodes + d % size) for d in range(devices)}
    first_rail, first_spine = devices + nodes, devices + nodes + size
    up = {(first_rail + r, first_spine + s) for r in range(size) for s in range(count)}
    one_way = inside | nic | up
    links = [(a, b) for a, b in topology.links.tolist()]
    assert len(set(links)) == len(links)
    assert set(links) == one_way | {(b, a) for a, b in one_way}
    assert topology.num_nodes == first_spine + count
    speed = dict(zip(links, topology.capacity.tolist(), strict=True))
    assert {speed[pair] for pair in inside} == {NVLINK}
    assert {speed[pair] for pair in nic | up} == {NIC}
    assert topology.parameters["kind"] == "rails"
    assert topology.parameters["node_size"] == size


def test_the_links_of_a_node_have_their_own_bandwidth_and_latency() -> None:
    topology = rails(node_bandwidth="900GB/s", node_latency="200ns")
    inside = (topology.links >= 32).any(axis=1) & (topology.links < 36).all(axis=1)
    assert set(topology.capacity[inside]) == {900e9}
    np.testing.assert_allclose(topology.latency[inside], 200e-9)
    assert set(topology.capacity[~inside]) == {NIC}
    assert set(topology.latency[~inside]) == {1e-6}


@pytest.mark.parametrize("spines", [2, 4])
def test_oversubscription_is_nic_capacity_over_spine_capacity_of_a_rail(spines: int) -> None:
    topology = rails(spines=spines, oversubscription=2)
    first_rail, first_spine = 36, 44
    up = (topology.links[:, 0] == first_rail) & (topology.links[:, 1] >= first_spine)
    assert 4 * NIC / topology.capacity[up].sum() == pytest.approx(2.0)


def test_no_spines_is_rail_only() -> None:
    one, other = rails(spines=0), rails(spines="none")
    np.testing.assert_array_equal(one.links, other.links)
    assert one.num_nodes == 32 + 4 + 8


# Routing.


def test_pairs_of_a_node_use_its_switch_and_pairs_of_a_rail_the_rail() -> None:
    topology = rails()
    assert nodes_on_path(topology, 9, 14) == [9, 32 + 1, 14]
    assert nodes_on_path(topology, 3, 27) == [3, 36 + 3, 27]


def test_other_pairs_change_rail_inside_the_senders_node() -> None:
    """PXN: device 1 of node 0 reaches device 6 of node 2 by way of device 6 of node 0."""
    assert nodes_on_path(rails(), 1, 22) == [1, 32, 6, 36 + 6, 22]


def test_least_hops_are_what_pxn_takes() -> None:
    for spines in (None, 0):
        topology = rails(spines=spines)
        np.testing.assert_array_equal(route(topology).hops, topology.least_hops)


@settings(deadline=None, max_examples=60)
@given(
    nodes=st.integers(1, 5),
    size=st.integers(2, 6),
    nvlink=st.floats(1e9, 1e12),
    spines=st.sampled_from([None, 0, 1]),
)
def test_uniform_all_to_all_in_closed_form(
    nodes: int, size: int, nvlink: float, spines: int | None
) -> None:
    """A NIC carries what its node sends to its rail, N - n pairs; a node's link (n-1) * N/n pairs.

    Up: a device's own traffic to the n-1 other rails of all N/n nodes, its own node included.
    """
    topology = rails((nodes, size), node_size=size, node_bandwidth=nvlink, spines=spines)
    devices = nodes * size
    time = route(topology).transfer_time(all_to_all(devices, 1e6)[None])[0]
    wanted = max((devices - size) / NIC, (size - 1) * nodes / nvlink) * 1e6
    assert time == pytest.approx(wanted, rel=1e-9)


def test_pxn_leaves_the_spines_dark() -> None:
    with_spines, without = rails(), rails(spines=0)
    demand = np.random.default_rng(0).random((1, 32, 32))
    loads = [route(t).link_load(demand)[0] for t in (with_spines, without)]
    spine_links = (with_spines.links >= 44).any(axis=1)
    assert spine_links.sum() == 2 * 8 * 4
    assert (loads[0][spine_links] == 0).all()
    np.testing.assert_allclose(np.sort(loads[0][~spine_links]), np.sort(loads[1]))


def test_a_relayed_copy_shares_the_nic_it_leaves_by() -> None:
    """Devices 0 and 1 of node 0 both send to device 1 of node 1: one NIC carries both."""
    demand = np.zeros((1, 32, 32))
    demand[0, [0, 1], 9] = 1e6
    assert route(rails()).transfer_time(demand)[0] == pytest.approx(2e6 / NIC)


def test_spines_give_other_paths_to_ecmp() -> None:
    """Over equal shortest paths a skewed sender also uses its own NIC and the spines."""
    topology = rails()
    spine_links = (topology.links >= 44).any(axis=1)
    demand = all_to_all(32)[None]
    assert route(topology, "ecmp").link_load(demand)[0][spine_links].min() > 0
    for policy in ("ecmp", "ecmp-hash", "shortest"):
        assert (route(topology, policy).hops == topology.least_hops).all()


def test_a_pair_whose_rail_is_gone_takes_what_is_left() -> None:
    """Without device 6's NIC, what comes for it changes rail at the far end or by a spine."""
    topology = rails()
    gone = (topology.links == (6, 36 + 6)).all(axis=1) | (topology.links == (36 + 6, 6)).all(axis=1)
    kept = ~gone
    left = replace(
        topology,
        links=topology.links[kept],
        capacity=topology.capacity[kept],
        latency=topology.latency[kept],
        optical=topology.optical[kept],
    )
    routing = route(left)
    assert routing.reachable.all()
    whole = route(topology)
    untouched = np.ones((32, 32), dtype=bool)
    untouched[:8, 6::8] = False  # left node 0 by the lost NIC
    untouched[:, 6] = False  # came in by it
    untouched[:8, 6] = True
    np.testing.assert_array_equal(routing.hops[untouched], whole.hops[untouched])
    assert (routing.hops[~untouched] >= 4).all()
    load = routing.link_load(all_to_all(32)[None])[0]
    sent = np.bincount(left.links[:, 0], load, left.num_nodes)
    received = np.bincount(left.links[:, 1], load, left.num_nodes)
    np.testing.assert_allclose((received - sent)[32:], 0.0, atol=1e-9)
    np.testing.assert_allclose((received - sent)[:32], 0.0, atol=1e-9)


def test_pxn_needs_rails() -> None:
    assert "pxn" in policies()
    with pytest.raises(InputError, match="pxn needs rails, got torus"):
        route(make("torus", grid=(4, 4)), "pxn")


# Budgets.


@pytest.mark.parametrize("normalise", ["iso-injection", "iso-port"])
def test_the_budget_is_the_nics_and_the_nodes_links_come_on_top(normalise: str) -> None:
    topology = budget.build("rails", (4, 8), NIC, 1e-6, normalise, node_bandwidth=NVLINK)
    nic = (topology.links[:, 0] < 32) & (topology.links[:, 1] >= 36)
    assert set(topology.capacity[nic]) == {NIC}
    np.testing.assert_allclose(topology.injection, NIC + NVLINK)
    assert topology.parameters["node_bandwidth"] == NVLINK


# Errors.


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ((3, 4), {}, "rails: node_size must divide devices, got node_size=8 and devices=12"),
        ((4, 4), {"node_size": 1}, "rails: node_size must be >= 2, got 1"),
        ((4, 4), {"node_size": 2.5}, "rails: node_size must be a whole number, got 2.5"),
        ((4, 4), {"spines": -1}, "rails: spines must be >= 0, got -1"),
        ((4, 4), {"spines": "some"}, "rails: spines must be a whole number or none, got 'some'"),
        ((4, 4), {"oversubscription": 0}, "rails: oversubscription must be > 0, got 0"),
        ((4, 4), {"oversubscription": 2, "spines": 0}, "rails: oversubscription needs spines"),
        ((4, 4), {"node_bandwidth": 0}, "node_bandwidth must be finite and > 0, got 0"),
        ((4, 4), {"node_latency": "3"}, "node_latency must have a unit such as us"),
        ((4, 4), {"node_sise": 4}, "unknown option of rails 'node_sise'; did you mean 'node_size'"),
    ],
)
def test_bad_options_are_named(
    grid: tuple[int, int], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        rails(grid, **options)
    assert "\n" not in str(caught.value)
