"""Fat-trees: the smallest radix, every device kept, full bisection."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.topologies import make
from topomoe.topologies.fat_tree import fat_tree_radix


@given(devices=st.integers(2, 100_000))
def test_radix_is_the_smallest_even_k_that_holds_the_devices(devices: int) -> None:
    k = fat_tree_radix(devices)
    assert k % 2 == 0
    assert k**3 / 4 >= devices
    assert k == 2 or (k - 2) ** 3 / 4 < devices


@settings(max_examples=40)
@given(devices=st.integers(2, 300))
def test_every_device_is_kept_and_reaches_every_other(devices: int) -> None:
    tree = make("fat-tree", grid=(devices, 1))
    k = tree.parameters["k"]
    assert tree.num_devices == devices
    assert np.all(tree.device_degree == 1)
    distance = nx.single_source_shortest_path_length(tree.graph, 0)
    wanted = [
        0 if d == 0 else 2 if d < k // 2 else 4 if d < k * k // 4 else 6 for d in range(devices)
    ]
    assert [distance[d] for d in range(devices)] == wanted


@settings(max_examples=40)
@given(devices=st.integers(2, 300))
def test_no_switch_exceeds_its_radix(devices: int) -> None:
    tree = make("fat-tree", grid=(devices, 1))
    out = np.bincount(tree.links[:, 0], minlength=tree.num_nodes)
    into = np.bincount(tree.links[:, 1], minlength=tree.num_nodes)
    assert np.array_equal(out, into)
    assert out.max() <= tree.parameters["k"]
    assert out.min() >= 1


@pytest.mark.parametrize("k", [2, 4, 6, 8])
def test_a_full_tree_is_that_of_al_fares(k: int) -> None:
    tree = make("fat-tree", grid=(k**3 // 4, 1))
    assert tree.parameters["k"] == k
    assert tree.num_nodes - tree.num_devices == 5 * k * k // 4
    assert tree.num_links == 2 * 3 * k**3 // 4
    switch_degree = np.bincount(tree.links[:, 0])[tree.num_devices :]
    assert np.all(switch_degree == k)


def test_bisection_of_a_full_tree_is_half_the_devices_bandwidth() -> None:
    tree = make("fat-tree", grid=(4, 4), bandwidth=1.0, latency=0.0)
    graph = nx.DiGraph(tree.graph)
    for d in range(8):
        graph.add_edge("low", d)
        graph.add_edge(8 + d, "high")
    assert nx.maximum_flow_value(graph, "low", "high") == pytest.approx(8.0)
