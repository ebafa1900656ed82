"""Whole hash entries: every expert's table is full, near its shares, and balanced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.placement import Placement, place
from topomoe.placement.apportion import active_replicas, dispatch_table, integer_shares, rounded
from topomoe.synthetic import calibrated_loads
from topomoe.topologies.errors import InputError


def sums(placement: Placement, weights: np.ndarray) -> np.ndarray:
    """The entries of each expert, [M, E]."""
    return np.stack(
        [
            np.bincount(row, weight, placement.num_experts)
            for row, weight in zip(placement.slot_expert, weights, strict=True)
        ]
    )


@settings(deadline=None, max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    devices=st.integers(2, 9),
    per_device=st.integers(2, 4),
    entries=st.integers(1, 200),
)
def test_entries_add_up_and_are_within_one_of_the_share(
    seed: int, devices: int, per_device: int, entries: int
) -> None:
    rng = np.random.default_rng(seed)
    experts = int(rng.integers(per_device + 1, devices * (per_device - 1) + 2))
    load = rng.lognormal(0, 1.5, (2, max(experts, per_device + 1)))
    if load.shape[1] > devices * per_device:
        load = load[:, : devices * per_device]
    placement = place(load, devices, devices * per_device, "exact")
    plain = integer_shares(placement, entries)
    assert (sums(placement, plain) == entries).all()
    assert (np.abs(plain - entries * placement.slot_share) < 1 + 1e-9).all()
    searched = integer_shares(placement, entries, load)
    assert (sums(placement, searched) == entries).all()
    assert (searched >= 0).all()
    assert (searched[placement.slot_share == 0] == 0).all()
    before = Placement(placement.slot_expert, plain / entries, devices, load.shape[1])
    after = rounded(placement, load, entries)
    np.testing.assert_array_equal(after.slot_share, searched / entries)
    assert (
        after.device_load(load).max(axis=1) <= before.device_load(load).max(axis=1) * (1 + 1e-9)
    ).all()


def test_a_chain_of_devices_passes_an_entry_on() -> None:
    # Experts 0 (devices 0, 1) and 1 (devices 1, 2), two entries each; 2, 3, 4 are whole. Device 0
    # is the worst; its entry of 0 would make device 1 as bad, unless that passes one of 1 on.
    placement = Placement(
        np.array([[0, 2, 0, 1, 1, 3, 4, 3]], dtype=np.int32),
        np.array([[0.9, 1, 0.1, 0.9, 0.1, 1, 1, 0]]),
        num_devices=4,
        num_experts=5,
    )
    load = [[2.0, 2.0, 1.0, 0.5, 0.1]]
    np.testing.assert_array_equal(integer_shares(placement, 2), [[2, 2, 0, 2, 0, 2, 2, 0]])
    weights = integer_shares(placement, 2, load)
    np.testing.assert_array_equal(weights, [[1, 2, 1, 1, 1, 2, 2, 0]])


def test_finer_tables_lose_less_balance() -> None:
    load = calibrated_loads("deepseek-v3", seed=0, layers=4)
    placement = place(load, 128, 384, "exact")
    balance = [rounded(placement, load, n).balancedness(load).mean() for n in (16, 64, 256, 4096)]
    assert balance == sorted(balance)
    assert balance[1] > 0.97
    assert balance[-1] > 0.999


@pytest.mark.parametrize("entries", [1, 7, 64])
def test_a_table_counts_each_slot_as_often_as_its_weight(entries: int) -> None:
    load = np.random.default_rng(0).lognormal(0, 1, (2, 12))
    placement = place(load, 4, 20, "exact")
    weights = integer_shares(placement, entries, load)
    table = dispatch_table(placement, entries, load)
    assert table.shape == (2, 12, entries)
    assert table.dtype == np.int32
    for layer in range(2):
        counts = np.bincount(table[layer].ravel(), minlength=20)
        np.testing.assert_array_equal(counts, weights[layer])
        for expert in range(12):
            assert (placement.slot_expert[layer, table[layer, expert]] == expert).all()


def test_neighbouring_entries_go_to_different_replicas() -> None:
    placement = Placement(np.array([[0, 1, 0, 1]]), np.array([[0.5, 0.25, 0.5, 0.75]]), 2, 2)
    table = dispatch_table(placement, 8)[0]
    np.testing.assert_array_equal(table[0], [0, 2] * 4)
    np.testing.assert_array_equal(table[1], [3, 1, 3, 3] * 2)


def test_the_shared_expert_needs_more_replicas_than_sixteen_devices_worth() -> None:
    load = calibrated_loads("deepseek-v3", seed=0, layers=6)
    load = np.concatenate([load, load.sum(axis=1, keepdims=True) / 8], axis=1)
    needed = active_replicas(place(load, 128, 384, "exact"))[:, -1]
    assert needed.min() > 16
    # On average a device computes 9/128 of a token's pairs, so that fewer than 15 cannot do.
    assert 128 / 9 <= 15 <= needed.min()


def test_slots_of_share_zero_are_not_active() -> None:
    placement = Placement(np.array([[0, 1, 1, 0]]), np.array([[1, 0.5, 0.5, 0]]), 2, 2)
    np.testing.assert_array_equal(active_replicas(placement), [[1, 2]])


def test_bad_arguments_are_refused_by_name() -> None:
    placement = place(np.ones(6), 2, 8)
    with pytest.raises(InputError, match="entries must be >= 1, got 0"):
        integer_shares(placement, 0)
    with pytest.raises(InputError, match="load must be"):
        rounded(placement, np.ones(5))
    with pytest.raises(InputError, match="load must be finite and >= 0"):
        rounded(placement, [1, 1, np.nan, 1, 1, 1])
