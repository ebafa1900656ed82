"""EPLB made anew: from the past alone, at a price when it is made, and free with a new layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.envs.cluster import Cluster, StepPool, moving_cost
from topomoe.envs.group_layout import parse_layout
from topomoe.envs.moves import moved_seconds
from topomoe.envs.placement_library import balanced
from topomoe.envs.recent_placement import (
    RECENT,
    Recent,
    expected_excess,
    follow_recent,
    moving_average,
    pairwise_seconds,
    step_share,
)
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.envs.step_price import price_library, price_steps
from topomoe.envs.tiny_cluster import tiny_problem

TINY = tiny_problem(epochs=60, episode_length=20, layers=2)
PLACEMENTS = ("mix", "topic-0", RECENT, "topic-2")
AT = 2
CLUSTER = replace(TINY.cluster, placements=PLACEMENTS)
POOL = TINY.pool
LAYOUTS = [parse_layout(name, 16, np.random.default_rng(0)) for name in CLUSTER.layouts]
SETTINGS = ScenarioSettings(refresh_epochs=5, redundancy=1.5, memory=0.4, migration_share=0.2)
PRIOR = step_share(POOL).mean(axis=0)
EPOCH = 0.3  # seconds; a move takes about as long
EPOCHS = 48


def some_steps(seed: int = 0, layouts: int = 2) -> np.ndarray[Any, Any]:
    """Topics for a few epochs each; the layout changes at epochs 13 and 30."""
    rng = np.random.default_rng(seed)
    v = np.isin(np.arange(EPOCHS), np.arange(13, 30)) * (layouts - 1)
    context = 3 * v + np.arange(EPOCHS) // 4 % 3
    return np.asarray(8 * context[:, None] + rng.integers(8, size=(EPOCHS, 2)), dtype=np.int32)


def follow(
    steps: np.ndarray[Any, Any],
    pool: StepPool = POOL,
    cluster: Cluster = CLUSTER,
    given: ScenarioSettings = SETTINGS,
    epoch: float = EPOCH,
) -> Recent:
    return follow_recent(cluster, pool, steps, LAYOUTS, given, epoch, PRIOR)


STEPS = some_steps()
LAYOUT = POOL.layout[STEPS[:, 0]].astype(np.int64)
FOLLOWED = follow(STEPS)
MOVED = [13, 30]
RENEWED = [t for t in range(5, EPOCHS, 5) if t not in MOVED]


def test_the_moving_average_weighs_the_past_alone() -> None:
    share = np.random.default_rng(0).random((4, 1, 2))
    prior = np.array([[0.5, 0.5]])
    expected = [prior]
    for t in range(3):
        expected.append(0.7 * expected[-1] + 0.3 * share[t])
    np.testing.assert_allclose(moving_average(share, prior, 0.3), expected, rtol=1e-6)
    np.testing.assert_allclose(moving_average(share, prior, 1.0)[1:], share[:3], rtol=1e-6)


@settings(max_examples=10)
@given(now=st.integers(0, EPOCHS - 1), seed=st.integers(0, 2**32))
def test_the_future_changes_nothing_that_is_known_before_an_epoch(now: int, seed: int) -> None:
    """Steps from ``now`` on become others of the same domains and layouts."""
    rng = np.random.default_rng(seed)
    twice = replace(
        POOL,
        **{
            name: np.concatenate([getattr(POOL, name)] * 2)
            for name in ("counts", "background", "shared", "other", "layout", "context")
        },
    )
    half = len(POOL.layout)
    twice.counts[half:] = rng.permuted(twice.counts[half:], axis=3)
    later = np.where(np.arange(EPOCHS)[:, None] >= now, STEPS + half, STEPS).astype(np.int32)
    before, after = follow(STEPS, twice), follow(later, twice)
    upto = slice(0, now + 1)
    for name in ("forecast", "slots", "age"):
        one, other = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(one[upto], other[upto])
    for name in ("stall", "lag"):  # what a move before the epoch takes is known too
        np.testing.assert_array_equal(getattr(before, name)[upto], getattr(after, name)[upto])
    np.testing.assert_array_equal(before.seconds[:, :now], after.seconds[:, :now])
    first, again = (excess(made, steps, twice) for made, steps in ((before, STEPS), (after, later)))
    np.testing.assert_array_equal(first[upto], again[upto])
    if now < 40:
        assert (before.forecast[now + 1 :] != after.forecast[now + 1 :]).any()


def test_it_is_eplb_for_the_forecast_of_the_epoch_it_was_made_before() -> None:
    for t in range(EPOCHS):
        made = max(m for m in [0, *RENEWED, *MOVED] if m <= t)
        load = np.repeat(FOLLOWED.forecast[made][None].astype(np.float64), 2, axis=0)
        slots = CLUSTER.slot_device.shape[1]
        expected = balanced(load, LAYOUTS[LAYOUT[t]], slots, 1.5, SETTINGS.seed)
        np.testing.assert_array_equal(FOLLOWED.slots[t], expected)
        assert FOLLOWED.age[t] == t - made


def test_keeping_it_costs_where_it_is_made_anew_and_only_there() -> None:
    lag, stall = FOLLOWED.lag[:, AT, AT], FOLLOWED.stall[:, AT, AT]
    kept = np.setdiff1d(np.arange(EPOCHS), RENEWED)
    assert not lag[kept].any()  # the first epoch and changes of layout among them
    assert not stall[kept].any()
    assert (lag[RENEWED] > 0).all()


def test_keeping_any_other_placement_is_free() -> None:
    for p in (0, 1, 3):
        assert not FOLLOWED.lag[:, p, p].any()
        assert not FOLLOWED.stall[:, p, p].any()


def test_every_move_costs_what_its_experts_take() -> None:
    """Pair by pair, by the count that environments use where placements move freely."""
    for t in range(EPOCHS):
        after = CLUSTER.slot_expert[:, LAYOUT[t]].copy()
        after[AT] = FOLLOWED.slots[t]
        before = after.copy()
        if t in RENEWED:
            before[AT] = FOLLOWED.slots[t - 1]
        old, new = np.indices((4, 4)).reshape(2, -1)
        seconds = moved_seconds(CLUSTER, before[old], after[new], np.full(16, LAYOUT[t]))
        stall, lag = moving_cost(seconds.reshape(4, 4), EPOCH, SETTINGS.migration_share)
        np.testing.assert_allclose(FOLLOWED.stall[t], stall, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(FOLLOWED.lag[t], lag, rtol=1e-9)


def test_some_moves_fit_into_an_epoch_and_some_do_not() -> None:
    assert (FOLLOWED.stall > 0).any()
    assert ((FOLLOWED.lag > 0) & (FOLLOWED.lag < 1)).any()


def priced(t: int, slots: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Seconds [4, J, A] of the steps of epoch t under slots."""
    count = len(CLUSTER.topologies)
    steps = np.tile(STEPS[t], (count, 1))
    many = np.tile(slots, (count, 1, 1))
    return price_steps(CLUSTER, POOL, steps, np.arange(count), many).swapaxes(1, 2)


def test_steps_are_served_by_the_old_one_until_experts_have_arrived() -> None:
    for t in range(EPOCHS):
        expected = priced(t, FOLLOWED.slots[t])
        if t in RENEWED:
            lag = FOLLOWED.lag[t, AT, AT]
            expected = (1 - lag) * expected + lag * priced(t, FOLLOWED.slots[t - 1])
        np.testing.assert_allclose(FOLLOWED.seconds[:, t], expected, rtol=1e-9)


def test_moves_between_placements_are_counted_as_everywhere() -> None:
    for v in (0, 1):
        slots = CLUSTER.slot_expert[:, v]
        table = pairwise_seconds(CLUSTER, slots, slots[1:], v)
        for b in range(4):
            for c in range(3):
                one = moved_seconds(CLUSTER, slots[b : b + 1], slots[c + 1 : c + 2], np.array([v]))
                assert table[b, c] == pytest.approx(one[0])
        assert (table[1:] >= 0).all()
        assert not np.diag(table[1:]).any()


def test_a_library_without_it_costs_the_same_throughout_a_layout() -> None:
    fixed = follow(STEPS, cluster=TINY.cluster)
    assert fixed.slots.size == 0
    assert fixed.seconds.size == 0
    assert len(fixed.lag) == EPOCHS
    for v in (0, 1):
        assert not np.ptp(fixed.lag[v == LAYOUT], axis=0).any()
    np.testing.assert_array_equal(fixed.forecast, FOLLOWED.forecast)
    others = np.ix_(range(EPOCHS), [0, 1, 3], [0, 1, 3])
    np.testing.assert_array_equal(fixed.lag[others], FOLLOWED.lag[others])


def test_one_layout_without_it_takes_one_matrix() -> None:
    one = follow_recent(
        TINY.cluster, POOL, some_steps(layouts=1), LAYOUTS[:1], SETTINGS, EPOCH, PRIOR
    )
    assert one.lag.shape == one.stall.shape == (1, 4, 4)


def test_never_made_anew_it_is_free_to_keep() -> None:
    lasting = follow(some_steps(layouts=1), given=replace(SETTINGS, refresh_epochs=1000))
    assert not lasting.lag[:, AT, AT].any()
    assert not np.ptp(lasting.slots, axis=0).any()
    np.testing.assert_array_equal(lasting.age, np.arange(EPOCHS))


def test_made_anew_every_epoch_it_has_no_age() -> None:
    restless = follow(STEPS, given=replace(SETTINGS, refresh_epochs=1))
    assert not restless.age.any()
    kept = restless.lag[:, AT, AT] == 0
    assert kept[[0, *MOVED]].all()


# What it is expected to cost.


def excess(made: Recent, steps: np.ndarray[Any, Any], pool: StepPool) -> np.ndarray[Any, Any]:
    return expected_excess(CLUSTER, TYPICAL, steps, pool, made.slots, WEIGHT, 1)


TYPICAL = replace(
    POOL,
    **{
        name: np.stack([getattr(POOL, name)[8 * c : 8 * c + 8].mean(axis=0) for c in range(6)])
        for name in ("counts", "background", "shared", "other")
    },
    layout=np.repeat([0, 1], 3).astype(np.int16),
    context=np.arange(6, dtype=np.int16),
)
WEIGHT = np.random.default_rng(4).dirichlet(np.ones(3), EPOCHS)


def test_the_expected_excess_is_over_the_best_of_the_library_on_typical_steps() -> None:
    usual = price_library(CLUSTER, TYPICAL).sum(axis=0)[:, 1]
    found = excess(FOLLOWED, STEPS, POOL)
    assert found.shape == (EPOCHS, 1)
    for t in range(EPOCHS):
        expected = 0.0
        for d in range(3):
            context = 3 * LAYOUT[t] + d
            own = price_steps(
                CLUSTER, TYPICAL, np.array([context]), np.array([1]), FOLLOWED.slots[t][None]
            ).sum()
            best = usual[context, [0, 1, 3]].min()
            expected += WEIGHT[t, d] * (own / best - 1.0)
        assert found[t, 0] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_best_of_the_library_is_expected_to_cost_no_more_than_itself() -> None:
    usual = price_library(CLUSTER, TYPICAL).sum(axis=0)[:, 1]
    best = np.array([0, 1, 3])[usual[:, [0, 1, 3]].argmin(axis=1)]
    context = 3 * LAYOUT + np.arange(EPOCHS) % 3
    made = CLUSTER.slot_expert[best[context], LAYOUT]
    weight = np.eye(3)[np.arange(EPOCHS) % 3]
    found = expected_excess(CLUSTER, TYPICAL, STEPS, POOL, made, weight, 1)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)
