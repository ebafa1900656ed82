"""Moving few expert copies towards a new load, once or while serving."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.placement import Placement, PlacementOptions, lower_bound, place
from topomoe.placement.shift.incremental import (
    IncrementalSettings,
    IncrementalState,
    evaluate_incremental,
    update,
)
from topomoe.placement.shift.rebalance import relabelled
from topomoe.topologies.errors import InputError


def moved_to(load: np.ndarray, previous: Placement, moves: int) -> Placement:
    return place(
        load,
        previous.num_devices,
        previous.num_slots,
        method="rebalance",
        previous=previous,
        options=PlacementOptions(moves=moves),
    )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    devices=st.integers(1, 6),
    per_device=st.integers(1, 4),
    hot=st.sampled_from([1.0, 30.0]),
)
def test_more_moves_are_never_worse_and_never_more_than_allowed(
    seed: int, devices: int, per_device: int, hot: float
) -> None:
    rng = np.random.default_rng(seed)
    experts = int(rng.integers(max(1, per_device + 1), devices * per_device + 2))
    experts = min(experts, devices * per_device)
    old, new = rng.lognormal(0, 1, (2, 2, experts))
    new[0, 0] *= hot
    previous = place(old, devices, devices * per_device, method="eplb")
    largest = np.inf
    for moves in (0, 1, 2, 8, -1):
        after = moved_to(new, previous, moves)
        copies = after.migration_slots(previous).sum(axis=1)
        if moves >= 0:
            assert (copies <= moves).all()
        now = after.device_load(new).max(axis=1)
        assert (now <= largest * (1 + 2e-5)).all()
        largest = now
    bound = np.array([lower_bound(row, devices, devices * per_device) for row in new])
    assert (largest >= bound * (1 - 1e-9)).all()


def test_no_moves_keep_the_slots_and_shares_alone_help() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.lognormal(0, 0.8, (2, 3, 24))
    previous = place(old, 8, 40, method="eplb")
    after = moved_to(new, previous, 0)
    np.testing.assert_array_equal(after.slot_expert, previous.slot_expert)
    assert (after.balancedness(new) >= previous.balancedness(new)).all()
    assert (after.balancedness(new) > previous.balancedness(new) + 0.01).any()


def test_a_placement_that_shares_can_balance_moves_nothing() -> None:
    load = np.random.default_rng(1).lognormal(0, 0.7, (2, 20))
    previous = place(load, 5, 30, method="exact")
    after = moved_to(load, previous, -1)
    np.testing.assert_array_equal(after.slot_expert, previous.slot_expert)
    np.testing.assert_allclose(after.balancedness(load), 1)


def test_any_number_of_moves_reaches_balance_with_fewer_than_afresh() -> None:
    rng = np.random.default_rng(2)
    old = rng.lognormal(0, 0.8, (2, 32))
    new = old * rng.lognormal(0, 0.5, (2, 32))
    previous = place(old, 8, 48, method="exact")
    after = moved_to(new, previous, -1)
    assert (after.balancedness(new) > 0.99).all()
    afresh = relabelled(place(new, 8, 48, method="exact"), previous)
    assert after.migration_slots(previous).sum() < afresh.migration_slots(previous).sum()


def test_one_move_gives_a_hot_expert_the_copy_it_lacks() -> None:
    # Experts 0..3 with spare slots on devices 2 and 3; expert 0 becomes hot.
    previous = Placement(
        np.array([[0, 1, 2, 3, 1, 2, 3, 1]], dtype=np.int32),
        np.array([[1, 1, 1, 1, 0, 0, 0, 0]], dtype=np.float64),
        4,
        4,
    )
    load = np.array([[8.0, 1.0, 1.0, 1.0]])
    after = moved_to(load, previous, 1)
    assert after.migration_slots(previous).sum() == 1
    assert after.replicas()[0, 0] == 2
    np.testing.assert_allclose(after.device_load(load).max(), 4, rtol=1e-5)


def test_renaming_devices_finds_a_permuted_placement_again() -> None:
    load = np.random.default_rng(3).lognormal(0, 0.7, (2, 12))
    placement = place(load, 4, 16, method="exact")
    order = [2, 0, 3, 1]
    permuted = Placement(
        placement.slot_expert.reshape(2, 4, 4)[:, order].reshape(2, 16),
        placement.slot_share.reshape(2, 4, 4)[:, order].reshape(2, 16),
        4,
        12,
    )
    assert permuted.migration_slots(placement).sum() > 0
    assert relabelled(permuted, placement).migration_slots(placement).sum() == 0


def test_a_previous_placement_of_another_shape_is_refused() -> None:
    previous = place(np.ones(6), 3, 6)
    with pytest.raises(InputError, match="previous must have the same"):
        place(np.ones(6), 3, 9, method="rebalance", previous=previous)


def test_an_update_forgets_at_the_rate_it_is_told() -> None:
    placement = place(np.ones((1, 4)), 2, 6)
    chosen = IncrementalSettings(memory=0.75, moves=0)
    state = IncrementalState(placement, np.zeros((1, 4)))
    state = update(state, [[8.0, 0, 0, 0]], chosen)
    np.testing.assert_allclose(state.load, [[4, 0, 0, 0]])
    state = update(state, [[5.0, 5, 5, 5]], chosen)
    np.testing.assert_allclose(state.load, [[0.75 * 4 + 0.25, 0.25, 0.25, 0.25]])
    kept = update(state, np.zeros((1, 4)), chosen)
    np.testing.assert_allclose(kept.load, state.load)
    assert kept.copies == 0


def test_copies_move_only_where_they_are_worth_their_cost() -> None:
    rng = np.random.default_rng(4)
    placement = place(rng.lognormal(0, 0.8, (3, 24)), 8, 32, method="eplb")
    state = IncrementalState(placement, np.zeros((3, 24)))
    counts = rng.lognormal(0, 0.8, (3, 24))
    cheap = update(state, counts, IncrementalSettings(moves=3, copy_cost=0.0))
    dear = update(state, counts, IncrementalSettings(moves=3, copy_cost=1e6))
    assert 0 < cheap.copies <= 9
    assert cheap.copies == cheap.placement.migration_slots(placement).sum()
    assert dear.copies == 0
    np.testing.assert_array_equal(dear.placement.slot_expert, placement.slot_expert)


def test_following_a_lasting_change_lowers_the_load() -> None:
    rng = np.random.default_rng(5)
    old, new = rng.lognormal(0, 0.8, (2, 2, 24))
    placement = place(old, 8, 32, method="eplb")
    rows = evaluate_incremental([new] * 6, placement, IncrementalSettings(moves=2))
    last = rows[rows.interval == 5].set_index("policy").max_over_mean
    assert last["moves"] < last["shares"] < last["static"]
    first = rows[rows.interval == 0].max_over_mean
    assert first.nunique() == 1


@pytest.mark.parametrize(
    ("field", "value"), [("memory", 1.0), ("moves", -1), ("copy_cost", -1.0), ("horizon", 0)]
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=field):
        IncrementalSettings(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"counts must be"):
        update(IncrementalState(place(np.ones(4), 2, 4), np.zeros((1, 4))), np.ones((1, 5)))
