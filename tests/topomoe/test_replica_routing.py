"""Replica routing per batch: the optimum and its proof, locality under a cap, batches of counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

import topomoe as tm
from topomoe.comparison.batch_balance import COLUMNS, batch_balance_rows
from topomoe.demand import (
    COPIES,
    REPLICA_ROUTINGS,
    DispatchSettings,
    dispatch_batch,
    replica_tables,
)
from topomoe.dispatching.replica_optimum import balance_replicas
from topomoe.model import MODELS
from topomoe.placement import LayerPlacement, Placement, place
from topomoe.synthetic import calibrated_loads
from topomoe.topologies.errors import InputError

MODEL = "mixtral-8x7b"

seeds = st.integers(0, 2**32 - 1)


def random_placement(rng: np.random.Generator) -> LayerPlacement:
    """Any number of devices, slots and experts; an expert may be on a device twice."""
    devices, per_device = int(rng.integers(1, 12)), int(rng.integers(1, 5))
    slots = devices * per_device
    experts = int(rng.integers(1, slots + 1))
    more = rng.integers(experts, size=slots - experts)
    slot_expert = rng.permutation(np.concatenate([np.arange(experts), more])).astype(np.int32)
    weight = rng.random(slots) * (rng.random(slots) < 0.7)
    total = np.bincount(slot_expert, weight, minlength=experts)
    replicas = np.bincount(slot_expert, minlength=experts)
    share = np.where(
        total[slot_expert] > 0,
        weight / np.maximum(total[slot_expert], 1e-300),
        1.0 / replicas[slot_expert],
    )
    return LayerPlacement(slot_expert, share, devices, experts)


def random_count(placement: LayerPlacement, rng: np.random.Generator) -> NDArray[np.int64]:
    mean = rng.choice([0.5, 5.0, 300.0])
    return rng.poisson(mean * rng.lognormal(0, 1.5, placement.num_experts)).astype(np.int64)


def fractional_optimum(count: NDArray[np.int64], placement: LayerPlacement) -> float:
    """The least largest load with fractions of tokens, by HiGHS."""
    slots, devices, experts = placement.num_slots, placement.num_devices, placement.num_experts
    cost = np.zeros(slots + 1)
    cost[-1] = 1
    equal = np.zeros((experts, slots + 1))
    equal[placement.slot_expert, np.arange(slots)] = 1
    most = np.zeros((devices, slots + 1))
    most[placement.slot_device, np.arange(slots)] = 1
    most[:, -1] = -1
    found = linprog(cost, most, np.zeros(devices), equal, count, method="highs")
    assert found.status == 0
    return float(found.fun)


# The optimum.


@settings(max_examples=150, deadline=None)
@given(seed=seeds)
def test_lp_is_the_linear_programmes_optimum_rounded_up_and_proves_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    placement = random_placement(rng)
    count = random_count(placement, rng)
    slots, largest, proof = balance_replicas(count, placement)
    assert slots.min() >= 0
    np.testing.assert_array_equal(
        np.bincount(placement.slot_expert, slots, placement.num_experts), count
    )
    load = slots.reshape(placement.num_devices, -1).sum(axis=1)
    assert load.max() <= largest
    assert largest == int(np.ceil(fractional_optimum(count, placement) - 1e-6))
    # The proof: what only the devices of the set can serve does not fit under a lower load.
    inside = [
        proof[placement.slot_device[placement.slot_expert == e]].all()
        for e in range(placement.num_experts)
    ]
    confined = int(count[np.array(inside)].sum())
    assert proof.any()
    assert -(-confined // int(proof.sum())) == largest
    assert load.max() == largest


@pytest.mark.parametrize("method", ["exact", "eplb"])
def test_lp_is_the_optimum_on_calibrated_loads(method: str) -> None:
    load = calibrated_loads("deepseek-v3", 3, layers=4)
    placement = place(load, 128, 384, method=method)
    rng = np.random.default_rng(0)
    for m, layer in enumerate(placement):
        count = rng.multinomial(16384 * 8, load[m])
        assert balance_replicas(count, layer)[1] == int(
            np.ceil(fractional_optimum(count, layer) - 1e-6)
        )


def test_replicas_of_share_zero_serve_too() -> None:
    placement = LayerPlacement(np.array([0, 1, 1, 0]), np.array([1.0, 1.0, 0.0, 0.0]), 2, 2)
    slots, largest, _ = balance_replicas([10, 0], placement)
    assert largest == 5
    np.testing.assert_array_equal(slots, [5, 0, 0, 5])


def test_a_chain_of_devices_passes_load_along() -> None:
    # Expert d is on devices d and d+1; all tokens are of expert 0, the others let it through.
    devices = 6
    slot_expert = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4])
    share = np.array([1, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0], dtype=float)
    placement = LayerPlacement(slot_expert, share, devices, 5)
    slots, largest, proof = balance_replicas([12, 6, 6, 6, 6], placement)
    assert largest == 6
    assert proof.all()
    np.testing.assert_array_equal(slots.reshape(devices, 2).sum(axis=1), 6)


@pytest.mark.parametrize(
    ("count", "message"),
    [
        ([1, 2, 3], r"count must be \[E\] = \[2\]"),
        ([1, -1], "count must be >= 0, got -1"),
        ([1, 0.5], "count must be whole numbers"),
    ],
)
def test_counts_that_do_not_fit_are_refused(count: list[float], message: str) -> None:
    placement = LayerPlacement(np.array([0, 1]), np.ones(2), 2, 2)
    with pytest.raises(InputError, match=message):
        balance_replicas(count, placement)


# Routings beside each other.


def drawn(
    rng: np.random.Generator, count: int, experts: int, top_k: int, devices: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    score = rng.gumbel(size=(count, experts)) + rng.normal(size=experts)
    return np.argsort(-score, axis=1)[:, :top_k], rng.integers(devices, size=count)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, shared=st.booleans())
def test_no_routing_has_a_smaller_largest_load_than_lp(seed: int, shared: bool) -> None:
    rng = np.random.default_rng(seed)
    placement = random_placement(rng)
    model, experts = MODELS[MODEL], placement.num_experts
    if shared and experts > 1:  # the last one: an expert of every token
        experts -= 1
        model = replace(MODELS["deepseek-v2-lite"], num_experts=experts)
    ids, origin = drawn(rng, 80, experts, min(4, experts), placement.num_devices)
    loads = {
        routing: tm.dispatch(ids, origin, placement, model, routing, columns=2, seed=seed)[1]
        for routing in REPLICA_ROUTINGS
    }
    for load in loads.values():
        assert load.sum() == loads["even"].sum()
        assert load.max() >= loads["lp"].max()
    assert loads["local-first"].max() == loads["lp"].max()  # a spill of 0


@settings(max_examples=60, deadline=None)
@given(seed=seeds, spill=st.sampled_from([0.0, 0.01, 0.1, 0.5, 3.0]))
def test_local_first_keeps_the_cap_of_its_spill(seed: int, spill: float) -> None:
    rng = np.random.default_rng(seed)
    placement = random_placement(rng)
    ids, origin = drawn(rng, 150, placement.num_experts, 1, placement.num_devices)
    best = balance_replicas(np.bincount(ids.ravel(), minlength=placement.num_experts), placement)[1]
    _, load = tm.dispatch(ids, origin, placement, MODEL, "local-first", columns=2, spill=spill)
    assert load.max() <= np.floor((1 + spill) * best + 1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_local_first_without_a_cap_takes_the_device_then_the_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    placement = random_placement(rng)
    ids, origin = drawn(rng, 120, placement.num_experts, 1, placement.num_devices)
    columns = int(rng.integers(1, 5))
    demand, _ = tm.dispatch(
        ids, origin, placement, MODEL, "local-first", "expert", columns=columns, spill=np.inf
    )
    row = np.arange(placement.num_devices) // columns
    remote, crossing = 0, 0
    for expert, here in zip(ids.ravel().tolist(), origin.tolist(), strict=True):
        able = placement.slot_device[placement.slot_expert == expert]
        remote += here not in able
        crossing += row[here] not in row[able]
    sent = demand / MODELS[MODEL].dispatch_bytes
    assert sent.sum() == remote
    assert sent[row[:, None] != row].sum() == crossing


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_lp_keeps_as_many_tokens_near_as_its_quotas_allow(seed: int) -> None:
    """For the slot loads it computes, no dealing sends fewer pairs off the device or the row."""
    rng = np.random.default_rng(seed)
    placement = random_placement(rng)
    experts, devices = placement.num_experts, placement.num_devices
    ids, origin = drawn(rng, 100, experts, min(3, experts), devices)
    columns = int(rng.integers(1, 5))
    row = np.arange(devices) // columns
    for routing in ("lp", "local-first"):
        demand, _ = tm.dispatch(ids, origin, placement, MODEL, routing, "expert", columns=columns)
        sent = demand / MODELS[MODEL].dispatch_bytes
        slots = slot_loads(ids, origin, placement, routing, columns)
        kept, kept_in_row = 0, 0
        for e in range(experts):
            at = np.bincount(origin[(ids == e).any(axis=1)], minlength=devices)
            quota = np.zeros(devices, dtype=np.int64)
            mine = placement.slot_expert == e
            np.add.at(quota, placement.slot_device[mine], slots[mine])
            kept += np.minimum(at, quota).sum()
            kept_in_row += np.minimum(np.bincount(row, at), np.bincount(row, quota)).sum()
        assert sent.sum() == ids.size - kept
        assert sent[row[:, None] != row].sum() == ids.size - kept_in_row


def slot_loads(
    ids: NDArray[np.int64],
    origin: NDArray[np.int64],
    placement: LayerPlacement,
    routing: str,
    columns: int,
) -> NDArray[np.int64]:
    whole = Placement(
        placement.slot_expert[None],
        placement.slot_share[None],
        placement.num_devices,
        placement.num_experts,
    )
    return dispatch_batch(
        ids[None].astype(np.int16),
        np.arange(len(ids)),
        origin.astype(np.int32),
        replica_tables(whole, routing),
        DispatchSettings(routing),
        np.arange(placement.num_devices) // columns,
        np.random.default_rng(0).integers(2**63, size=1).astype(np.uint64),
    ).slot_load[0]


@pytest.mark.parametrize("method", ["exact", "eplb"])
def test_choices_by_locality_cross_fewer_rows_than_by_share(method: str) -> None:
    load = calibrated_loads("deepseek-v2-lite", 1, layers=1)
    placement = place(load, 64, 192, method=method)[0]
    rng = np.random.default_rng(0)
    score = rng.gumbel(size=(4096, 64)) + np.log(load[0])
    ids, origin = np.argsort(-score, axis=1)[:, :6], rng.integers(64, size=4096)
    row = np.arange(64) // 8
    crossing = {}
    for routing in REPLICA_ROUTINGS:
        demand, _ = tm.dispatch(ids, origin, placement, MODEL, routing, columns=8)
        crossing[routing] = demand[row[:, None] != row].sum()
    assert max(crossing["local-first"], crossing["lp"]) < 0.95 * crossing["weighted"]


def test_slivers_are_emptied_where_another_replica_has_room() -> None:
    # 3 of expert 0's 100 tokens are planned beside expert 1; the other device may take them.
    placement = LayerPlacement(np.array([0, 2, 0, 1]), np.array([0.97, 1, 0.03, 1]), 2, 3)
    ids = np.repeat([0, 1, 2], [100, 110, 5])[:, None]
    slots = slot_loads(ids, np.zeros(len(ids), dtype=np.int64), placement, "lp", 2)
    np.testing.assert_array_equal(slots, [100, 5, 0, 110])


@pytest.mark.parametrize("routing", ["lp", "local-first"])
@pytest.mark.parametrize("copies", COPIES)
def test_the_same_seed_gives_the_same_bytes(routing: str, copies: str) -> None:
    rng = np.random.default_rng(0)
    placement = place(rng.lognormal(0, 1, 24), 8, 48, method="exact")
    ids, origin = drawn(rng, 400, 24, 4, 8)
    first, again = (
        tm.dispatch(ids, origin, placement, MODEL, routing, copies, 2, seed=3) for _ in range(2)
    )
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()


def test_a_spill_below_zero_is_refused() -> None:
    for spill in (-0.1, np.nan):
        with pytest.raises(InputError, match="spill must be >= 0, got"):
            DispatchSettings(spill=spill)


# Batches.

LOAD = calibrated_loads("deepseek-v3", 0, layers=3)
PLACEMENTS = {method: place(LOAD, 128, 384, method=method) for method in ("exact", "eplb")}


def test_exact_with_lp_is_within_four_percent_of_balance_at_128_tokens_a_device() -> None:
    rows = batch_balance_rows(
        {"exact": PLACEMENTS["exact"]}, LOAD, None, ("lp",), (128,), batches=64, columns=8
    )
    assert rows["max_over_mean_p99"].item() <= 1.04


def test_every_routing_of_iid_batches_is_in_order() -> None:
    rows = batch_balance_rows(PLACEMENTS, LOAD, tokens_per_device=(16, 256), batches=8, columns=8)
    assert tuple(rows.columns) == COLUMNS
    assert len(rows) == 2 * 2 * len(REPLICA_ROUTINGS)
    for _, cell in rows.groupby(["placement", "tokens_per_device"]):
        value = cell.set_index("replica_routing")["max_over_mean"]
        assert value["lp"] == value["local-first"]
        assert value["lp"] <= value["least-loaded"]
        assert value["lp"] < value["weighted"]
        assert value["lp"] < value["even"]
    few, many = (
        rows[rows["tokens_per_device"] == n].set_index(["placement", "replica_routing"])
        for n in (16, 256)
    )
    assert (many["max_over_mean"] < few["max_over_mean"]).all()


def test_batches_of_a_trace_are_those_of_dispatch() -> None:
    trace = tm.synthetic_trace("deepseek-v2-lite", requests=8, positions=24).filter(layers=(0, 5))
    placements = {"eplb": place(trace, 16, 96, method="eplb")}
    rows = batch_balance_rows(
        placements, trace=trace, tokens_per_device=(8, 32), batches=3, columns=4
    )
    assert set(rows["draw"]) == {"trace"}
    for _, cell in rows.groupby("tokens_per_device"):
        value = cell.set_index("replica_routing")
        assert value["max_over_mean"].idxmin() in ("lp", "local-first")
        crossing = value["cross_row_copies_per_token"]
        assert crossing["local-first"] < crossing["weighted"]
        assert (crossing < value["remote_copies_per_token"]).all()
        assert (value["remote_copies_per_token"] < trace.top_k).all()


def test_rows_of_batches_are_the_same_bytes_again() -> None:
    trace = tm.synthetic_trace("deepseek-v2-lite", requests=4, positions=12).filter(layers=(0,))
    placements = {"exact": place(trace, 8, 80, method="exact")}
    first, again = (
        batch_balance_rows(placements, trace.load(), trace, tokens_per_device=(8,), batches=2)
        for _ in range(2)
    )
    assert first.to_csv() == again.to_csv()
    assert set(first["draw"]) == {"iid", "trace"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"load": None}, "batch balance needs a load or a trace"),
        ({"load": np.ones((2, 256))}, r"load must be \[M, E\] = \[3, 256\]"),
        ({"load": np.full((3, 256), np.nan)}, "load must be finite and >= 0"),
        ({"replica_routings": ("lpp",)}, "unknown replica routing 'lpp'"),
        ({"tokens_per_device": (0,)}, "tokens_per_device must be >= 1, got 0"),
        ({"batches": 0}, "batches must be >= 1, got 0"),
    ],
)
def test_batches_that_cannot_be_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        batch_balance_rows(**{"placements": PLACEMENTS, "load": LOAD, **changed})
