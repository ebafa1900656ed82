"""Ranking of routers: tests over seeds against SciPy, hand examples and closed forms; the front."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from topomoe.moe.pareto import front_rows, seed_samples, undominated
from topomoe.moe.ranking import (
    document_losses,
    pair_rows,
    rank_rows,
    seed_losses,
    stability_rows,
)
from topomoe.moe.seed_tests import (
    friedman,
    hierarchical_interval,
    holm,
    pooled_p,
    ranks_of,
    seed_difference,
)
from topomoe.topologies.errors import InputError

NAMES = ("top1", "softk", "hash", "expert-choice")


def noisy_losses(seed: int, seeds: int = 3, spread: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 3.0 + 0.05 * np.arange(4)[:, None] + spread * rng.normal(size=(4, seeds))


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_paired_difference_is_scipys_paired_t_test(seeds: int) -> None:
    first, second = noisy_losses(seeds, seeds)[:2]
    found = seed_difference(second, first)
    expected = scipy_stats.ttest_rel(second, first)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert found.mean == pytest.approx((second - first).mean())


def test_three_seeds_reach_4_303_standard_errors() -> None:
    found = seed_difference([0.1, 0.2, 0.3], [0.0, 0.0, 0.0])
    assert found.high - found.mean == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)


def test_one_seed_gives_no_interval_and_equal_differences_a_certain_one() -> None:
    alone = seed_difference([3.1], [3.0])
    assert alone.mean == pytest.approx(0.1)
    assert np.isnan([alone.low, alone.high, alone.p]).all()
    assert seed_difference([3.0, 2.0, 1.1], [3.0, 2.0, 1.1]).p == 1.0
    always = seed_difference([3.1, 3.3, 3.2], [3.0, 3.2, 3.1])
    assert always.p == 0.0
    assert always.low == always.high == pytest.approx(0.1)


def test_losses_that_are_not_paired_are_refused() -> None:
    with pytest.raises(InputError, match=r"must be \[S\] both"):
        seed_difference([1.0, 2.0], [1.0, 2.0, 3.0])


def test_holm_by_hand() -> None:
    # .01 * 4, then .02 * 3, then .03 * 2 (not below the one before), then .9
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])


def test_holm_leaves_out_what_is_no_test() -> None:
    assert holm([0.02, np.nan, 0.04])[[0, 2]] == pytest.approx([0.04, 0.04])
    assert np.isnan(holm([0.02, np.nan, 0.04])[1])
    assert np.isnan(holm([np.nan, np.nan])).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    raw = np.array(p)
    adjusted = holm(raw)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(len(p) * raw, 1.0) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(1.0, len(p) * raw.min()))


def test_pooled_test_of_two_routers_is_the_paired_t_test() -> None:
    loss = noisy_losses(5)[:2]
    assert pooled_p(loss)[0, 1] == pytest.approx(seed_difference(*loss).p, rel=1e-9)


def test_pooled_test_is_the_two_way_table_without_interaction() -> None:
    loss = noisy_losses(6)
    routers, seeds = loss.shape
    fitted = loss.mean(1, keepdims=True) + loss.mean(0) - loss.mean()
    freedom = (routers - 1) * (seeds - 1)
    t = (loss[0].mean() - loss[2].mean()) / np.sqrt(
        2 / seeds * ((loss - fitted) ** 2).sum() / freedom
    )
    expected = 2 * scipy_stats.t.sf(abs(t), freedom)
    assert pooled_p(loss)[0, 2] == pytest.approx(expected)
    assert np.diag(pooled_p(loss)) == pytest.approx(np.ones(4))
    assert np.isnan(pooled_p(loss[:, :1])).all()


def test_the_bootstrap_of_one_seed_resamples_its_requests() -> None:
    rng = np.random.default_rng(0)
    difference = 0.1 + rng.normal(size=(1, 400))
    low, high = hierarchical_interval(difference, np.ones((1, 400)), 2000, np.random.default_rng(1))
    error = difference.std() / 20
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert low < difference.mean() < high


def test_the_bootstrap_widens_where_seeds_differ_and_not_where_requests_alone_do() -> None:
    rng = np.random.default_rng(2)
    within = rng.normal(size=(3, 200))
    apart = within + np.array([[-1.0], [0.0], [1.0]])
    weight = np.ones((3, 200))
    spans = [
        np.ptp(hierarchical_interval(d, weight, 500, np.random.default_rng(3)))
        for d in (within, apart)
    ]
    assert spans[1] > 3 * spans[0]


def test_a_request_without_tokens_has_no_say() -> None:
    difference = np.array([[1.0, 100.0], [1.0, 100.0]])
    weight = np.array([[5.0, 0.0], [5.0, 0.0]])
    assert seed_losses(difference[None], weight) == pytest.approx(np.ones((1, 2)))


def test_ranks_share_the_mean_where_routers_are_equal() -> None:
    loss = np.array([[1.0, 2.0], [1.0, 1.0], [3.0, 2.0]])
    assert ranks_of(loss) == pytest.approx(scipy_stats.rankdata(loss, axis=0))


def test_rank_rows_are_best_first_with_the_ranks_of_single_seeds() -> None:
    rows = rank_rows(("a", "b", "c"), np.array([[3.0, 3.2], [2.0, 3.1], [4.0, 3.0]]))
    assert [row["router"] for row in rows] == ["b", "a", "c"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    assert rows[0]["perplexity"] == pytest.approx(np.exp(2.55))
    assert (rows[2]["best_rank"], rows[2]["worst_rank"]) == (1, 3)
    assert rows[1]["loss_sd"] == pytest.approx(np.std([3.0, 3.2], ddof=1))


def test_losses_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        rank_rows(("a",), np.array([[np.nan]]))
    with pytest.raises(InputError, match="of 2 routers"):
        rank_rows(("a", "b"), np.ones((3, 2)))


def document_table(seeds: int = 3, requests: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    level = {"top1": 3.3, "softk": 3.0, "hash": 3.6}
    return pd.DataFrame(
        [
            {
                "router": name,
                "seed": seed,
                "request": request,
                "loss": base + 0.01 * rng.normal() + 0.3 * np.sin(request),
                "tokens": 100 + request,
            }
            for name, base in level.items()
            for seed in range(seeds)
            for request in range(requests)
        ]
    )


def test_pairs_are_signed_ordered_and_corrected_together() -> None:
    rows = pair_rows(*document_losses(document_table()), draws=200)
    assert [(row["better"], row["worse"]) for row in rows] == [
        ("softk", "top1"),
        ("softk", "hash"),
        ("top1", "hash"),
    ]
    assert [row["difference"] for row in rows] == pytest.approx([0.3, 0.6, 0.3], abs=0.01)
    assert [row["neighbours"] for row in rows] == [True, False, True]
    assert [row["p_holm"] for row in rows] == pytest.approx(holm([row["p"] for row in rows]))
    assert all(row["significant"] and row["significant_pooled"] for row in rows)
    for row in rows:
        assert row["low"] < row["difference"] < row["high"]
        assert row["bootstrap_low"] < row["difference"] < row["bootstrap_high"]
    assert rows == pair_rows(*document_losses(document_table()), draws=200)


def test_many_requests_do_not_make_up_for_seeds_that_disagree() -> None:
    """The mean over requests is known to 1e-3, but the seeds' means are 1, -1 and 1 apart."""
    rng = np.random.default_rng(0)
    base = 3 + 0.01 * rng.normal(size=(2, 3, 5000))
    base[1] += np.array([1.0, -1.0, 1.0])[:, None]
    row = pair_rows(("a", "b"), base, np.ones((3, 5000)), draws=50)[0]
    assert not row["significant"]
    assert not row["significant_pooled"]
    assert row["low"] < 0 < row["high"]


def test_one_seed_ranks_and_proves_nothing() -> None:
    rows = pair_rows(*document_losses(document_table(seeds=1)), draws=50)
    assert not any(row["significant"] or row["significant_pooled"] for row in rows)
    assert np.isnan([row["p_holm"] for row in rows]).all()


def test_document_rows_are_told_what_is_missing_or_differs() -> None:
    table = document_table()
    names, loss, tokens = document_losses(table.sample(frac=1, random_state=0))
    assert names == ("hash", "softk", "top1")
    assert loss.shape == (3, 3, 40)
    assert tokens[2].tolist() == list(range(100, 140))
    with pytest.raises(InputError, match="every router, seed and request once"):
        document_losses(table.iloc[1:])
    twice = pd.concat([table.iloc[1:], table.iloc[1:2]])
    with pytest.raises(InputError, match="every router, seed and request once"):
        document_losses(twice)
    table.loc[0, "tokens"] = 1
    with pytest.raises(InputError, match="same tokens"):
        document_losses(table)


def test_friedman_is_scipys_and_its_shuffles_agree_where_there_are_many_seeds() -> None:
    loss = noisy_losses(1, seeds=30, spread=0.3)
    found = friedman(loss)
    expected = scipy_stats.friedmanchisquare(*loss)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert found.p_shuffled == pytest.approx(found.p, abs=0.02)


def test_friedman_of_three_seeds_that_agree_is_the_share_of_orders_that_do() -> None:
    """Three routers ranked alike thrice: of the 36 relative orders of two seeds, one agrees."""
    loss = np.array([[1.0, 1.1, 1.2], [2.0, 2.1, 2.2], [3.0, 3.1, 3.2]])
    assert friedman(loss, draws=20000).p_shuffled == pytest.approx(1 / 36, abs=0.004)


def test_friedman_of_too_few_or_all_tied() -> None:
    assert np.isnan(friedman(np.ones((2, 3))).p)
    assert np.isnan(friedman(np.arange(3.0)[:, None]).p)
    assert friedman(np.ones((3, 3))).p_shuffled == 1.0


def test_a_ranking_that_stays_has_tau_one_and_a_reversed_one_minus_one() -> None:
    order = np.arange(4.0)[:, None] + np.zeros((1, 3))
    rows = stability_rows({8: order, 32: -order, 16: 2 * order})
    found = {(row["experts"], row["other_experts"]): row for row in rows}
    assert list(found) == [(8, 16), (8, 32), (16, 32)]
    assert found[8, 16]["kendall"] == found[8, 16]["spearman"] == pytest.approx(1)
    assert found[8, 32]["kendall"] == found[8, 32]["spearman"] == pytest.approx(-1)
    assert all(row["kendall_same_size"] == pytest.approx(1) for row in rows)


def test_stability_over_single_seeds_is_the_mean_of_all_pairs_of_them() -> None:
    small, large = noisy_losses(7, spread=0.1), noisy_losses(8, spread=0.1)
    row = stability_rows({8: small, 32: large})[0]
    taus = [scipy_stats.kendalltau(a, b).statistic for a in small.T for b in large.T]
    assert row["kendall_mean"] == pytest.approx(np.mean(taus))
    assert (row["kendall_low"], row["kendall_high"]) == pytest.approx((min(taus), max(taus)))
    expected = scipy_stats.spearmanr(small.mean(1), large.mean(1)).statistic
    assert row["spearman"] == pytest.approx(expected)
    assert row["kendall_low"] <= row["kendall_mean"] <= row["kendall_high"]


def test_stability_needs_the_same_routers() -> None:
    with pytest.raises(InputError, match="same routers"):
        stability_rows({8: np.ones((3, 2)), 16: np.ones((4, 2))})


def test_the_front_by_hand() -> None:
    loss = np.array([1.0, 2.0, 2.0, 3.0, 1.0])
    seconds = np.array([3.0, 2.0, 1.0, 0.5, 3.0])
    assert undominated(loss, seconds).tolist() == [True, False, True, True, True]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_dominates_everything_else(points: list[tuple[int, int]]) -> None:
    loss, seconds = np.array(points, dtype=float).T
    front = undominated(loss, seconds)
    assert front.any()
    for i in np.flatnonzero(~front):
        as_good = (loss <= loss[i]) & (seconds <= seconds[i]) & front
        assert as_good.any()
    best = loss[front][np.argsort(seconds[front], kind="stable")]
    assert (np.diff(best) <= 0).all()  # slower only for a lower loss


def test_three_seeds_have_27_samples_and_many_are_drawn() -> None:
    assert len({tuple(s) for s in seed_samples(3, 2000, 0)}) == 27
    assert seed_samples(6, 100, 0).shape == (100, 6)


def test_a_point_ahead_in_every_seed_is_always_on_the_front_and_one_behind_never() -> None:
    loss = np.array([[1.0, 1.1, 1.2], [2.0, 2.1, 2.2], [1.5, 0.9, 1.7]])
    seconds = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    rows = front_rows(("ahead", "behind", "lucky"), loss, seconds)
    assert [row["name"] for row in rows] == ["ahead", "behind", "lucky"]
    assert [row["front"] for row in rows] == [True, False, False]
    assert [row["front_seeds"] for row in rows] == [3, 0, 1]
    # Lucky leads by -.5, +.2 and -.5 in the three seeds: ahead only with the second one thrice.
    assert [row["front_share"] for row in rows] == pytest.approx([1.0, 0.0, 1 / 27])
    assert rows[0]["perplexity"] == pytest.approx(np.exp(1.1))


def test_a_front_needs_numbers_of_one_shape() -> None:
    with pytest.raises(InputError, match=r"\[n, S\]"):
        front_rows(("a",), np.ones((1, 2)), np.ones((1, 3)))
    with pytest.raises(InputError, match="finite"):
        front_rows(("a",), np.ones((1, 2)), np.array([[1.0, np.nan]]))
