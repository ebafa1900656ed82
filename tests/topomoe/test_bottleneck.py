"""The bottleneck model: closed forms, linearity, symmetry, and the rule by pairs."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe.network import bottleneck, capacity_bound
from topomoe.topologies import InputError, Routing, Topology, from_links, make, route

CAPACITY = 12.5e9  # 100 Gb/s
BYTES = 65536.0
EXACT = 1e-9

Network = tuple[Topology, Routing]


def build(
    name: str,
    grid: tuple[int, int],
    policy: str | None = None,
    latency: float = 0.0,
    options: dict[str, Any] | None = None,
    **policy_options: Any,
) -> Network:
    topology = make(name, grid=grid, bandwidth=CAPACITY, latency=latency, **(options or {}))
    return topology, route(topology, policy, **policy_options)


def uniform(devices: int) -> NDArray[np.float64]:
    return BYTES * (1.0 - np.eye(devices))


def random_demand(devices: int, seed: int, batches: int = 1) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    shape = (batches, devices, devices)
    return rng.exponential(BYTES, shape) * (rng.random(shape) < 0.5)


NETWORKS: dict[str, Network] = {
    "torus": build("torus", (4, 4), latency=1e-6),
    "mesh": build("mesh", (4, 4), latency=1e-6),
    "twisted": build("torus", (4, 4), latency=1e-6, options={"twist": 2}),
    "leaf-spine": build("leaf-spine", (4, 4), latency=1e-6, options={"oversubscription": 2.0}),
    "d-mod-k": build("leaf-spine", (4, 4), "d-mod-k", latency=1e-6, options={"spines": 3}),
    "fat-tree": build("fat-tree", (4, 4), latency=1e-6),
    "hashed": build("fat-tree", (4, 4), "ecmp-hash", latency=1e-6),
    "optical": build("optical", (4, 4), latency=1e-6, options={"base_bandwidth": CAPACITY / 4}),
}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


# Closed forms, latency 0 and no packets.


@pytest.mark.parametrize(
    ("network", "microseconds"),
    [
        (build("torus", (16, 8), "dimension-order", tie="balanced"), 1342.17728),
        (build("torus", (16, 8), "dimension-order", tie="plus"), 1509.94944),
        (build("mesh", (16, 8), "dimension-order"), 2684.35456),
        (build("leaf-spine", (16, 8), "d-mod-k", options={"spines": 8}), 665.84576),
        (build("torus", (16, 8), "ecmp", options={"twist": 8}), 891.2896),
    ],
    ids=["torus", "torus-plus", "mesh", "leaf-spine", "twisted-torus"],
)
def test_uniform_all_to_all_on_128_devices(network: Network, microseconds: float) -> None:
    assert bottleneck(*network, uniform(128)) == pytest.approx(microseconds * 1e-6, rel=EXACT)


def test_mean_hops_on_128_devices() -> None:
    """Of a torus k/4 a ring, of a mesh (k^2-1)/(3k) a line, over other devices only."""
    _, torus = build("torus", (16, 8))
    _, mesh = build("mesh", (16, 8))
    assert torus.hops.sum() / (128 * 127) == pytest.approx((4 + 2) * 128 / 127, rel=EXACT)
    assert torus.hops.sum() / (128 * 127) == pytest.approx(6.047244, abs=5e-7)
    assert mesh.hops.sum() / (128 * 127) == pytest.approx(8.0, rel=EXACT)


def ring_pairs(size: int, tie: str) -> float:
    """The pairs whose way round a ring crosses its busiest link."""
    if size % 2:
        return (size * size - 1) / 8
    below_half = (size // 2 - 1) * (size // 2) / 2
    half = size // 2  # this many pairs half a ring apart cross a link if all go one way
    return below_half + (half if tie == "plus" else -(-half // 2))


@pytest.mark.parametrize("size", [4, 8, 12, 16, 32])
def test_a_ring_carries_k_squared_over_eight_pairs_on_each_link(size: int) -> None:
    _, routing = build("torus", (size, 1))
    load = routing.link_load(uniform(size)[None])[0]
    assert load == pytest.approx(np.full(2 * size, size * size / 8 * BYTES), rel=EXACT)


@pytest.mark.parametrize("tie", ["balanced", "plus"])
@pytest.mark.parametrize(
    "grid", [(2, 1), (3, 1), (6, 1), (2, 2), (5, 2), (7, 3), (6, 4), (9, 5), (4, 8), (32, 8)]
)
def test_a_torus_is_bound_by_its_busiest_ring(grid: tuple[int, int], tie: str) -> None:
    rows, columns = grid
    pairs = max(columns * ring_pairs(rows, tie), rows * ring_pairs(columns, tie))
    time = bottleneck(*build("torus", grid, "dimension-order", tie=tie), uniform(rows * columns))
    assert time == pytest.approx(pairs * BYTES / CAPACITY, rel=EXACT)


@pytest.mark.parametrize("grid", [(2, 1), (5, 1), (2, 2), (7, 3), (6, 4), (4, 8), (16, 8)])
def test_a_mesh_is_bound_by_the_links_at_its_middle(grid: tuple[int, int]) -> None:
    rows, columns = grid
    pairs = max(
        columns * (rows // 2) * (rows - rows // 2),
        rows * (columns // 2) * (columns - columns // 2),
    )
    time = bottleneck(*build("mesh", grid), uniform(rows * columns))
    assert time == pytest.approx(pairs * BYTES / CAPACITY, rel=EXACT)


@pytest.mark.parametrize("grid", [(4, 4), (16, 8), (3, 5), (1, 6)])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 4.0])
def test_a_leaf_spine_is_bound_by_devices_or_by_its_spines(
    grid: tuple[int, int], ratio: float
) -> None:
    leaves, per_leaf = grid
    devices = leaves * per_leaf
    network = build("leaf-spine", grid, options={"oversubscription": ratio})
    out_of_leaf = (devices - per_leaf) * ratio
    pairs = max(devices - 1, out_of_leaf)
    assert bottleneck(*network, uniform(devices)) == pytest.approx(
        pairs * BYTES / CAPACITY, rel=EXACT
    )


@pytest.mark.parametrize("grid", [(2, 1), (4, 4), (16, 8), (9, 6)])
def test_a_fat_tree_is_bound_by_its_devices_alone(grid: tuple[int, int]) -> None:
    devices = grid[0] * grid[1]
    assert bottleneck(*build("fat-tree", grid), uniform(devices)) == pytest.approx(
        (devices - 1) * BYTES / CAPACITY, rel=EXACT
    )


# What a change of the input does.


@pytest.mark.parametrize("name", ["torus", "mesh", "leaf-spine", "fat-tree", "optical"])
def test_half_the_bandwidth_takes_exactly_twice_as_long(name: str) -> None:
    demand = random_demand(16, 0)[0]
    fast, slow = (make(name, (4, 4), c, 0.0) for c in (CAPACITY, CAPACITY / 2))
    assert bottleneck(slow, route(slow), demand) == 2 * bottleneck(fast, route(fast), demand)


@every_network
def test_without_latency_time_is_proportional_to_bytes(network: Network) -> None:
    topology = network[0]
    quick = from_links(topology.links, topology.capacity, 0.0, devices=16)
    routing = route(quick)
    demand = random_demand(16, 1)[0]
    once = bottleneck(quick, routing, demand)
    assert bottleneck(quick, routing, 8 * demand) == 8 * once
    assert bottleneck(quick, routing, demand / 3) == pytest.approx(once / 3, rel=EXACT)


@every_network
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_more_bytes_are_never_faster(network: Network, seed: int) -> None:
    first, second = random_demand(16, seed, batches=2)
    alone = bottleneck(*network, first, mtu=4096)
    both = bottleneck(*network, first + second, mtu=4096)
    assert both >= alone * (1 - 1e-12)
    apart = alone + bottleneck(*network, second, mtu=4096)
    assert both <= apart * (1 + 1e-12)


@every_network
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_time_is_below_what_leaves_or_enters_a_device(network: Network, seed: int) -> None:
    topology = network[0]
    demand = random_demand(16, seed)[0]
    flows = demand * (1 - np.eye(16))
    into = np.bincount(topology.links[:, 1], topology.capacity, minlength=16)[:16]
    cut = max((flows.sum(axis=1) / topology.injection).max(), (flows.sum(axis=0) / into).max())
    assert bottleneck(*network, demand) >= cut * (1 - 1e-12)


@every_network
def test_latency_adds_at_most_the_longest_path(network: Network) -> None:
    topology, routing = network
    quick = from_links(topology.links, topology.capacity, 0.0, devices=16)
    table = routing.matrix
    demand = random_demand(16, 2)[0] * (1 - np.eye(16))
    load = (table @ demand.reshape(-1)) / topology.capacity
    time = bottleneck(topology, routing, demand)
    longest = routing.latency[demand > 0].max()
    assert load.max() + 1e-6 <= time <= load.max() + longest * (1 + 1e-12)
    assert bottleneck(quick, route(quick), demand) > 0


@every_network
def test_one_flow_takes_its_bytes_its_latency_and_a_packet_at_every_other_link(
    network: Network,
) -> None:
    topology, routing = network
    for source, destination in ((0, 1), (3, 12), (15, 0)):
        demand = np.zeros((16, 16))
        demand[source, destination] = BYTES
        share = routing.matrix[:, [source * 16 + destination]].toarray()[:, 0]
        alone = (share * BYTES / topology.capacity).max()
        wanted = alone + (share * topology.latency).sum()
        assert bottleneck(topology, routing, demand) == pytest.approx(wanted, rel=EXACT)
        if topology.optical.any():
            continue  # two ways of different speeds: see test_routing_circuits.py
        seconds = share / topology.capacity
        held = seconds.sum() - (1 / topology.capacity[share > 0]).max()
        assert bottleneck(topology, routing, demand, mtu=4096) == pytest.approx(
            wanted + 4096 * held, rel=EXACT
        )


def test_a_packet_is_held_back_at_all_links_but_the_slowest() -> None:
    line = from_links([(0, 1), (1, 2), (2, 3)], [4.0, 1.0, 2.0], latency=10.0)
    routing = Routing.from_paths(line, [0, 3], [0, 1, 2])
    demand = np.zeros((4, 4))
    demand[0, 3] = 100.0
    assert bottleneck(line, routing, demand) == 100 + 30
    assert bottleneck(line, routing, demand, mtu=8) == 100 + 30 + 8 / 4 + 8 / 2
    assert bottleneck(line, routing, demand, mtu="8B") == 136


@every_network
def test_the_diagonal_is_no_flow(network: Network) -> None:
    demand = random_demand(16, 3)[0]
    without = demand * (1 - np.eye(16))
    for mtu in (None, 4096):
        assert bottleneck(*network, demand, mtu) == bottleneck(*network, without, mtu)
    assert bottleneck(*network, 1e9 * np.eye(16)) == 0
    assert bottleneck(*network, np.zeros((16, 16)), mtu=4096) == 0


@every_network
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_batch_is_its_demands_one_by_one(network: Network, dtype: type) -> None:
    batch = random_demand(16, 4, batches=21).astype(dtype)
    for mtu in (None, 4096):
        together = bottleneck(*network, batch, mtu)
        assert together.shape == (21,)
        assert together.dtype == np.float64
        alone = [bottleneck(*network, demand, mtu) for demand in batch]
        assert together == pytest.approx(alone, rel=1e-12)
    assert bottleneck(*network, batch[:0]).shape == (0,)


@every_network
def test_float32_is_close_to_float64(network: Network) -> None:
    batch = random_demand(16, 5, batches=8)
    for mtu in (None, 4096):
        assert bottleneck(*network, batch.astype(np.float32), mtu) == pytest.approx(
            bottleneck(*network, batch, mtu), rel=1e-5
        )


@every_network
def test_demand_of_any_layout_and_number_type_is_read_alike(network: Network) -> None:
    demand = np.rint(random_demand(16, 6)[0])
    wanted = bottleneck(*network, demand)
    wide = np.zeros((32, 32))
    wide[::2, ::2] = demand
    for same in (np.asfortranarray(demand), wide[::2, ::2], demand.astype(int), demand.tolist()):
        assert bottleneck(*network, same) == wanted
    demand.setflags(write=False)
    assert bottleneck(*network, demand) == wanted


@pytest.mark.parametrize("shift", [(2, 0), (0, 2), (2, 2), (6, 4)])
@pytest.mark.parametrize("tie", ["balanced", "plus"])
def test_shifting_a_torus_by_even_steps_changes_nothing(shift: tuple[int, int], tie: str) -> None:
    network = build("torus", (8, 8), latency=1e-6, tie=tie)
    demand = random_demand(64, 7)[0]
    moved = np.roll(demand.reshape(8, 8, 8, 8), shift * 2, axis=(0, 1, 2, 3)).reshape(64, 64)
    assert bottleneck(*network, moved, 4096) == pytest.approx(
        bottleneck(*network, demand, 4096), rel=EXACT
    )


def test_exchanging_devices_of_a_leaf_or_whole_leaves_changes_nothing_under_fluid_ecmp() -> None:
    network = build("leaf-spine", (4, 4), latency=1e-6, options={"spines": 3})
    demand = random_demand(16, 8)[0]
    rng = np.random.default_rng(0)
    device = np.arange(16).reshape(4, 4)[rng.permutation(4)]
    order = np.concatenate([rng.permutation(leaf) for leaf in device])
    assert bottleneck(*network, demand[np.ix_(order, order)]) == pytest.approx(
        bottleneck(*network, demand), rel=EXACT
    )


# The rule by pairs: each pair waits for the worst link of its own path.


def test_a_far_pair_on_idle_links_adds_no_latency_to_a_busy_near_one() -> None:
    topology, routing = build("leaf-spine", (4, 4), latency=1e-6)
    demand = np.zeros((16, 16))
    demand[0, 1] = 1e6  # two links
    demand[4, 12] = 1e3  # four links, its own
    assert bottleneck(topology, routing, demand) == pytest.approx(1e6 / CAPACITY + 2e-6, rel=EXACT)
    demand[0, 12] = 1.0  # four links, the first of them busy
    assert bottleneck(topology, routing, demand) == pytest.approx(
        (1e6 + 1) / CAPACITY + 4e-6, rel=EXACT
    )


@pytest.mark.parametrize("name", ["torus", "leaf-spine", "twisted", "hashed", "optical"])
def test_time_does_not_jump_where_two_links_are_equally_busy(name: str) -> None:
    """A near and a far flow on links of their own: time is continuous as one outgrows the other."""
    topology, routing = NETWORKS[name]
    near, far = (0, 1), (10, 4)
    demand = np.zeros((16, 16))
    demand[near] = 1e6
    steps = 1e6 * (1 + np.linspace(-0.9, 3, 400))
    batch = np.repeat(demand[None], len(steps), axis=0)
    batch[:, far[0], far[1]] = steps
    time = bottleneck(topology, routing, batch)
    step_seconds = np.diff(steps)[0] / topology.capacity.min()
    assert np.all(np.diff(time) >= -1e-15)
    assert np.diff(time).max() <= step_seconds * (1 + 1e-9)
    assert time[-1] > time[0]


# Bad input.


@pytest.mark.parametrize(
    ("demand", "message"),
    [
        (np.ones((15, 15)), r"demand must have shape \[16, 16\] or \[B, 16, 16\] on torus"),
        (np.ones((16, 15)), "demand must have shape"),
        (np.ones(16), "demand must have shape"),
        (np.ones((1, 1, 16, 16)), "demand must have shape"),
        (-np.eye(16), "demand must be finite and >= 0 bytes"),
        (np.full((16, 16), np.nan), "demand must be finite and >= 0 bytes"),
        (np.full((16, 16), np.inf), "demand must be finite and >= 0 bytes"),
        (np.full((2, 16, 16), -1, dtype=np.float32), "demand must be finite and >= 0 bytes"),
        (np.full((16, 16), np.nan, dtype=np.float32), "demand must be finite and >= 0 bytes"),
        (np.ones((16, 16), dtype=complex), "demand must be numbers, got complex numbers"),
        ([["a"] * 16] * 16, "demand must be numbers, got text"),
        ([[1.0, 2.0], [3.0]], "demand must be numbers in rows of one length"),
        (None, "demand must be numbers"),
    ],
)
def test_bad_demand_is_refused_in_one_line(demand: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as caught:
        bottleneck(*NETWORKS["torus"], demand)
    assert "\n" not in str(caught.value)


def test_one_bad_entry_in_a_batch_is_found() -> None:
    for bad in (np.nan, np.inf, -1e-9):
        batch = random_demand(16, 9, batches=3)
        batch[2, 15, 14] = bad
        with pytest.raises(InputError, match="demand must be finite and >= 0 bytes"):
            bottleneck(*NETWORKS["torus"], batch)


def test_minus_zero_is_zero() -> None:
    assert bottleneck(*NETWORKS["torus"], -np.zeros((16, 16))) == 0


@pytest.mark.parametrize("mtu", [-1, float("nan"), float("inf"), "fast"])
def test_a_bad_mtu_is_refused(mtu: Any) -> None:
    with pytest.raises(InputError, match=r"^mtu must be"):
        bottleneck(*NETWORKS["torus"], np.ones((16, 16)), mtu=mtu)


def test_a_routing_over_another_topology_is_refused() -> None:
    topology = make("torus", grid=(4, 4))
    with pytest.raises(InputError, match="routing is over another topology"):
        bottleneck(topology, NETWORKS["torus"][1], np.ones((16, 16)))


def test_the_capacity_bound_meets_symmetric_tori_and_is_below_every_bottleneck() -> None:
    for name, policy in (("torus", None), ("mesh", None), ("leaf-spine", "d-mod-k")):
        topology = make(name, grid=(6, 4), bandwidth="100Gbps", latency=0)
        uniform = np.full((24, 24), 65536.0)
        bound = capacity_bound(topology, uniform)
        hops = [lengths for _, lengths in nx.all_pairs_shortest_path_length(topology.graph)]
        total = sum(hops[a][b] for a in range(24) for b in range(24))
        assert bound == pytest.approx(total * 65536.0 / topology.capacity.sum(), rel=1e-12)
        assert bound <= bottleneck(topology, route(topology, policy), uniform)
    square = make("torus", grid=(8, 8), bandwidth="100Gbps", latency=0)
    uniform = np.full((64, 64), 65536.0)
    time = bottleneck(square, route(square, "ecmp"), uniform)
    assert capacity_bound(square, uniform) == pytest.approx(time, rel=1e-12)
