"""Capacity per expert: closed forms, a restatement pair by pair, conservation, what is reported."""

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
    Dispatched,
    DispatchSettings,
    dispatch_batch,
    replica_tables,
)
from topomoe.placement import place
from topomoe.topologies import make
from topomoe.topologies.errors import InputError
from topomoe.workload import WorkloadSettings

REROUTE = "reroute-to-next-expert"
seeds = st.integers(0, 2**32 - 1)


def batch(
    ids: NDArray[np.int64], num_experts: int, devices: int = 4, shared: bool = False, **given: Any
) -> Dispatched:
    """Dispatch tokens [T, K] from device 0 on."""
    placed = num_experts + shared
    slots = devices * -(-2 * placed // devices)
    placement = place(np.ones(placed), devices, slots, method="eplb")
    dispatch = DispatchSettings(**given)
    return dispatch_batch(
        ids[None].astype(np.int16),
        np.arange(len(ids)),
        (np.arange(len(ids)) % devices).astype(np.int32),
        replica_tables(placement, dispatch.replica_routing),
        dispatch,
        np.zeros(devices, dtype=np.int64),
        np.array([5], dtype=np.uint64),
        num_experts if shared else -1,
    )


def expert_load(sent: Dispatched, num_experts: int, devices: int = 4) -> NDArray[np.int64]:
    slots = sent.slot_load.shape[1]
    placement = place(np.ones(num_experts), devices, slots, method="eplb")
    return np.bincount(placement.slot_expert[0], sent.slot_load[0], num_experts).astype(np.int64)


def restated(
    ids: NDArray[np.int64], num_experts: int, factor: float, reroute: bool
) -> tuple[NDArray[np.int64], int, int]:
    """Expert loads, dropped and re-routed pairs: pair by pair in batch order."""
    capacity = ceil(factor * ids.size / num_experts)
    load, dropped, rerouted = [0] * num_experts, 0, 0
    for row in ids.tolist():
        now: list[int | None] = list(row)
        for k, expert in enumerate(row):
            if load[expert] == capacity:
                able = [(expert + step) % num_experts for step in range(1, num_experts)]
                able = [e for e in able if load[e] < capacity and e not in now]
                if not reroute or not able:
                    now[k] = None
                    dropped += 1
                    continue
                expert = now[k] = able[0]
                rerouted += 1
            load[expert] += 1
    return np.array(load), dropped, rerouted


def choices(rng: np.random.Generator, num_experts: int) -> NDArray[np.int64]:
    tokens, top_k = int(rng.integers(0, 80)), int(rng.integers(1, num_experts + 1))
    score = rng.gumbel(size=(tokens, num_experts)) + 1.5 * rng.normal(size=num_experts)
    return np.argsort(-score, axis=1)[:, :top_k]


@settings(max_examples=60, deadline=None)
@given(seed=seeds, factor=st.floats(0.2, 3.0), reroute=st.booleans())
def test_capacity_is_its_restatement(seed: int, factor: float, reroute: bool) -> None:
    rng = np.random.default_rng(seed)
    num_experts = int(rng.integers(2, 12))
    ids = choices(rng, num_experts)
    overflow = REROUTE if reroute else "drop"
    sent = batch(ids, num_experts, capacity_factor=factor, overflow=overflow)
    load, dropped, rerouted = restated(ids, num_experts, factor, reroute)
    np.testing.assert_array_equal(expert_load(sent, num_experts), load)
    assert (sent.dropped[0], sent.rerouted[0]) == (dropped, rerouted)


@pytest.mark.parametrize("routing", REPLICA_ROUTINGS)
@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("overflow", ["drop", REROUTE])
@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_kept_and_dropped_pairs_are_all_pairs(
    routing: str, copies: str, overflow: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = choices(rng, 8)
    sent = batch(
        ids,
        8,
        replica_routing=routing,
        copies=copies,
        node_size=2,
        capacity_factor=0.8,
        overflow=overflow,
    )
    assert sent.slot_load.sum() + sent.dropped.sum() == ids.size
    assert sent.wanted.sum() == ids.size
    assert (expert_load(sent, 8) <= ceil(0.8 * ids.size / 8)).all()
    if overflow == "drop":
        assert not sent.rerouted.any()


def test_one_hot_expert_drops_all_above_its_capacity() -> None:
    # 64 tokens of expert 3, 8 experts: capacity ceil(1.25 * 64 / 8) = 10.
    sent = batch(np.full((64, 1), 3), 8, capacity_factor=1.25)
    assert sent.dropped[0] == 54
    assert sent.dropped_share[0] == 54 / 64
    assert sent.pre_drop_cv[0] == pytest.approx(np.sqrt(7))  # one of eight has all: sqrt(E - 1)


def test_one_hot_expert_fills_the_next_ones_when_rerouted() -> None:
    sent = batch(np.full((64, 1), 6), 8, capacity_factor=2.0, overflow=REROUTE)  # 16 each
    np.testing.assert_array_equal(expert_load(sent, 8), [16, 16, 0, 0, 0, 0, 16, 16])
    assert (sent.dropped[0], sent.rerouted[0]) == (0, 48)


def test_a_token_is_never_sent_to_an_expert_twice() -> None:
    # Both tokens choose 0 and 1, one each fits: the second's go to 2 and 3.
    sent = batch(np.array([[0, 1], [0, 1]]), 4, capacity_factor=1.0, overflow=REROUTE)
    np.testing.assert_array_equal(expert_load(sent, 4), [1, 1, 1, 1])
    # Of two experts, each token has both: nothing is left to go to.
    full = batch(np.array([[0, 1]] * 4), 2, capacity_factor=0.5, overflow=REROUTE)
    assert (full.dropped[0], full.rerouted[0]) == (4, 0)


def test_balanced_choices_need_no_capacity() -> None:
    ids = np.stack([np.arange(64) % 8, (np.arange(64) + 1) % 8], axis=1)
    free, limited = batch(ids, 8), batch(ids, 8, capacity_factor=1.0)
    assert not limited.dropped.any()
    np.testing.assert_array_equal(limited.copies, free.copies)
    assert limited.pre_drop_cv[0] == 0


def test_overflow_none_keeps_every_pair() -> None:
    ids = np.full((64, 1), 3)
    kept = batch(ids, 8, capacity_factor=1.0, overflow="none")
    assert kept.slot_load.sum() == 64
    assert not kept.dropped.any()


def test_less_capacity_never_drops_less() -> None:
    ids = choices(np.random.default_rng(4), 10)
    dropped = [batch(ids, 10, capacity_factor=f).dropped[0] for f in (4.0, 2.0, 1.5, 1.0, 0.5)]
    assert dropped == sorted(dropped)
    assert dropped[-1] > 0
    for factor in (1.0, 1.5):
        moved = batch(ids, 10, capacity_factor=factor, overflow=REROUTE).dropped[0]
        assert moved <= batch(ids, 10, capacity_factor=factor).dropped[0]


def test_a_dropped_pair_sends_nothing() -> None:
    # All start on device 0; what is kept is at most ceil(T / E) copies to the expert's device.
    ids = np.full((32, 1), 1)
    sent = batch(ids, 8, capacity_factor=1.0, copies="expert")
    assert sent.copies.sum() <= 4


def test_a_routed_shared_expert_is_never_dropped() -> None:
    ids = np.full((64, 1), 3)
    sent = batch(ids, 8, shared=True, capacity_factor=1.0)
    load = expert_load(sent, 9)
    assert load[8] == 64
    assert load[3] == 8
    assert sent.wanted.shape == (1, 8)
    assert sent.dropped_share[0] == 56 / 64


def test_padded_buffers_hold_the_capacity() -> None:
    ids = np.full((64, 1), 3)
    sent = batch(ids, 8, capacity_factor=1.0, padded=1.0)
    full = batch(ids, 8, padded=1.0)
    np.testing.assert_array_equal(sent.copies, full.copies)  # full buffers, whatever is kept
    assert sent.dropped[0] == 56
    with pytest.raises(InputError, match=r"capacity_factor must be <= padded, got 1\.5 and 1\.0"):
        DispatchSettings(padded=1.0, capacity_factor=1.5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"capacity_factor": -1.0}, "capacity_factor must be finite and >= 0, got -1"),
        ({"capacity_factor": np.nan}, "capacity_factor must be finite and >= 0, got nan"),
        ({"capacity_factor": np.inf}, "capacity_factor must be finite and >= 0, got inf"),
        ({"overflow": "dropp"}, "unknown overflow 'dropp'; did you mean 'drop'"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DispatchSettings(**changed)


# What a simulation reports.

TRACE = tm.synthetic_trace("mixtral-8x7b", requests=12, positions=24).filter(layers=(0, 9))


def simulated(**given: Any) -> Any:
    return tm.simulate(
        TRACE,
        make("torus", (2, 4)),
        place(TRACE, 8, 16, method="eplb"),
        "mixtral-8x7b",
        workload=WorkloadSettings(batches=3, batch_tokens=128),
        dispatch=DispatchSettings(**given),
    )


def test_a_simulation_reports_what_is_dropped_and_rerouted() -> None:
    free = simulated()
    for field in (free.dropped_share, free.rerouted_share, free.pre_drop_cv):
        assert field.shape == (3, 2)
    assert not free.dropped_share.any()
    assert (free.pre_drop_cv > 0).all()
    dropped = simulated(capacity_factor=1.0)
    np.testing.assert_array_equal(dropped.pre_drop_cv, free.pre_drop_cv)
    kept = dropped.device_load.sum(axis=1) / (128 * TRACE.top_k)
    np.testing.assert_allclose(kept + dropped.dropped_share.mean(axis=0), 1)
    assert (dropped.dropped_share > 0).all()
    moved = simulated(capacity_factor=1.0, overflow=REROUTE)
    assert (moved.rerouted_share > 0).all()
    # An expert each token lacks with room for it is all but always there.
    assert (moved.dropped_share < dropped.dropped_share).all()
    frame = moved.to_frame()
    np.testing.assert_array_equal(frame["rerouted_share"], moved.rerouted_share.ravel())
    np.testing.assert_array_equal(frame["pre_drop_cv"], moved.pre_drop_cv.ravel())
    assert (moved.times.compute.mean() <= free.times.compute.mean()).all()
