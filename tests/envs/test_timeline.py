"""Which epochs follow which, and that the queue tells of them what it may and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.envs.group_layout import parse_layout
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.envs.timeline import context_timeline, draw_steps, queue_features, semi_markov
from topomoe.envs.traffic import Contexts

LAYOUTS = tuple(
    parse_layout(text, 16, np.random.default_rng(0))
    for text in ("decode all", "prefill 2x8", "prefill 8 + decode 8")
)
CONTEXTS = Contexts(LAYOUTS, np.array([0, 2]), np.array([0.5, 1.0, 2.5, 4.0]))
DOMAINS = ("chat", "rare", "law")
SETTINGS = ScenarioSettings(pool=3, draws=5)


def stays(state: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Lengths of all stays but the first and the last, which are cut."""
    ends = np.flatnonzero(np.diff(state)) + 1
    return np.diff(ends)


# Phases.


@pytest.mark.parametrize(("mean", "shape"), [(12.0, 4.0), (16.0, 1.0), (5.0, 2.0), (30.0, 20.0)])
def test_stays_have_their_mean_and_spread(mean: float, shape: float) -> None:
    lengths = stays(semi_markov(4, 40_000, mean, shape, np.random.default_rng(1)))
    assert lengths.min() >= 1
    assert lengths.mean() == pytest.approx(mean, rel=0.1)
    assert lengths.std() / lengths.mean() == pytest.approx(shape**-0.5, rel=0.2)


@settings(max_examples=20)
@given(states=st.integers(1, 5), epochs=st.integers(1, 200), seed=st.integers(0, 2**32))
def test_states_are_in_range_and_the_seeds_alone(states: int, epochs: int, seed: int) -> None:
    first, again = (
        semi_markov(states, epochs, 3.0, 1.0, np.random.default_rng(seed)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape == (epochs,)
    assert first.min() >= 0
    assert first.max() < states


def test_every_state_is_as_frequent_and_none_follows_itself_as_a_phase() -> None:
    state = semi_markov(3, 60_000, 6.0, 4.0, np.random.default_rng(2))
    np.testing.assert_allclose(np.bincount(state) / len(state), 1 / 3, atol=0.03)
    entered = state[np.flatnonzero(np.diff(state)) + 1]
    pairs = np.bincount(3 * entered[:-1] + entered[1:], minlength=9).reshape(3, 3)
    assert not np.diag(pairs).any()
    np.testing.assert_allclose(pairs[~np.eye(3, dtype=bool)] / pairs.sum(), 1 / 6, atol=0.02)


def test_a_single_state_lasts() -> None:
    assert not semi_markov(1, 50, 2.0, 1.0, np.random.default_rng(0)).any()


# Contexts.


def test_contexts_are_numbered_one_to_one() -> None:
    every = np.arange(CONTEXTS.count)
    assert CONTEXTS.count == 3 * 2 * 4
    layout, domain, level = CONTEXTS.split(every)
    np.testing.assert_array_equal(CONTEXTS.number(layout, domain, level), every)
    assert len(set(zip(layout.tolist(), domain.tolist(), level.tolist(), strict=True))) == 24
    assert (np.diff(layout) >= 0).all()  # slowest
    assert level[:4].tolist() == [0, 1, 2, 3]  # fastest


def test_layouts_domains_and_levels_change_apart() -> None:
    context = context_timeline(CONTEXTS, SETTINGS, 20_000, np.random.default_rng(0))
    layout, domain, level = CONTEXTS.split(context)
    for state, mean in ((layout, 30.0), (domain, 12.0), (level, 6.0)):
        assert stays(state).mean() == pytest.approx(mean, rel=0.15)
    changes = [np.diff(state) != 0 for state in (layout, domain, level)]
    together = (changes[0] & changes[1]).mean()
    assert together == pytest.approx(changes[0].mean() * changes[1].mean(), abs=0.002)


def test_steps_are_drawn_from_the_pool_of_their_context() -> None:
    context = np.arange(CONTEXTS.count).repeat(40)
    steps = draw_steps(context, SETTINGS, np.random.default_rng(0))
    assert steps.shape == (len(context), 5)
    np.testing.assert_array_equal(steps // 3, np.tile(context[:, None], 5))
    assert len(np.unique(steps)) == 3 * CONTEXTS.count


# Queue.


def some_features(backlog: int, epochs: int = 30) -> tuple[np.ndarray, ...]:  # type: ignore[type-arg]
    rng = np.random.default_rng(3)
    context = context_timeline(CONTEXTS, SETTINGS, epochs, rng)
    steps = draw_steps(context, SETTINGS, rng)
    shares = rng.dirichlet(np.ones(3), 3 * CONTEXTS.count).astype(np.float32)
    features, names = queue_features(context, steps, shares, CONTEXTS, DOMAINS, backlog)
    return features, np.array(names), context, steps, shares


def test_the_queue_tells_shares_layout_and_level_of_the_coming_epoch() -> None:
    features, names, context, steps, shares = some_features(0)
    assert names.tolist() == [
        "share of chat",
        "share of law",
        "layout decode all",
        "layout prefill 2x8",
        "layout prefill 8 + decode 8",
        "load level",
    ]
    layout, _, level = CONTEXTS.split(context)
    for t in range(30):
        served = shares[steps[t]].mean(axis=0)
        expected = [served[0], served[2], *np.eye(3)[layout[t]], CONTEXTS.levels[level[t]]]
        np.testing.assert_allclose(features[t], expected, rtol=1e-6)


@pytest.mark.parametrize("backlog", [1, 2, 5])
def test_the_backlog_is_what_the_next_epochs_turn_out_to_be(backlog: int) -> None:
    features, names, *_ = some_features(backlog)
    count = len(names) // 2
    assert [f"backlog: {name}" for name in names[:count]] == names[count:].tolist()
    for t in range(30 - backlog):
        later = features[t + 1 : t + 1 + backlog, :count].mean(axis=0)
        np.testing.assert_allclose(features[t, count:], later, rtol=1e-5, atol=1e-7)


def test_the_backlog_of_the_end_repeats_the_last_epoch() -> None:
    features, *_ = some_features(3)
    np.testing.assert_allclose(features[-1, 6:], features[-1, :6], rtol=1e-6)


def test_the_present_does_not_depend_on_how_far_the_queue_reaches() -> None:
    np.testing.assert_array_equal(some_features(0)[0], some_features(4)[0][:, :6])


def test_what_never_changes_is_not_told() -> None:
    one = Contexts(LAYOUTS[:1], np.array([-1]), np.array([1.0]))
    context = np.zeros(8, dtype=np.int64)
    steps = draw_steps(context, SETTINGS, np.random.default_rng(0))
    for backlog in (0, 2):
        features, names = queue_features(context, steps, np.ones((3, 1)), one, ("a",), backlog)
        assert features.shape == (8, 0)
        assert names == ()


def test_what_comes_after_the_backlog_changes_nothing() -> None:
    """Whatever epochs 20 onwards are, up to epoch 20 - 1 - 2 they are not seen."""
    _, _, context, steps, shares = some_features(2)
    rng = np.random.default_rng(9)
    other = np.where(np.arange(30) < 20, context, rng.integers(CONTEXTS.count, size=30))
    changed = np.where(np.arange(30)[:, None] < 20, steps, rng.integers(72, size=steps.shape))
    before, _ = queue_features(context, steps, shares, CONTEXTS, DOMAINS, 2)
    after, _ = queue_features(other, changed, shares, CONTEXTS, DOMAINS, 2)
    np.testing.assert_array_equal(before[:18], after[:18])
    assert (before[18:] != after[18:]).any()
