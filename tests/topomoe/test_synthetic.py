"""Synthetic traces have the published figures of the models they are named after."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe import stats
from topomoe.model import MODELS
from topomoe.routing_trace import RoutingTrace
from topomoe.synthetic import PRESETS, SyntheticSettings, calibrated_loads, synthetic_trace
from topomoe.topologies.errors import InputError

TINY = SyntheticSettings(
    num_layers=2,
    num_experts=16,
    top_k=3,
    log_load_sd=0.6,
    log_load_spread=0.1,
    log_load_skew=0.0,
    domain_concentration=50.0,
    request_concentration=100.0,
    pair_lift_sd=4.0,
    factor_tail=1.5,
    latent_rank=3,
    memory_shares=(0.6, 0.1),
    memory_tokens=(1.5, 30.0),
)


@cache
def trace_of(preset: str) -> RoutingTrace:
    return synthetic_trace(preset, requests=96, positions=140, seed=0)


def domain_cosines(trace: RoutingTrace) -> np.ndarray:
    return stats.domain_cosine(trace)[np.triu_indices(len(trace.domain_names), 1)]


def pair_figures(trace: RoutingTrace, layer: int) -> tuple[float, float, float]:
    """SD of log-lift over pairs expected five times or more; mass of the top 1 %; if independent.

    The same figures of the captured DeepSeek-V2-Lite trace are 1.39, .095 and .044.
    """
    counts, _ = stats.co_activation(trace, layer)
    tokens = np.diagonal(counts).astype(float)
    upper = np.triu_indices(trace.num_experts, 1)
    seen, expected = counts[upper].astype(float), np.outer(tokens, tokens)[upper]
    expected *= seen.sum() / expected.sum()
    often = expected >= 5
    spread = np.log(np.maximum(seen[often], 0.5) / expected[often]).std()
    most = max(1, round(0.01 * len(seen)))
    return (
        float(spread),
        float(np.sort(seen)[-most:].sum() / seen.sum()),
        float(np.sort(expected)[-most:].sum() / seen.sum()),
    )


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_shape_of_their_model(name: str) -> None:
    preset, model = PRESETS[name], MODELS[name]
    assert (preset.num_layers, preset.num_experts, preset.top_k) == (
        model.num_layers,
        model.num_experts,
        model.top_k,
    )
    trace = synthetic_trace(requests=8, positions=5, settings=replace(preset, num_layers=2))
    assert trace.experts.shape == (2, trace.num_positions, model.top_k)
    assert trace.num_experts == model.num_experts


def test_deepseek_v3_loads_are_as_skewed_as_published() -> None:
    load = trace_of("deepseek-v3").load()
    assert 0.33 <= stats.gini(load).mean() <= 0.45
    assert 0.75 <= stats.coefficient_of_variation(load).mean() <= 1.07
    assert 5.6 <= stats.max_over_mean(load).mean() <= 8.1
    assert 0.56 <= stats.log_spread(load).mean() <= 0.82


def test_deepseek_v3_hot_experts_have_the_published_shares() -> None:
    load = trace_of("deepseek-v3").load()
    top32, hottest = stats.top_share(load, 32), stats.top_share(load, 1)
    assert top32.min() >= 0.249
    assert top32.max() <= 0.497
    assert np.median(top32) == pytest.approx(0.311, abs=0.05)
    assert hottest.min() >= 0.0125
    assert hottest.max() <= 0.0519 * 1.05  # the cut is on the expected share
    assert np.median(hottest) == pytest.approx(0.0239, abs=0.004)


def test_deepseek_v3_domains_differ_but_overlap() -> None:
    cosines = domain_cosines(trace_of("deepseek-v3"))
    assert cosines.min() >= 0.6
    assert cosines.max() <= 0.97


def test_deepseek_v2_lite_loads_are_as_skewed_as_published() -> None:
    load = trace_of("deepseek-v2-lite").load()
    assert stats.gini(load).mean() == pytest.approx(0.27, abs=0.03)
    assert stats.coefficient_of_variation(load).mean() == pytest.approx(0.51, abs=0.06)
    assert stats.max_over_mean(load).mean() == pytest.approx(2.7, abs=0.3)
    assert stats.log_spread(load).mean() == pytest.approx(0.51, abs=0.05)


def test_deepseek_v2_lite_domains_are_as_alike_as_published() -> None:
    cosines = domain_cosines(trace_of("deepseek-v2-lite"))
    assert cosines.min() >= 0.59
    assert cosines.max() <= 0.73


def test_deepseek_v2_lite_pairs_go_together_as_published() -> None:
    """Published: 1.46, .10 and .046."""
    trace = trace_of("deepseek-v2-lite")
    spread, mass, independent = np.mean(
        [pair_figures(trace, layer) for layer in range(trace.num_layers)], axis=0
    )
    assert spread == pytest.approx(1.46, abs=0.15)
    assert mass == pytest.approx(0.10, abs=0.02)
    assert independent == pytest.approx(0.046, abs=0.01)


@pytest.mark.parametrize(
    ("preset", "published", "chance"),
    [
        ("deepseek-v2-lite", [0.28, 0.21, 0.20, 0.18, 0.20, 0.17], 0.118),
        ("gpt-oss-20b", [0.44, 0.38, 0.365, 0.35, 0.34, 0.33], 0.19),
    ],
)
def test_tokens_are_as_sticky_as_published(
    preset: str, published: list[float], chance: float
) -> None:
    overlap, expected = stats.stickiness(trace_of(preset), lags=(1, 2, 4, 8, 16, 64))
    np.testing.assert_allclose(overlap, published, atol=0.03)
    assert expected == pytest.approx(chance, abs=0.01)


def test_gpt_oss_loads_are_as_skewed_as_published() -> None:
    load = trace_of("gpt-oss-20b").load()
    assert stats.gini(load).mean() == pytest.approx(0.40, abs=0.03)
    assert stats.coefficient_of_variation(load).mean() == pytest.approx(0.71, abs=0.05)
    assert stats.max_over_mean(load).mean() == pytest.approx(2.6, abs=0.25)
    # Sampling leaves the coldest experts idle, and an idle expert has no logarithm: the expected
    # loads are compared instead.
    expected = calibrated_loads("gpt-oss-20b", layers=200)
    assert stats.log_spread(expected).mean() == pytest.approx(1.15, abs=0.08)


def test_gpt_oss_domains_are_in_the_published_range() -> None:
    cosines = domain_cosines(trace_of("gpt-oss-20b"))
    assert cosines.min() >= 0.43
    assert cosines.max() <= 0.97


def test_mixtral_is_nearly_balanced() -> None:
    load = trace_of("mixtral-8x7b").load()
    assert 0.08 <= stats.gini(load).mean() <= 0.15
    assert 0.14 <= stats.coefficient_of_variation(load).mean() <= 0.28
    assert 1.2 <= stats.max_over_mean(load).mean() <= 1.45


def test_successive_layers_choose_experts_that_go_together() -> None:
    by_successor, by_load = stats.successor_predictability(trace_of("deepseek-v2-lite"))
    assert by_successor > 1.4 * by_load


@pytest.mark.parametrize("preset", ["deepseek-v3", "deepseek-v2-lite", "mixtral-8x7b"])
def test_a_trace_has_the_calibrated_loads_of_its_seed(preset: str) -> None:
    trace = trace_of(preset)
    share = trace.load() / trace.load().sum(axis=1, keepdims=True)
    expected = calibrated_loads(preset, seed=0)
    assert expected.shape == share.shape
    np.testing.assert_allclose(expected.sum(axis=1), 1.0)
    assert np.abs(share - expected).sum(axis=1).max() / 2 < 0.1  # total variation
    other = calibrated_loads(preset, seed=1)
    assert np.abs(share - other).sum(axis=1).min() / 2 > np.abs(share - expected).sum(axis=1).max()


def test_calibrated_loads_of_fewer_layers_are_the_first_layers() -> None:
    np.testing.assert_array_equal(
        calibrated_loads("kimi-k2", seed=3, layers=4), calibrated_loads("kimi-k2", seed=3)[:4]
    )


def test_no_share_exceeds_its_cut() -> None:
    skewed = replace(TINY, log_load_sd=3.0, max_load_share=0.1)
    load = calibrated_loads(layers=50, settings=skewed)
    assert load.max() == pytest.approx(0.1)
    assert load.min() > 0
    uncut = calibrated_loads(layers=50, settings=replace(skewed, max_load_share=1.0))
    assert uncut.max() < 1 / TINY.top_k


def test_same_seed_same_bytes_and_another_seed_another_trace() -> None:
    first, again, other = (synthetic_trace(seed=s, requests=6, settings=TINY) for s in (5, 5, 6))
    assert first.experts.tobytes() == again.experts.tobytes()
    assert first.request_start.tobytes() == again.request_start.tobytes()
    assert first.request_domain.tobytes() == again.request_domain.tobytes()
    assert first.request_ids == again.request_ids
    assert first.experts.tobytes() != other.experts.tobytes()


def test_fewer_layers_are_the_first_layers() -> None:
    whole = synthetic_trace(requests=6, settings=TINY)
    first = synthetic_trace(requests=6, settings=replace(TINY, num_layers=1))
    np.testing.assert_array_equal(first.experts, whole.experts[:1])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    requests=st.integers(1, 9),
    positions=st.floats(1, 40),
    num_experts=st.integers(2, 40),
    data=st.data(),
)
def test_every_token_has_k_different_valid_experts(
    seed: int, requests: int, positions: float, num_experts: int, data: st.DataObject
) -> None:
    drawn = replace(
        TINY,
        num_experts=num_experts,
        top_k=data.draw(st.integers(1, num_experts - 1)),
        log_load_sd=data.draw(st.floats(0, 3)),
        log_load_skew=data.draw(st.floats(-4, 4)),
        domain_concentration=data.draw(st.floats(1e-3, 1e6)),
        request_concentration=data.draw(st.floats(1e-3, 1e6)),
        pair_lift_sd=data.draw(st.floats(0, 100)),
        factor_tail=data.draw(st.floats(0.1, 3)),
        memory_shares=(),
        memory_tokens=(),
    )
    trace = synthetic_trace(requests=requests, positions=positions, seed=seed, settings=drawn)
    assert trace.experts.dtype == np.int16
    assert trace.experts.min() >= 0
    assert trace.experts.max() < num_experts
    ordered = np.sort(trace.experts, axis=2)
    assert (np.diff(ordered, axis=2) > 0).all()
    assert trace.request_start[0] == 0
    assert trace.request_start[-1] == trace.num_positions
    length = np.diff(trace.request_start)
    assert (length >= 1).all()
    assert (trace.prompt_len < length).all()
    assert (trace.position == np.concatenate([np.arange(n) for n in length])).all()
    assert len(set(trace.request_ids)) == trace.num_requests == requests


def test_every_request_has_a_domain_and_domains_share_the_requests() -> None:
    trace = synthetic_trace(requests=10, positions=3, settings=TINY)
    assert trace.domain_names == ("chat", "code", "law", "math")
    assert sorted(np.bincount(trace.request_domain)) == [2, 2, 3, 3]
    for name, request in zip(trace.request_ids, trace.requests, strict=True):
        assert name.startswith(request.domain)


def test_lengths_are_lognormal_about_the_median_asked_for() -> None:
    trace = synthetic_trace(requests=4000, positions=30, settings=replace(TINY, num_layers=1))
    length = np.diff(trace.request_start)
    assert np.median(length) == pytest.approx(30, rel=0.06)
    assert np.log(length).std() == pytest.approx(0.6, rel=0.06)


def test_smaller_concentration_makes_domains_differ_more() -> None:
    near, far = (
        domain_cosines(synthetic_trace(settings=replace(TINY, domain_concentration=c))).mean()
        for c in (1000.0, 5.0)
    )
    assert far < near - 0.2


def test_without_memory_or_preferences_tokens_are_not_sticky() -> None:
    plain = replace(
        TINY,
        domain_concentration=1e9,
        request_concentration=1e9,
        memory_shares=(),
        memory_tokens=(),
    )
    overlap, chance = stats.stickiness(synthetic_trace(settings=plain))
    np.testing.assert_allclose(overlap, chance, atol=0.01)
    remembered = replace(plain, memory_shares=(0.9,), memory_tokens=(5.0,))
    overlap, chance = stats.stickiness(synthetic_trace(settings=remembered), lags=(1, 4, 16))
    assert overlap[0] > overlap[1] + 0.02 > overlap[2] + 0.04
    assert overlap[2] > chance


def test_without_lift_pairs_are_independent() -> None:
    plain = replace(
        TINY, pair_lift_sd=0.0, domain_concentration=1e9, request_concentration=1e9, num_layers=1
    )
    flat, _, _ = pair_figures(synthetic_trace(settings=plain), 0)
    lifted, _, _ = pair_figures(synthetic_trace(settings=replace(plain, pair_lift_sd=6.0)), 0)
    assert flat < 0.15
    assert lifted > 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "deepseek-v4"}, "did you mean 'deepseek-v"),
        ({"requests": 0}, "requests must be >= 1"),
        ({"positions": 0}, "positions must be in"),
        ({"positions": float("nan")}, "positions must be in"),
        ({"seed": -1}, "seed must be >= 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        synthetic_trace(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_layers", 0),
        ("top_k", 16),
        ("log_load_sd", float("nan")),
        ("log_load_skew", -5.0),
        ("domain_concentration", 0.0),
        ("latent_rank", 0),
        ("max_load_share", 0.01),
        ("memory_shares", (0.9, 0.2)),
        ("memory_shares", (0.5,)),
        ("memory_tokens", (0.0, 1.0)),
        ("domains", ()),
        ("domains", ("a", "a")),
        ("prompt_share", 1.5),
    ],
)
def test_settings_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        replace(TINY, **{field: value})


def test_calibrated_loads_need_a_layer() -> None:
    with pytest.raises(InputError, match="layers must be >= 1, got 0"):
        calibrated_loads(layers=0)
