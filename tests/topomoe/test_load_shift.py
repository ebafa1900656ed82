"""Loads of several workloads, and placements tried on the one left out."""

from __future__ import annotations

import numpy as np
import pytest

from topomoe.comparison.load_shift import leave_one_out_rows, leave_one_out_summary, rebalance_rows
from topomoe.placement import place
from topomoe.synthetic_domains import KINDS, calibrated_domain_loads
from topomoe.topologies.errors import InputError


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("workloads", "seed"), [(8, 0), (10, 3)])
def test_workloads_are_as_far_apart_as_asked(kind: str, workloads: int, seed: int) -> None:
    loads = calibrated_domain_loads(workloads=workloads, seed=seed, kind=kind)
    assert loads.shape == (workloads, 58, 256)
    np.testing.assert_allclose(loads.mean(axis=2), 1)
    unit = loads / np.linalg.norm(loads, axis=2, keepdims=True)
    cosine = np.einsum("dme,fme->df", unit, unit)[np.triu_indices(workloads, 1)] / 58
    assert cosine.min() >= 0.83
    assert cosine.max() <= 0.96
    assert cosine.min() < 0.835  # the range is filled from below


def test_workloads_repeat_by_seed_and_differ_by_it() -> None:
    one = calibrated_domain_loads(workloads=3, seed=1, layers=20)
    assert one.tobytes() == calibrated_domain_loads(workloads=3, seed=1, layers=20).tobytes()
    assert (one != calibrated_domain_loads(workloads=3, seed=2, layers=20)).any()


def test_workloads_out_of_range_are_refused() -> None:
    for options, message in (
        ({"workloads": 1}, "workloads must be >= 2"),
        ({"cosine": (0.9, 0.8)}, "cosine must be"),
        ({"kind": "topic"}, "did you mean 'topics'"),
        ({"cosine": (0.95, 0.951)}, "cannot be met"),
    ):
        with pytest.raises(InputError, match=message):
            calibrated_domain_loads(**options)  # type: ignore[arg-type]


def test_hindsight_is_balanced_and_new_shares_are_never_worse() -> None:
    rng = np.random.default_rng(0)
    loads = rng.lognormal(0, 0.7, (1, 2, 16)) * rng.lognormal(0, 0.3, (4, 2, 16))
    rows = leave_one_out_rows(loads, list("abcd"), 4, 24)
    table = rows.pivot_table(
        index=["left_out", "method"], columns="routing", values="max_over_mean"
    )
    assert (table["per batch"] <= table["static"] * (1 + 1e-6)).all()
    hindsight = rows[rows.method == "hindsight"].max_over_mean
    np.testing.assert_allclose(hindsight, 1, rtol=1e-6)
    summary = leave_one_out_summary(rows)
    assert (summary["mean"] <= summary.worst_load).all()
    assert (summary.worst_load <= summary.worst_layer).all()


def test_robust_serves_an_unseen_workload_better_than_eplb() -> None:
    loads = calibrated_domain_loads(workloads=6, seed=2, layers=20)[:, ::10]
    names = [str(d) for d in range(6)]
    methods = ["eplb on the mean", "eplb on the maximum", "robust shift"]
    rows = leave_one_out_rows(loads, names, 128, 384, methods=methods)
    static = rows[rows.routing == "static"].groupby("method").max_over_mean.agg(["mean", "max"])
    assert (static.loc["robust shift"] < static.loc["eplb on the maximum"] - 0.05).all()
    assert (static.loc["robust shift"] < static.loc["eplb on the mean"] - 0.1).all()


def test_eplb_on_workloads_of_a_wide_range_is_near_what_it_is_on_real_ones() -> None:
    loads = calibrated_domain_loads(cosine=(0.83, 0.99))
    methods = ["eplb on the mean", "eplb on the maximum"]
    rows = leave_one_out_rows(loads, list("abcdefgh"), 128, 384, methods=methods)
    static = rows[rows.routing == "static"].groupby("method").max_over_mean.agg(["mean", "max"])
    np.testing.assert_allclose(static.loc["eplb on the mean"], [1.39, 1.78], atol=0.12)
    np.testing.assert_allclose(static.loc["eplb on the maximum"], [1.34, 1.42], atol=0.12)


def test_rebalance_rows_count_copies_and_bytes() -> None:
    rng = np.random.default_rng(1)
    old, new = rng.lognormal(0, 0.8, (2, 2, 32))
    previous = place(old, 8, 40, method="exact")
    rows = rebalance_rows(previous, new, moves=(0, 2, 4), model="deepseek-v3")
    assert list(rows.method[:2]) == ["as served", "rebalance"]
    assert (rows.copies[:2] == 0).all()
    assert (rows.most_copies[1:4] <= rows.moves[1:4]).all()
    assert rows.max_over_mean[:4].is_monotonic_decreasing
    expert = 3 * 7168 * 2048  # bytes in FP8
    np.testing.assert_allclose(rows.bytes, rows.copies * expert)


def test_loads_without_names_or_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="a name each"):
        leave_one_out_rows(np.ones((2, 1, 4)), ["a"], 2, 4)
    with pytest.raises(InputError, match="unknown method"):
        leave_one_out_rows(np.ones((2, 1, 4)), ["a", "b"], 2, 4, methods=["epbl"])
