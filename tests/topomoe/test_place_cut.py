from __future__ import annotations

import numpy as np
import pytest

from topomoe.network import bounds, optimal, place_cut
from topomoe.network.place_cut import crossing, places
from topomoe.topologies import Topology, make

NIC = 50e9


def cut_seconds(topology: Topology, demand: np.ndarray) -> float:
    where = places(topology)
    assert where is not None
    leaving, reaching = crossing(where, demand[None])
    return float(max((leaving / where.leaving).max(), (reaching / where.reaching).max()))


def test_uniform_traffic_between_nodes_takes_the_nics_alone() -> None:
    rails = make("rails", (4, 8), NIC, 0.0, node_size=8)
    demand = 1e6 * (1.0 - np.eye(32))
    assert cut_seconds(rails, demand) == pytest.approx(24 * 1e6 / NIC, rel=1e-12)


def test_traffic_inside_a_node_crosses_no_cut() -> None:
    rails = make("rails", (2, 8), NIC, 0.0, node_size=8)
    node = np.arange(16) // 8
    assert cut_seconds(rails, (node[:, None] == node).astype(np.float64)) == 0.0


@pytest.mark.parametrize("name", ["rails", "dragonfly", "hamming-mesh"])
def test_no_routing_beats_the_cut_around_a_place(name: str) -> None:
    topology = make(name, (4, 4), NIC, 0.0, **({"node_size": 4} if name == "rails" else {}))
    demand = np.random.default_rng(1).exponential(1e6, (16, 16))
    np.fill_diagonal(demand, 0.0)
    assert 0 < cut_seconds(topology, demand) <= optimal(topology, demand, cache=False) * (1 + 1e-9)


def test_topologies_of_single_devices_have_no_places() -> None:
    assert places(make("torus", (4, 4))) is None
    assert places(make("leaf-spine", (4, 4))) is None


def test_the_cut_is_one_of_the_bounds_and_zero_without_places() -> None:
    rails = make("rails", (2, 8), NIC, 0.0, node_size=8)
    demand = np.random.default_rng(2).exponential(1e6, (16, 16))
    found = bounds(rails, demand, cache=False)
    assert found["place_cut"] == pytest.approx(cut_seconds(rails, demand), rel=1e-12)
    assert found["place_cut"] > found["node_cut"]
    assert place_cut(make("torus", (4, 4)), demand) == 0.0
    several = place_cut(rails, np.stack([demand, 2 * demand]))
    assert several == pytest.approx([found["place_cut"], 2 * found["place_cut"]])
