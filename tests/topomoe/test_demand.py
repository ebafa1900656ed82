"""Dispatch: a plain restatement token by token, conservation, replicas, copies, padding, errors."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import topomoe as tm
from topomoe.demand import (
    COPIES,
    REPLICA_ROUTINGS,
    DispatchSettings,
    all_gather_bytes,
    dispatch_batch,
    replica_tables,
)
from topomoe.model import MODELS
from topomoe.placement import LayerPlacement, Placement
from topomoe.topologies.errors import InputError

MODEL = "mixtral-8x7b"  # without shared experts; its number of experts does not matter here
BYTES = MODELS[MODEL].dispatch_bytes

seeds = st.integers(0, 2**32 - 1)


def single(experts: int, devices: int, rng: np.random.Generator) -> LayerPlacement:
    """Every expert once, on a random device."""
    return LayerPlacement(
        rng.permutation(experts).astype(np.int32), np.ones(experts), devices, experts
    )


def replicated(
    experts: int, devices: int, slots: int, rng: np.random.Generator, zeros: bool = False
) -> LayerPlacement:
    """Every expert at least once, the other slots of random experts, with random shares."""
    more = rng.integers(experts, size=slots - experts)
    slot_expert = rng.permutation(np.concatenate([np.arange(experts), more])).astype(np.int32)
    weight = rng.uniform(0.05, 1.0, size=slots)
    if zeros:
        first = np.unique(slot_expert, return_index=True)[1]
        surplus = np.setdiff1d(np.arange(slots), first)
        weight[surplus[rng.random(len(surplus)) < 0.5]] = 0.0
    total = np.bincount(slot_expert, weight, minlength=experts)
    return LayerPlacement(slot_expert, weight / total[slot_expert], devices, experts)


def tokens(
    count: int, experts: int, top_k: int, devices: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return experts [T, K], skewed and distinct for each token, and origins [T]."""
    score = rng.gumbel(size=(count, experts)) + rng.normal(size=experts)
    return np.argsort(-score, axis=1)[:, :top_k], rng.integers(devices, size=count)


def slot_load(
    ids: NDArray[np.int64], origin: NDArray[np.int64], placement: LayerPlacement, routing: str
) -> NDArray[np.int64]:
    """The token-expert pairs of each slot, [S]."""
    whole = Placement(
        placement.slot_expert[None],
        placement.slot_share[None],
        placement.num_devices,
        placement.num_experts,
    )
    sent = dispatch_batch(
        ids[None].astype(np.int16),
        np.arange(len(ids)),
        origin.astype(np.int32),
        replica_tables(whole, routing),
        DispatchSettings(routing),
        np.zeros(placement.num_devices, dtype=np.int64),
        np.array([7], dtype=np.uint64),
    )
    return sent.slot_load[0]


# Restatements, token by token.


def copies_of(
    chosen: list[list[int]], origin: NDArray[np.int64], devices: int, copies: str, node_size: int
) -> NDArray[np.float64]:
    """The copies [N, N] that cross the network, chosen[t] being the devices of token t's picks."""
    sent = np.zeros((devices, devices))
    for picks, here in zip(chosen, origin.tolist(), strict=True):
        if copies == "expert":
            for device in picks:
                sent[here, device] += device != here
            continue
        wanted = set(picks) - {here}
        if copies == "device":
            for device in wanted:
                sent[here, device] += 1
            continue
        by_node: dict[int, set[int]] = {}
        for device in wanted:
            by_node.setdefault(device // node_size, set()).add(device)
        for node, members in by_node.items():
            if node == here // node_size:
                for device in members:
                    sent[here, device] += 1
                continue
            relay = node * node_size + here % node_size
            sent[here, relay] += 1
            for device in members - {relay}:
                sent[relay, device] += 1
    return sent


def counted(chosen: list[list[int]], devices: int) -> NDArray[np.int64]:
    """How many picks went to each device, [N]."""
    return np.bincount([device for picks in chosen for device in picks], minlength=devices)


def chosen_by_load(ids: NDArray[np.int64], placement: LayerPlacement) -> list[list[int]]:
    """The device of every pick: the least loaded so far."""
    load = [0] * placement.num_devices
    holders = [
        placement.slot_device[placement.slot_expert == expert].tolist()
        for expert in range(placement.num_experts)
    ]
    chosen = []
    for row in ids.tolist():
        picks = []
        for expert in row:
            best = min(holders[expert], key=lambda d: load[d])
            load[best] += 1
            picks.append(best)
        chosen.append(picks)
    return chosen


@pytest.mark.parametrize("routing", REPLICA_ROUTINGS)
@pytest.mark.parametrize("copies", COPIES)
@settings(max_examples=25)
@given(seed=seeds)
def test_without_replicas_dispatch_is_its_restatement(routing: str, copies: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    devices, node_size = (8, 4) if seed % 2 else (6, 2)
    experts = devices * int(rng.integers(1, 4))
    ids, origin = tokens(int(rng.integers(0, 60)), experts, min(4, experts), devices, rng)
    placement = single(experts, devices, rng)
    chosen = [[int(placement.slot_device[placement.slot_expert == e][0]) for e in r] for r in ids]
    demand, load = tm.dispatch(
        ids, origin, placement, MODEL, routing, copies, node_size=node_size, seed=seed
    )
    wanted = copies_of(chosen, origin, devices, copies, node_size)
    np.testing.assert_array_equal(demand, wanted * BYTES)
    np.testing.assert_array_equal(load, counted(chosen, devices))


@pytest.mark.parametrize("copies", COPIES)
@settings(max_examples=25)
@given(seed=seeds)
def test_least_loaded_is_its_restatement(copies: str, seed: int) -> None:
    """Each choice goes to a replica on a device with the least load at that time."""
    rng = np.random.default_rng(seed)
    placement = replicated(12, 8, 24, rng)
    ids, origin = tokens(50, 12, 3, 8, rng)
    chosen = chosen_by_load(ids, placement)
    demand, load = tm.dispatch(
        ids, origin, placement, MODEL, "least-loaded", copies, node_size=2, columns=4, seed=seed
    )
    np.testing.assert_array_equal(load, counted(chosen, 8))
    np.testing.assert_array_equal(demand, copies_of(chosen, origin, 8, copies, 2) * BYTES)


# What holds for every replica routing and kind of copy.


@pytest.mark.parametrize("routing", REPLICA_ROUTINGS)
@pytest.mark.parametrize("copies", COPIES)
@settings(max_examples=20)
@given(seed=seeds)
def test_tokens_are_conserved(routing: str, copies: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, top_k, devices = int(rng.integers(1, 80)), int(rng.integers(1, 7)), 4
    placement = replicated(8, devices, 16, rng)
    ids, origin = tokens(count, 8, top_k, devices, rng)
    demand, load = tm.dispatch(ids, origin, placement, MODEL, routing, copies, 2, seed=seed)
    assert load.sum() == count * top_k
    assert load.shape == (devices,)
    assert (np.diagonal(demand) == 0).all()
    assert (demand >= 0).all()
    np.testing.assert_array_equal(demand % BYTES, 0)
    sent = demand.sum(axis=1) / BYTES
    most = top_k if copies == "expert" else min(top_k, devices - 1)
    if copies == "node-relay":  # what reaches a relay may be for another device of its node
        assert sent.sum() <= 2 * most * count
    else:
        assert (sent <= most * np.bincount(origin, minlength=devices)).all()


@pytest.mark.parametrize("routing", REPLICA_ROUTINGS)
@settings(max_examples=20)
@given(seed=seeds)
def test_one_copy_a_device_is_never_more_than_one_an_expert(routing: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    placement = replicated(8, 4, 16, rng)
    ids, origin = tokens(60, 8, 4, 4, rng)
    by_device, by_expert, relayed = (
        tm.dispatch(ids, origin, placement, MODEL, routing, copies, 2, seed=seed)[0]
        for copies in ("device", "expert", "node-relay")
    )
    assert (by_device <= by_expert).all()
    node = np.arange(4) // 2
    between = node[:, None] != node
    # One copy a node between nodes; what is saved there is forwarded inside.
    assert relayed[between].sum() <= by_device[between].sum()
    assert relayed.sum() >= by_device.sum()


def test_nodes_of_one_device_relay_nothing() -> None:
    rng = np.random.default_rng(0)
    placement = replicated(8, 4, 16, rng)
    ids, origin = tokens(60, 8, 4, 4, rng)
    direct, relayed = (
        tm.dispatch(ids, origin, placement, MODEL, copies=c)[0] for c in ("device", "node-relay")
    )
    np.testing.assert_array_equal(direct, relayed)


def test_a_device_with_all_experts_of_its_tokens_sends_nothing() -> None:
    everywhere = tm.place(np.ones(4), devices=4, slots=16)
    ids, origin = tokens(100, 4, 2, 4, np.random.default_rng(0))
    demand, load = tm.dispatch(ids, origin, everywhere, MODEL, "local-first", spill=np.inf)
    assert not demand.any()
    np.testing.assert_array_equal(load, 2 * np.bincount(origin, minlength=4))


def test_no_tokens_send_nothing() -> None:
    placement = tm.place(np.ones(8), devices=4)
    for routing in REPLICA_ROUTINGS:
        none = np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)
        demand, load = tm.dispatch(*none, placement, MODEL, routing)
        assert not demand.any()
        assert not load.any()


# Shares.


@settings(max_examples=50)
@given(seed=seeds, zeros=st.booleans())
def test_weighted_replicas_get_their_share_of_an_expert_to_within_one_token(
    seed: int, zeros: bool
) -> None:
    rng = np.random.default_rng(seed)
    placement = replicated(6, 4, 16, rng, zeros)
    ids, origin = tokens(int(rng.integers(1, 200)), 6, 2, 4, rng)
    load = slot_load(ids, origin, placement, "weighted")
    count = np.bincount(ids.ravel(), minlength=6)
    ideal = placement.slot_share * count[placement.slot_expert]
    assert (np.abs(load - ideal) < 1 + 1e-9).all()
    assert not load[placement.slot_share == 0].any()
    np.testing.assert_array_equal(np.bincount(placement.slot_expert, load, minlength=6), count)


@settings(max_examples=50)
@given(seed=seeds)
def test_even_replicas_get_equal_parts_to_within_one_token_whatever_their_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    placement = replicated(6, 4, 16, rng, zeros=True)
    ids, origin = tokens(int(rng.integers(1, 200)), 6, 2, 4, rng)
    load = slot_load(ids, origin, placement, "even")
    count = np.bincount(ids.ravel(), minlength=6)
    replicas = np.bincount(placement.slot_expert, minlength=6)
    assert (np.abs(load - (count / replicas)[placement.slot_expert]) < 1 + 1e-9).all()


def test_neighbouring_tokens_of_a_request_go_to_different_replicas() -> None:
    """Half the tokens to each of two replicas, and not the first half to one of them."""
    placement = LayerPlacement(np.array([0, 0], dtype=np.int32), np.array([0.5, 0.5]), 2, 1)
    ids, origin = np.zeros((64, 1), dtype=np.int64), np.repeat([0, 1], 32)
    firsts = []
    for seed in range(20):
        demand, load = tm.dispatch(ids, origin, placement, MODEL, seed=seed)
        np.testing.assert_array_equal(load, [32, 32])
        firsts.append(demand[0, 1] / BYTES)  # of the first half, those that went to replica 1
    assert min(firsts) >= 12
    assert max(firsts) <= 20


# Seeds.


@pytest.mark.parametrize("routing", ["weighted", "even"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(routing: str) -> None:
    rng = np.random.default_rng(1)
    placement = replicated(8, 4, 16, rng)
    ids, origin = tokens(500, 8, 2, 4, rng)
    first, again, other = (
        tm.dispatch(ids, origin, placement, MODEL, routing, seed=seed) for seed in (5, 5, 6)
    )
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert first[0].tobytes() != other[0].tobytes()


def test_the_layer_of_a_placement_may_be_given_either_way() -> None:
    placement = tm.place(np.arange(1.0, 9.0), devices=4, slots=12)
    ids, origin = tokens(50, 8, 2, 4, np.random.default_rng(0))
    whole, layer = (tm.dispatch(ids, origin, p, MODEL) for p in (placement, placement[0]))
    np.testing.assert_array_equal(whole[0], layer[0])
    np.testing.assert_array_equal(whole[1], layer[1])


# Padding and shared experts.


@settings(max_examples=25)
@given(seed=seeds, factor=st.floats(0.1, 3.0))
def test_padded_buffers_do_not_depend_on_the_routing(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    experts, devices, top_k = 8, 4, 2
    placement = single(experts, devices, rng)
    ids, origin = tokens(60, experts, top_k, devices, rng)
    others = np.broadcast_to([0, 1], ids.shape)
    demand, load = tm.dispatch(ids, origin, placement, MODEL, padded=factor)
    np.testing.assert_array_equal(
        demand, tm.dispatch(others, origin, placement, MODEL, padded=factor)[0]
    )
    at = np.bincount(origin, minlength=devices)
    held = experts // devices
    for i in range(devices):
        buffer = ceil(factor * int(at[i]) * top_k / experts)
        wanted = np.full(devices, buffer * held * BYTES, dtype=np.float64)
        wanted[i] = 0
        np.testing.assert_array_equal(demand[i], wanted)
    assert load.sum() == 60 * top_k  # what is computed is not padded


def test_replicas_share_a_padded_buffer() -> None:
    placement = LayerPlacement(np.array([0, 1, 0, 2]), np.array([0.25, 1, 0.75, 1]), 4, 3)
    ids, origin = np.array([[0], [1], [2], [0]]), np.zeros(4, dtype=np.int64)
    demand, _ = tm.dispatch(ids, origin, placement, MODEL, padded=1.5)
    np.testing.assert_allclose(demand[0] / BYTES, [0, 2, 2 * 0.75, 2])


def test_a_routed_shared_expert_is_one_more_pick_of_every_token() -> None:
    model = "deepseek-v2-lite"
    load = np.ones(65)
    load[64] = 10
    placement = tm.place(load, devices=8, slots=80)
    ids, origin = tokens(400, 64, 6, 8, np.random.default_rng(0))
    demand, device_load = tm.dispatch(ids, origin, placement, model, seed=2)
    appended = np.concatenate([ids, np.full((400, 1), 64)], axis=1)
    # The same placement of a model whose routed experts are 65.
    plain, plain_load = tm.dispatch(appended, origin, placement, MODEL, seed=2)
    assert device_load.sum() == 400 * 7
    np.testing.assert_array_equal(device_load, plain_load)
    np.testing.assert_array_equal(
        demand / MODELS[model].dispatch_bytes, plain / MODELS[MODEL].dispatch_bytes
    )
    with pytest.raises(InputError, match=r"experts must lie in 0\.\.63, got 64"):
        tm.dispatch(appended, origin, placement, model)


# Bytes.


@pytest.mark.parametrize(
    ("model", "dispatch", "combine"),
    [
        ("deepseek-v3", 7392, 14336),
        ("kimi-k2", 7392, 14336),
        ("deepseek-v2-lite", 2112, 4096),
        ("gpt-oss-20b", 2972, 5760),  # 22.5 blocks of 128: 23 scales
        ("mixtral-8x7b", 4224, 8192),
    ],
)
def test_a_copy_is_fp8_with_scales_there_and_bf16_back(
    model: str, dispatch: int, combine: int
) -> None:
    shape = MODELS[model]
    assert shape.dispatch_bytes == dispatch == shape.hidden + 4 * ceil(shape.hidden / 128)
    assert shape.combine_bytes == combine == 2 * shape.hidden
    placement = single(4, 4, np.random.default_rng(0))
    target = int(placement.slot_device[placement.slot_expert == 2][0])
    start = (target + 1) % 4
    demand, _ = tm.dispatch([[2]], [start], placement, shape)
    assert demand[start, target] == demand.sum() == dispatch


def test_expert_counts_are_four_bytes_each() -> None:
    assert all_gather_bytes(256) == 1024


def test_only_routings_by_load_need_counts() -> None:
    needing = [r for r in REPLICA_ROUTINGS if DispatchSettings(r).needs_counts]
    assert needing == ["local-first", "least-loaded", "lp"]


# Errors.

GOOD: dict[str, Any] = {
    "experts": np.array([[0, 1], [2, 3], [0, 7]]),
    "origin": np.array([0, 1, 3]),
    "placement_of_layer": tm.place(np.ones(8), devices=4),
    "model": MODEL,
}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "expert too large": (
        {"experts": np.array([[0, 8], [0, 1], [2, 3]])},
        r"experts must lie in 0\.\.7, got 8",
    ),
    "expert negative": (
        {"experts": np.array([[0, -2], [0, 1], [2, 3]])},
        r"experts must lie in 0\.\.7, got -2",
    ),
    "no expert first": (
        {"experts": np.array([[0, 1], [-1, 1], [2, 3]])},
        r"experts of token 1: -1 \(no expert\) must come after its experts",
    ),
    "expert beyond int16": (
        {"experts": np.array([[65536, 1], [0, 1], [2, 3]])},
        r"experts must lie in 0\.\.7, got 65536",
    ),
    "float experts": (
        {"experts": np.ones((3, 2))},
        r"experts must be integers \[T, K\], got float64 \[3, 2\]",
    ),
    "experts of one dimension": (
        {"experts": np.array([0, 1, 2])},
        r"experts must be integers \[T, K\], got int64 \[3\]",
    ),
    "origin too large": ({"origin": np.array([0, 1, 4])}, r"origin must lie in 0\.\.3, got 4"),
    "origin negative": ({"origin": np.array([0, -2, 1])}, r"origin must lie in 0\.\.3, got -2"),
    "float origin": (
        {"origin": np.zeros(3)},
        r"origin must be integers \[T\] = \[3\], got float64 \[3\]",
    ),
    "origins of another number": (
        {"origin": np.array([0, 1])},
        r"origin must be integers \[T\] = \[3\], got int64 \[2\]",
    ),
    "nodes that do not divide": (
        {"copies": "node-relay", "node_size": 3},
        "node_size must divide devices, got node_size=3 and devices=4",
    ),
    "node_size": ({"node_size": 0}, "node_size must be >= 1, got 0"),
    "columns": ({"columns": 0}, "columns must be >= 1, got 0"),
    "seed": ({"seed": -1}, "seed must be >= 0, got -1"),
    "padded negative": ({"padded": -1.0}, "padded must be a capacity factor >= 0, got -1"),
    "padded NaN": ({"padded": np.nan}, "padded must be a capacity factor >= 0, got nan"),
    "replica routing": (
        {"replica_routing": "weigted"},
        "unknown replica routing 'weigted'; did you mean 'weighted'",
    ),
    "copies": ({"copies": "devices"}, "unknown copies 'devices'; did you mean 'device'"),
    "model": ({"model": "mixtral-8x7"}, "unknown model 'mixtral-8x7'; did you mean 'mixtral-8x7b'"),
    "several layers": (
        {"placement_of_layer": tm.place(np.ones((3, 8)), devices=4)},
        "dispatch takes one layer's placement, got 3 layers",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_refused_in_one_line(case: str) -> None:
    changed, message = WRONG[case]
    tm.dispatch(**GOOD)
    with pytest.raises(InputError, match=message) as caught:
        tm.dispatch(**{**GOOD, **changed})
    assert "\n" not in str(caught.value)
