"""Load skew of routers: the uniform router's Gini against enumeration and simulation, the rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from topomoe import stats
from topomoe.moe.load_profile import layer_rows, max_over_min, real_rows, summary_rows, uniform_gini
from topomoe.moe.published_loads import PUBLISHED
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError


def make_trace(experts: np.ndarray, num_experts: int, domains: tuple[int, ...]) -> RoutingTrace:
    """Return a trace of as many requests as ``domains``, of equal length; experts [M, P, K]."""
    requests = len(domains)
    length = experts.shape[1] // requests
    return RoutingTrace(
        experts=experts.astype(np.int16),
        request_start=np.arange(requests + 1) * length,
        request_ids=tuple(map(str, range(requests))),
        domain_names=("code", "prose"),
        request_domain=np.array(domains, dtype=np.int32),
        position=np.tile(np.arange(length, dtype=np.int32), requests),
        prompt_len=np.full(requests, -1, dtype=np.int32),
        num_experts=num_experts,
        repetition=np.zeros(requests, dtype=np.bool_),
    )


@pytest.mark.parametrize(("tokens", "experts"), [(1, 2), (2, 2), (3, 4), (5, 3)])
def test_uniform_gini_is_the_mean_over_all_outcomes(tokens: int, experts: int) -> None:
    every = product(range(experts), repeat=tokens)
    ginis = [float(stats.gini(np.bincount(o, minlength=experts))) for o in every]
    assert uniform_gini(experts, [0, tokens]) == pytest.approx(np.mean(ginis), rel=1e-12)


def test_uniform_gini_of_several_picks_is_that_of_random_tokens() -> None:
    rng = np.random.default_rng(0)
    tokens, experts, drawn = [0, 40, 30, 50], 8, []
    picks = np.repeat(np.arange(4), tokens)
    for _ in range(3000):
        order = rng.random((len(picks), experts)).argsort(axis=1)
        chosen = order[np.arange(experts) < picks[:, None]]
        drawn.append(float(stats.gini(np.bincount(chosen, minlength=experts))))
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert uniform_gini(experts, tokens) == pytest.approx(np.mean(drawn), abs=4 * error)


def test_uniform_gini_falls_with_the_root_of_the_tokens_and_goes_on_smoothly_where_normal() -> None:
    exact, normal = uniform_gini(32, [0, 0, 1 << 16]), uniform_gini(32, [0, 0, (1 << 16) + 1])
    assert normal == pytest.approx(exact, rel=1e-4)
    assert uniform_gini(32, [0, 0, 1 << 14]) == pytest.approx(2 * exact, rel=1e-3)


def test_tokens_that_pick_all_experts_or_none_make_no_difference() -> None:
    assert uniform_gini(4, [7, 0, 0, 0, 10]) == 0.0
    assert uniform_gini(4, [9]) == 0.0
    assert uniform_gini(1, [0, 5]) == 0.0
    with pytest.raises(InputError, match=r"0\.\.2 picks"):
        uniform_gini(2, [0, 1, 1, 1])


def test_rows_hold_the_measures_of_each_layer_and_domain() -> None:
    code = [[[0], [0], [1], [0]], [[0], [1], [2], [3]]]
    prose = [[[2], [2], [3], [3]], [[3], [3], [3], [3]]]
    rows = layer_rows(make_trace(np.concatenate([code, prose], axis=1), 4, (0, 1)))
    found = {(row["domain"], row["layer"]): row for row in rows}
    assert list(found) == [(d, m) for d in ("all", "code", "prose") for m in (0, 1)]
    assert {row["source"] for row in rows} == {"trained"}
    together = found["all", 0]  # loads 3, 1, 2, 2
    assert together["gini"] == pytest.approx(float(stats.gini([3, 1, 2, 2])))
    assert together["load_cv"] == pytest.approx(np.std([3, 1, 2, 2]) / 2)
    assert together["max_over_mean"] == pytest.approx(1.5)
    assert together["max_over_min"] == pytest.approx(3.0)
    assert together["uniform_gini"] == pytest.approx(uniform_gini(4, [0, 8]))
    assert (together["tokens"], found["code", 0]["tokens"]) == (8, 4)
    assert found["code", 1]["gini"] == 0
    assert found["prose", 1]["max_over_mean"] == 4
    assert found["prose", 1]["max_over_min"] == np.inf
    assert found["code", 0]["uniform_gini"] > together["uniform_gini"]


def test_what_is_no_expert_is_no_load() -> None:
    experts = np.array([[[0, 1], [2, -1], [3, -1], [-1, -1]]])
    row = layer_rows(make_trace(experts, 4, (0, 0)))[0]
    assert row["gini"] == 0
    assert row["max_over_min"] == 1
    assert row["uniform_gini"] == pytest.approx(uniform_gini(4, [1, 2, 1]))


def test_domains_without_a_token_are_left_out() -> None:
    rows = layer_rows(make_trace(np.zeros((1, 4, 1)), 2, (1, 1)))
    assert [row["domain"] for row in rows] == ["all", "prose"]


def test_a_random_router_is_as_uneven_as_its_sample_makes_it() -> None:
    rng = np.random.default_rng(1)
    experts = rng.random((20, 600, 16)).argsort(axis=2)[:, :, :2]
    rows = [r for r in layer_rows(make_trace(experts, 16, (0, 1))) if r["domain"] == "all"]
    gini = np.array([row["gini"] for row in rows])
    error = gini.std(ddof=1) / np.sqrt(len(gini))
    assert gini.mean() == pytest.approx(rows[0]["uniform_gini"], abs=4 * error)


def test_max_over_min_of_an_idle_layer_is_even() -> None:
    assert max_over_min([0.0, 0.0]) == 1.0
    assert max_over_min([4.0, 2.0]) == 2.0
    assert max_over_min([4.0, 0.0]) == np.inf


def test_a_summary_spans_the_layers() -> None:
    rows = layer_rows(make_trace(np.array([[[0], [1]], [[0], [0]]]), 2, (0, 1)))
    summary = summary_rows(rows)[0]
    assert (summary["source"], summary["domain"], summary["layers"]) == ("trained", "all", 2)
    least, mean, largest = (summary[name] for name in ("gini_least", "gini", "gini_largest"))
    assert (least, mean, largest) == pytest.approx((0, 0.25, 0.5))


@pytest.mark.parametrize(
    ("folder", "model"),
    [("deepseek-v2-lite", "DeepSeek-V2-Lite"), ("gpt-oss-20b", "GPT-OSS-20B")],
)
def test_recorded_traces_have_their_published_skew(
    trace_folder: Callable[[str], Path], folder: str, model: str
) -> None:
    found = summary_rows(real_rows(trace_folder(folder)))[0]
    published = next(load for load in PUBLISHED if load.model == model)
    assert (found["source"], found["domain"]) == (folder, "all")
    assert found["gini"] == pytest.approx(published.gini[0], abs=0.01)
    assert found["load_cv"] == pytest.approx(published.load_cv[0], abs=0.015)
    assert found["max_over_mean"] == pytest.approx(published.max_over_mean[0], abs=0.03)
    assert found["uniform_gini"] < 0.05 * found["gini"]


def test_published_skew_is_in_range_and_ordered() -> None:
    assert len({load.model for load in PUBLISHED}) == len(PUBLISHED) == 6
    for load in PUBLISHED:
        assert 0 < load.gini[0] <= load.gini[1] < 1 - 1 / load.experts
        assert load.source
        if not np.isnan(load.load_cv[0]):
            assert load.load_cv[0] <= load.load_cv[1]
            assert 1 < load.max_over_mean[0] <= load.max_over_mean[1] < load.experts / load.top_k
