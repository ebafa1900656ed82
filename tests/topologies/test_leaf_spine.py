"""Leaf-spine networks: every leaf meets every spine, oversubscription sets the fabric's speed."""

from __future__ import annotations

import numpy as np
import pytest

from topomoe.topologies import InputError, make


@pytest.mark.parametrize(
    ("grid", "spines"), [((16, 8), 8), ((4, 3), 2), ((1, 4), 4), ((5, 1), 3), ((3, 2), 1)]
)
def test_leaf_l_is_node_n_plus_l_and_meets_every_spine(grid: tuple[int, int], spines: int) -> None:
    leaves, per_leaf = grid
    network = make("leaf-spine", grid=grid, spines=spines)
    devices = leaves * per_leaf
    host = {(d, devices + d // per_leaf) for d in range(devices)}
    fabric = {
        (devices + leaf, devices + leaves + spine)
        for leaf in range(leaves)
        for spine in range(spines)
    }
    one_way = host | fabric
    links = {(a, b) for a, b in network.links.tolist()}
    assert links == one_way | {(b, a) for a, b in one_way}
    assert network.num_links == len(links)
    assert network.num_nodes == devices + leaves + spines


def test_a_spine_for_each_device_of_a_leaf_is_the_default() -> None:
    assert make("leaf-spine", grid=(16, 8)).parameters["spines"] == 8


@pytest.mark.parametrize("spines", [1, 4, 8])
@pytest.mark.parametrize("ratio", [0.5, 1, 3.0])
def test_oversubscription_is_device_capacity_over_spine_capacity(spines: int, ratio: float) -> None:
    network = make(
        "leaf-spine", grid=(4, 8), bandwidth="100Gbps", spines=spines, oversubscription=ratio
    )
    assert np.all(network.injection == 12.5e9)
    up = (network.links[:, 0] == 32) & (network.links[:, 1] >= 36)
    down = (network.links[:, 1] == 32) & (network.links[:, 0] >= 36)
    assert 8 * 12.5e9 / network.capacity[up].sum() == pytest.approx(ratio)
    assert 8 * 12.5e9 / network.capacity[down].sum() == pytest.approx(ratio)


def test_without_oversubscription_every_link_has_the_bandwidth() -> None:
    assert np.all(make("leaf-spine", grid=(4, 8), spines=3, bandwidth=7.0).capacity == 7.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spines": 0}, "spines must be >= 1, got 0"),
        ({"spines": 2.5}, "spines must be a whole number, got 2.5"),
        ({"oversubscription": 0.0}, "oversubscription must be > 0, got 0.0"),
        ({"oversubscription": float("nan")}, "oversubscription must be > 0, got nan"),
        ({"oversubscription": "3"}, "oversubscription must be numbers, got text"),
        ({"spine": 4}, "unknown option of leaf-spine 'spine'; did you mean 'spines'"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make("leaf-spine", grid=(4, 4), **options)
