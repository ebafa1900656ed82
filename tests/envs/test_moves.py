from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.envs.moves import aligned, moved_seconds, rebalance
from topomoe.envs.proposals import apply_moves, propose
from topomoe.envs.tiny_cluster import tiny_problem
from topomoe.placement import place
from topomoe.topologies.errors import InputError

LAYOUTS = ("decode 16", "prefill 8 + decode 8 scattered", "prefill 6 + decode 6")
PROBLEM = tiny_problem(60, 20, LAYOUTS, layers=2)
CLUSTER = PROBLEM.cluster
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed: int, count: int = 6) -> tuple[Any, Any, Any]:
    """Placements [n, M, S] that no rule made, loads [n, M, E] and layouts [n]."""
    rng = np.random.default_rng(seed)
    layout = rng.integers(len(LAYOUTS), size=count)
    made = rebalance(CLUSTER, rng.random((count, 2, 16)), layout)
    load = (rng.random((count, 2, 16)) ** 3).astype(np.float32)
    load[rng.random(load.shape) < 0.1] = 0.0
    return made, load, layout


def held(slots: Any, layout: int, m: int) -> list[list[int]]:
    """What each device holds in layer m; slots [M, S]."""
    own: list[list[int]] = [[] for _ in range(16)]
    for s, d in enumerate(CLUSTER.slot_device[layout].tolist()):
        if d >= 0:
            own[d].append(int(slots[m, s]))
    return own


def imbalance(slots: Any, load: Any, layout: int) -> float:
    """The largest device load over the mean, from the definition."""
    total = 0.0
    for m in range(2):
        own = held(slots, layout, m)
        for g, weight in enumerate(CLUSTER.weight[layout]):
            members = np.flatnonzero(CLUSTER.group_of[layout] == g)
            if not members.size:
                continue
            replicas = Counter(e for d in members for e in own[d])
            device = [sum(float(load[m, e]) / replicas[e] for e in own[d]) for d in members]
            total += weight * (max(device) / np.mean(device) if sum(device) else 1.0) / 2
    return total


def check_valid(slots: Any, layout: int) -> None:
    for m in range(2):
        own = held(slots, layout, m)
        assert all(len(set(experts)) == len(experts) for experts in own)
        for g in range(2):
            members = np.flatnonzero(CLUSTER.group_of[layout] == g)
            if members.size:
                assert {e for d in members for e in own[d]} == set(range(16))
    unused = CLUSTER.slot_device[layout] < 0
    assert (slots[:, unused] == -1).all()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_every_proposal_is_valid_and_saves_what_it_says(seed: int) -> None:
    slots, load, layout = drawn(seed)
    moves = propose(CLUSTER, slots, load, layout, 5)
    assert (np.diff(moves.gain, axis=1) <= 0).all()
    np.testing.assert_array_equal(moves.valid, moves.gain > 0)
    for choice in range(5):
        after = apply_moves(slots, moves, np.full(len(slots), choice))
        for n in range(len(slots)):
            before = imbalance(slots[n], load[n], layout[n])
            assert moves.imbalance[n] == pytest.approx(before, rel=1e-5)
            if not moves.valid[n, choice]:
                np.testing.assert_array_equal(after[n], slots[n])
                continue
            check_valid(after[n], layout[n])
            saved = before - imbalance(after[n], load[n], layout[n])
            assert moves.gain[n, choice] == pytest.approx(saved, rel=1e-3, abs=1e-6)


@settings(max_examples=8, deadline=None)
@given(SEEDS)
def test_nothing_the_hottest_devices_could_give_away_saves_more(seed: int) -> None:
    """Against all swaps with, and all replicas made of what they hold on, colder devices."""
    slots, load, layout = drawn(seed, 1)
    v = int(layout[0])
    device = CLUSTER.slot_device[v]
    group = CLUSTER.group_of[v]
    used = np.flatnonzero(device >= 0)
    tried = []
    for m in range(2):
        own = held(slots[0], v, m)
        for g in range(2):
            members = np.flatnonzero(group == g)
            replicas = Counter(e for d in members for e in own[d])
            heat = [sum(load[0, m, e] / replicas[e] for e in own[d]) for d in members]
            hottest = members[np.argmax(heat)] if members.size else -1
            for s, t in product(used[device[used] == hottest], used):
                if group[device[t]] == g and device[t] != hottest:
                    swap, copy = slots[0].copy(), slots[0].copy()
                    copy[m, t] = swap[m, t] = slots[0, m, s]
                    swap[m, s] = slots[0, m, t]
                    tried += [swap, copy]
    every = np.array(tried)
    holds = np.zeros((len(every), 2, 16, 16), dtype=int)
    at = np.indices((len(every), 2, len(used)))
    np.add.at(holds, (at[0], at[1], device[used][at[2]], every[:, :, used]), 1)
    valid = (holds <= 1).all(axis=(1, 2, 3))
    for g in np.unique(group[group >= 0]):
        valid &= (holds[:, :, group == g].sum(axis=2) >= 1).all(axis=(1, 2))
    count = int(valid.sum())
    after = propose(
        CLUSTER, every[valid], load, np.full(count, v), 0, np.zeros(count, dtype=int)
    ).imbalance
    moves = propose(CLUSTER, slots, load, layout, 3)
    best = max(float(moves.imbalance[0] - after.min()), 0.0)
    assert moves.gain[0, 0] == pytest.approx(best, rel=1e-3, abs=2e-5)


def test_a_swap_and_its_inverse_restore() -> None:
    slots, load, layout = drawn(3, 40)
    moves = propose(CLUSTER, slots, load, layout, 4)
    swaps = np.where((moves.slot[:, :, 1] >= 0).any(axis=1))[0]
    assert len(swaps) > 5
    chosen = np.where(
        (moves.slot[:, :, 1] >= 0).any(axis=1), (moves.slot[:, :, 1] >= 0).argmax(axis=1), -1
    )
    after = apply_moves(slots, moves, chosen)
    assert (after[swaps] != slots[swaps]).any(axis=(1, 2)).all()
    back = after.copy()
    for n in swaps:
        m, (s, t) = moves.layer[n, chosen[n]], moves.slot[n, chosen[n]]
        back[n, m, s], back[n, m, t] = after[n, m, t], after[n, m, s]
    np.testing.assert_array_equal(back, slots)
    one = CLUSTER.expert_bytes * CLUSTER.layer_scale / (CLUSTER.nic * CLUSTER.migration_share)
    for first, second in ((slots, after), (after, slots)):
        seconds = moved_seconds(CLUSTER, first[swaps], second[swaps], layout[swaps])
        np.testing.assert_allclose(seconds, one)


def test_a_balanced_placement_has_no_proposals() -> None:
    slots, load, layout = drawn(1, 3)
    assert not propose(CLUSTER, slots, 0.0 * load, layout, 4).valid.any()
    np.testing.assert_allclose(propose(CLUSTER, slots, 0.0 * load, layout, 4).imbalance, 1.0)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_device_that_receives_most_sets_how_long_moving_takes(seed: int) -> None:
    before, _, layout = drawn(seed)
    after, _, _ = drawn(seed + 1)
    after = rebalance(CLUSTER, np.random.default_rng(seed).random((6, 2, 16)), layout)
    seconds = moved_seconds(CLUSTER, before, after, layout)
    rate = CLUSTER.nic * CLUSTER.migration_share
    for n in range(6):
        new = np.zeros(16)
        for m in range(2):
            old, now = held(before[n], layout[n], m), held(after[n], layout[n], m)
            new += [len(set(b) - set(a)) for a, b in zip(old, now, strict=True)]
        expected = new.max() * CLUSTER.expert_bytes * CLUSTER.layer_scale / rate
        assert seconds[n] == pytest.approx(expected)
    assert not moved_seconds(CLUSTER, before, before, layout).any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_placement_on_renamed_devices_is_aligned_back_to_itself(seed: int) -> None:
    slots, _, layout = drawn(seed)
    rng = np.random.default_rng(seed)
    renamed = slots.copy()
    for n, v in enumerate(layout):
        device = CLUSTER.slot_device[v]
        for m, g in product(range(2), range(2)):
            members = np.flatnonzero(CLUSTER.group_of[v] == g)
            name = dict(zip(members.tolist(), rng.permutation(members).tolist(), strict=True))
            for d in members.tolist():
                experts = slots[n, m, device == d]
                renamed[n, m, device == name[d]] = rng.permutation(experts)
    np.testing.assert_array_equal(aligned(CLUSTER, renamed, slots, layout), slots)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_aligning_only_renames_devices(seed: int) -> None:
    slots, load, layout = drawn(seed)
    plain = rebalance(CLUSTER, load, layout)
    kept = rebalance(CLUSTER, load, layout, slots)
    for n, v in enumerate(layout):
        check_valid(kept[n], v)
        for m, g in product(range(2), range(2)):
            members = np.flatnonzero(CLUSTER.group_of[v] == g)
            first, second = held(plain[n], v, m), held(kept[n], v, m)
            assert Counter(tuple(sorted(first[d])) for d in members) == Counter(
                tuple(sorted(second[d])) for d in members
            )


def test_aligning_moves_fewer_experts() -> None:
    slots, load, layout = drawn(8, 200)
    plain = moved_seconds(CLUSTER, slots, rebalance(CLUSTER, load, layout), layout)
    kept = moved_seconds(CLUSTER, slots, rebalance(CLUSTER, load, layout, slots), layout)
    assert kept.mean() < 0.9 * plain.mean()


def test_a_rebalance_is_eplb() -> None:
    load = np.random.default_rng(0).random((3, 2, 16))
    made = rebalance(CLUSTER, load, np.zeros(3, dtype=int))
    for n in range(3):
        expected = place(load[n], devices=16, slots=32, method="eplb")
        np.testing.assert_array_equal(made[n, :, :32], expected.slot_expert)


def test_groups_with_too_few_slots_are_refused() -> None:
    with pytest.raises(InputError, match="group 0 of layout decode 16"):
        rebalance(CLUSTER, np.ones((1, 2, 40)), np.zeros(1, dtype=int))


def test_placements_given_are_not_changed() -> None:
    slots, load, layout = drawn(2)
    kept = slots.copy()
    moves = propose(CLUSTER, slots, load, layout, 2)
    apply_moves(slots, moves, np.zeros(len(slots), dtype=int))
    rebalance(CLUSTER, load, layout, slots)
    np.testing.assert_array_equal(slots, kept)
