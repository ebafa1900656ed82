"""Jellyfish: a connected regular graph of switches that a seed decides."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topomoe.topologies import InputError, Topology, make, route


def switch_graph(topology: Topology) -> nx.Graph:
    devices = topology.num_devices
    graph = nx.Graph()
    graph.add_nodes_from(range(devices, topology.num_nodes))
    graph.add_edges_from(link for link in topology.links.tolist() if min(link) >= devices)
    return graph


@settings(deadline=None, max_examples=40)
@given(
    switches=st.integers(2, 24),
    per_switch=st.integers(1, 5),
    degree=st.integers(2, 6),
    seed=st.integers(0, 2**32),
)
def test_every_switch_has_its_devices_and_degree_other_switches(
    switches: int, per_switch: int, degree: int, seed: int
) -> None:
    assume(degree < switches and switches * degree % 2 == 0)
    topology = make("jellyfish", (switches, per_switch), degree=degree, seed=seed)
    devices = switches * per_switch
    host = topology.links[topology.links[:, 0] < devices]
    assert host.tolist() == [[d, devices + d // per_switch] for d in range(devices)]
    graph = switch_graph(topology)
    assert set(dict(graph.degree).values()) == {degree}
    assert nx.is_connected(graph)
    assert topology.num_links == 2 * devices + switches * degree


def test_a_seed_decides_the_graph() -> None:
    one, again, other = (make("jellyfish", (16, 8), seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.links, again.links)
    assert one.links.tolist() != other.links.tolist()


@pytest.mark.parametrize(
    ("grid", "degree"), [((16, 8), 8), ((4, 4), 3), ((5, 3), 4), ((8, 1), 3), ((2, 6), 1)]
)
def test_a_switch_has_by_default_as_many_links_up_as_devices(
    grid: tuple[int, int], degree: int
) -> None:
    assert make("jellyfish", grid).parameters["degree"] == degree


def test_one_switch_needs_no_others() -> None:
    star = make("jellyfish", (1, 4))
    assert star.num_links == 8
    assert (route(star).hops[~np.eye(4, dtype=bool)] == 2).all()


def test_all_switches_joined_to_all_others_is_a_closed_form() -> None:
    """Degree S-1: every pair of switches has its own link, which carries all of their pairs."""
    topology = make("jellyfish", (6, 4), bandwidth=1.0, latency=0.0, degree=5)
    demand = np.where(np.eye(24, dtype=bool), 0.0, 1.0)[None]
    load = route(topology).link_load(demand)[0]
    between = (topology.links >= 24).all(axis=1)
    np.testing.assert_allclose(load[between], 16.0)
    np.testing.assert_allclose(load[~between], 23.0)


def test_paths_are_nearly_as_short_as_a_regular_graph_allows() -> None:
    """At most `degree` switches at distance 1, degree * (degree-1) at 2: the Moore bound."""
    topology = make("jellyfish", (64, 1), degree=6)
    hops = topology.least_hops[~np.eye(64, dtype=bool)] - 2  # without the two host links
    bound = (6 * 1 + 30 * 2 + 27 * 3) / 63
    assert bound <= hops.mean() < 1.1 * bound


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        (
            (4, 4),
            {"degree": 4},
            "jellyfish: degree must be < switches, got degree=4 and switches=4",
        ),
        ((5, 4), {"degree": 3}, "jellyfish: degree x switches must be even, got degree=3 and swit"),
        ((4, 4), {"degree": 1}, "jellyfish: degree must be >= 2 to connect 4 switches, got 1"),
        ((4, 4), {"degree": 0}, "jellyfish: degree must be >= 1, got 0"),
        ((4, 4), {"degree": 2.5}, "jellyfish: degree must be a whole number, got 2.5"),
        ((4, 4), {"seed": -1}, "jellyfish: seed must be >= 0, got -1"),
    ],
)
def test_bad_options_are_named(
    grid: tuple[int, int], options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        make("jellyfish", grid, **options)
