"""D-mod-k and hashed ECMP: which switch a pair's traffic climbs to."""

from __future__ import annotations

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest

from topomoe.topologies import InputError, Routing, make, policies, route


def switches_of(routing: Routing, source: int, destination: int) -> list[int]:
    """The switches on a pair's single path, in no order, smallest number first."""
    devices = routing.topology.num_devices
    column = routing.matrix[:, [source * devices + destination]]
    heads = routing.topology.links[column.nonzero()[0], 1]
    return sorted(h for h in heads.tolist() if h >= devices)


@pytest.mark.parametrize(("grid", "spines"), [((4, 3), 2), ((4, 4), 4), ((3, 2), 5), ((2, 8), 3)])
def test_d_mod_k_climbs_to_spine_destination_mod_spines(grid: tuple[int, int], spines: int) -> None:
    routing = route(make("leaf-spine", grid=grid, spines=spines), "d-mod-k")
    leaves, per_leaf = grid
    devices = leaves * per_leaf
    for source in range(devices):
        for destination in range(devices):
            if source // per_leaf == destination // per_leaf:
                continue
            spine = devices + leaves + destination % spines
            assert switches_of(routing, source, destination)[-1] == spine


@pytest.mark.parametrize("grid", [(2, 1), (4, 4), (3, 5), (6, 9)])
def test_d_mod_k_on_a_fat_tree_gives_each_destination_one_core(grid: tuple[int, int]) -> None:
    tree = make("fat-tree", grid=grid)
    routing = route(tree, "d-mod-k")
    half = tree.parameters["k"] // 2
    first_core = tree.num_nodes - half * half
    devices = tree.num_devices
    for destination in range(devices):
        core = first_core + destination % half * half + destination // half % half
        for source in range(devices):
            if source // half**2 != destination // half**2:
                assert switches_of(routing, source, destination)[-1] == core


def test_d_mod_k_carries_a_shift_without_contention_on_a_full_fat_tree() -> None:
    """What the policy was made for: any shift permutation loads every link with one flow."""
    tree = make("fat-tree", grid=(4, 4), bandwidth=1.0, latency=0.0)
    routing = route(tree, "d-mod-k")
    for shift in range(1, 16):
        demand = np.roll(np.eye(16), shift, axis=1)[None]
        assert routing.link_load(demand).max() == 1


def test_a_tree_that_lacks_a_link_is_routed_by_path() -> None:
    whole = make("leaf-spine", grid=(3, 2))
    lost = int(whole.link_ids(np.array([6]), np.array([9]))[0])  # leaf 0 to spine 0
    kept = np.arange(whole.num_links) != lost
    links, capacity, latency = whole.links[kept], whole.capacity[kept], whole.latency[kept]
    broken = replace(
        whole, links=links, capacity=capacity, latency=latency, optical=whole.optical[kept]
    )
    flow = route(broken, "ecmp").matrix.toarray().reshape(-1, 6, 6)
    other = int(broken.link_ids(np.array([6]), np.array([10]))[0])
    assert flow[other, 0, 2:].tolist() == [1.0] * 4
    with pytest.raises(InputError, match="d-mod-k needs a whole fat-tree or leaf-spine"):
        route(broken, "d-mod-k")


def test_d_mod_k_needs_a_tree() -> None:
    with pytest.raises(
        InputError, match="d-mod-k needs a whole fat-tree or leaf-spine topology, got"
    ):
        route(make("torus", grid=(4, 4)), "d-mod-k")


@pytest.mark.parametrize("name", ["leaf-spine", "fat-tree", "torus", "optical"])
def test_hashed_ecmp_is_drawn_from_its_seed_and_takes_shortest_paths(name: str) -> None:
    topology = make(name, grid=(4, 4))
    first, same, other = (route(topology, "ecmp-hash", seed=s).matrix for s in (1, 1, 2))
    assert (first != same).nnz == 0
    assert (first != other).nnz > 0
    lengths = dict(nx.all_pairs_shortest_path_length(topology.graph))
    hops = np.asarray(first.sum(axis=0)).reshape(16, 16)
    assert all(hops[a, b] == lengths[a][b] for a in range(16) for b in range(16))


def test_hashed_ecmp_is_fluid_ecmp_on_average() -> None:
    topology = make("leaf-spine", grid=(4, 4), spines=3)
    fluid = route(topology, "ecmp").matrix
    draws = 400
    total = sum(route(topology, "ecmp-hash", seed=seed).matrix for seed in range(draws))
    difference = abs(total / draws - fluid).toarray()
    assert difference.max() < 5 * np.sqrt(1 / 3 * 2 / 3 / draws)
    assert difference.mean() < 0.01


@pytest.mark.parametrize("seed", [-1, "a", 1.5])
def test_a_hash_seed_is_a_whole_number(seed: object) -> None:
    with pytest.raises(InputError, match="ecmp-hash: seed must be"):
        route(make("torus", grid=(4, 4)), "ecmp-hash", seed=seed)


def test_shortest_takes_the_next_hop_of_the_lowest_number() -> None:
    topology = make("leaf-spine", grid=(3, 2), spines=3)
    routing = route(topology, "shortest")
    first_spine = topology.num_devices + 3
    for source in range(6):
        for destination in range(6):
            if source // 2 != destination // 2:
                assert switches_of(routing, source, destination)[-1] == first_spine


def test_every_topology_has_a_default_policy() -> None:
    for name, policy in [
        ("torus", "dimension-order"),
        ("mesh", "dimension-order"),
        ("twisted-torus", "ecmp"),
        ("leaf-spine", "ecmp"),
        ("fat-tree", "ecmp"),
        ("optical", "hybrid"),
    ]:
        assert route(make(name, grid=(4, 4))).name.startswith(policy)


def test_unknown_policies_and_options_are_named_with_the_nearest() -> None:
    torus = make("torus", grid=(4, 4))
    with pytest.raises(InputError, match="unknown routing 'dimension_order'; did you mean 'dim"):
        route(torus, "dimension_order")
    with pytest.raises(InputError, match="unknown option of ecmp-hash 'sed'; did you mean 'seed'"):
        route(torus, "ecmp-hash", sed=1)
    assert "dimension-order" in policies()
