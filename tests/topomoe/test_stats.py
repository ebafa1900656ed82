"""Measures of skew, correlation and drift: exact truths, invariances, and the real traces."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe import stats
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError
from topomoe.trace import load_trace

MEASURES: dict[str, Callable[[Any], Any]] = {
    "gini": stats.gini,
    "coefficient_of_variation": stats.coefficient_of_variation,
    "max_over_mean": stats.max_over_mean,
    "entropy": stats.entropy,
    "normalised entropy": lambda load: stats.entropy(load, normalised=True),
    "top_share": lambda load: stats.top_share(load, 1),
    "log_spread": stats.log_spread,
}
# measure: (even load of 8, all load on one of 8)
EXTREMES = {
    "gini": (0, 7 / 8),
    "coefficient_of_variation": (0, 7**0.5),
    "max_over_mean": (1, 8),
    "entropy": (log(8), 0),
    "normalised entropy": (1, 0),
    "top_share": (1 / 8, 1),
    "log_spread": (0, 0),
}


@pytest.mark.parametrize("name", MEASURES)
def test_extremes_are_exact_and_an_idle_layer_counts_as_even(name: str) -> None:
    single = np.zeros(8)
    single[3] = 5
    load = np.array([np.full(8, 2.0), single, np.zeros(8)])
    even, alone = EXTREMES[name]
    assert MEASURES[name](load) == pytest.approx([even, alone, even], abs=1e-12)


def test_gini_of_one_to_four_is_a_quarter() -> None:
    assert stats.gini([4, 1, 3, 2]) == pytest.approx(0.25)
    assert stats.top_share([4, 1, 3, 2], 2) == pytest.approx(0.7)
    assert stats.log_spread([1.0, np.e**2, 0.0]) == pytest.approx(1.0)


loads = st.lists(st.integers(0, 1000), min_size=2, max_size=20).map(np.array)


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=40, deadline=None)
@given(load=loads, scale=st.floats(0.01, 100), seed=st.integers(0, 9))
def test_measures_do_not_depend_on_scale_or_on_the_experts_order(
    name: str, load: Any, scale: float, seed: int
) -> None:
    shuffled = np.random.default_rng(seed).permutation(load)
    expected = MEASURES[name](load)
    assert MEASURES[name](shuffled * scale) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(load=loads.filter(lambda x: x.max() > x.min()))
def test_moving_load_from_the_hottest_to_the_coldest_lowers_skew(load: Any) -> None:
    moved = load.astype(float)
    amount = (moved.max() - moved.min()) / 4
    moved[load.argmax()] -= amount
    moved[load.argmin()] += amount
    assert stats.gini(moved) < stats.gini(load)
    assert stats.coefficient_of_variation(moved) < stats.coefficient_of_variation(load)
    assert stats.entropy(moved) > stats.entropy(load)


@pytest.mark.parametrize("bad", [[1.0, -1.0], [1.0, np.nan], [np.inf, 1.0], [], 3.0])
def test_a_load_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="load must"):
        stats.gini(bad)
    with pytest.raises(InputError, match="k must be in"):
        stats.top_share([1, 2], 3)


def make_trace(
    experts: Any, lengths: list[int], number: int, domains: list[int] | None = None
) -> RoutingTrace:
    """Return a trace of these experts [M, P, K] cut into requests."""
    count = len(lengths)
    return RoutingTrace(
        experts=np.ascontiguousarray(experts, dtype=np.int16),
        request_start=np.concatenate([[0], np.cumsum(lengths)]),
        request_ids=tuple(f"r{q}" for q in range(count)),
        domain_names=tuple(f"d{d}" for d in range(max(domains or [0]) + 1)),
        request_domain=np.array(domains or [0] * count, dtype=np.int32),
        position=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        prompt_len=np.full(count, -1, dtype=np.int32),
        num_experts=number,
        repetition=np.zeros(count, dtype=np.bool_),
    )


def random_trace(lengths: list[int], number: int = 16, top_k: int = 4, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((2, sum(lengths), number)), axis=-1)[..., :top_k]
    return make_trace(ids, lengths, number)


def test_co_activation_counts_pairs_and_independent_routing_has_no_lift() -> None:
    trace = make_trace([[[0, 1], [1, 0], [0, 2]]], [3], 4)
    counts, lift = stats.co_activation(trace, 0)
    assert counts.tolist() == [[3, 2, 1, 0], [2, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    # a c_i c_j must sum to the 3 observed pairs: a (3*2 + 3*1 + 2*1) = 3
    assert lift[0, 1] == pytest.approx(2 / (3 / 11 * 6))
    assert np.isnan(lift[0, 0])
    assert np.isnan(lift[0, 3])
    counts, lift = stats.co_activation(random_trace([20_000]), 1)
    off = ~np.eye(16, dtype=bool)
    assert counts[off].sum() == 20_000 * 4 * 3
    assert lift[off] == pytest.approx(1, abs=0.08)


def test_stickiness_is_one_for_a_repeated_token_and_chance_for_unrelated_ones() -> None:
    same = make_trace(np.tile([[[0, 3]]], (1, 9, 1)), [5, 4], 4)
    overlap, chance = stats.stickiness(same, lags=(1, 4, 8))
    assert overlap[:2].tolist() == [1, 1]
    assert np.isnan(overlap[2])  # both requests are shorter
    assert chance == 1
    overlap, chance = stats.stickiness(random_trace([10_000, 5000]), lags=(1, 7))
    assert chance == pytest.approx(0.25, abs=0.005)
    assert overlap == pytest.approx(chance, abs=0.01)


def test_stickiness_never_compares_across_requests_or_gaps() -> None:
    ids = [[[0], [0], [1], [1]]]
    assert stats.stickiness(make_trace(ids, [2, 2], 2), lags=(1,))[0] == 1
    assert stats.stickiness(make_trace(ids, [4], 2), lags=(1,))[0] == pytest.approx(2 / 3)
    trace = make_trace(ids, [4], 2)
    trace.position[2:] += 1
    assert stats.stickiness(trace, lags=(1,))[0] == 1
    with pytest.raises(InputError, match="lags must be >= 1"):
        stats.stickiness(trace, lags=(0,))


def test_domain_cosine_is_one_for_alike_domains_and_zero_for_disjoint_ones() -> None:
    trace = make_trace([[[0], [1], [0], [1], [2]]], [2, 2, 1], 3, domains=[0, 1, 2])
    assert stats.domain_cosine(trace) == pytest.approx(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]))


def test_drift_is_total_variation_between_windows() -> None:
    trace = make_trace([[[0], [0], [1], [0], [1], [1]]], [1] * 6, 2)
    assert stats.drift(trace, 2).tolist() == [[0.5], [0.5]]
    assert stats.drift(trace, 3).shape == (1, 1)
    with pytest.raises(InputError, match="window"):
        stats.drift(trace, 4)
    with pytest.raises(InputError, match="window"):
        stats.drift(trace, 0)


def test_autocorrelation_of_an_alternating_load() -> None:
    series = np.tile([[1.0, 3.0], [3.0, 1.0]], (20, 1))
    assert stats.autocorrelation(series, [0, 1, 2]) == pytest.approx([1, -1, 1])
    with pytest.raises(InputError, match="lags"):
        stats.autocorrelation(series, [40])


def test_a_layer_that_determines_the_next_is_fully_predictable() -> None:
    first = np.arange(40) % 4
    trace = make_trace(np.stack([first, 3 - first])[..., None], [40], 4)
    assert stats.successor_predictability(trace) == pytest.approx((1, 0.25))
    with pytest.raises(InputError, match="at least 2 layers"):
        stats.successor_predictability(trace.filter(layers=[0]))


def test_summary_has_a_row_a_layer() -> None:
    trace = random_trace([30, 20])
    table = stats.summary(trace)
    assert all(column.shape == (2,) for column in table.values())
    assert table["gini"].tolist() == stats.gini(trace.load()).tolist()
    assert table["tokens"].tolist() == [50, 50]


# Measured on the full traces; stickiness at lags 1, 2, 4, 8, 16, 64, then by chance.
FIGURES = {
    "deepseek-v2-lite": (
        (0.27, 0.51, 2.7),
        (0.28, 0.21, 0.20, 0.18, 0.20, 0.17, 0.118),
        (0.59, 0.73),
    ),
    "gpt-oss-20b": (
        (0.40, 0.71, 2.6),
        (0.44, 0.38, 0.365, 0.35, 0.34, 0.33, 0.19),
        (0.43, 0.97),
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_real_traces_have_the_published_skew_and_stickiness(
    trace_folder: Callable[[str], Path], name: str
) -> None:
    trace = load_trace(trace_folder(name))
    skew, sticky, cosine = FIGURES[name]
    table = stats.summary(trace)
    measured = [table[key].mean() for key in ("gini", "coefficient_of_variation", "max_over_mean")]
    assert measured == pytest.approx(skew, rel=0.03)
    overlap, chance = stats.stickiness(trace)
    assert [*overlap, chance] == pytest.approx(sticky, abs=0.008)
    between = stats.domain_cosine(trace)
    off = between[~np.eye(len(between), dtype=bool)]
    assert [off.min(), off.max()] == pytest.approx(cosine, abs=0.03)


def test_gpt_oss_pairs_of_experts_are_as_concentrated_as_published(
    trace_folder: Callable[[str], Path],
) -> None:
    trace = load_trace(trace_folder("gpt-oss-20b"))
    pairs = np.triu_indices(trace.num_experts, 1)
    top = len(pairs[0]) // 100
    observed, expected = [], []
    for layer in range(trace.num_layers):
        counts, _ = stats.co_activation(trace, layer)
        tokens = np.diagonal(counts)
        for pair_mass, shares in (
            (counts[pairs], observed),
            (np.outer(tokens, tokens)[pairs], expected),
        ):
            shares.append(np.sort(pair_mass)[-top:].sum() / pair_mass.sum())
    assert np.mean(observed) == pytest.approx(0.10, abs=0.005)
    assert np.mean(expected) == pytest.approx(0.046, abs=0.002)
    assert stats.successor_predictability(trace) == pytest.approx((0.444, 0.286), abs=0.025)
