"""Tokens with different numbers of experts: what is -1 in a trace is no pair, anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import topomoe as tm
from topomoe import topologies
from topomoe.clustering.home_rows import cluster_rows
from topomoe.clustering.token_clusters import fit
from topomoe.commands.trace import describe
from topomoe.comparison.batch_balance import batch_balance_rows
from topomoe.comparison.placement_front import front_rows
from topomoe.demand import (
    COPIES,
    REPLICA_ROUTINGS,
    Dispatched,
    DispatchSettings,
    dispatch_batch,
    replica_tables,
)
from topomoe.envs.traffic import expert_counts
from topomoe.inputs import expert_load
from topomoe.placement import Placement, PlacementOptions, certificate, methods
from topomoe.placement.remapping import expected_copies
from topomoe.routing_trace import RoutingTrace
from topomoe.step import StepSettings
from topomoe.topologies.errors import InputError
from topomoe.workload import WorkloadSettings, as_served

LAYERS, EXPERTS, DEVICES = 2, 16, 4
OVERFLOWS = (("none", 0.0), ("drop", 1.1), ("reroute-to-next-expert", 1.1))
seeds = st.integers(0, 2**32 - 1)


def whole(requests: int = 12, length: int = 20, top_k: int = 4, seed: int = 0) -> RoutingTrace:
    """A trace whose tokens all have K experts, some experts hot, those of a token close by."""
    rng = np.random.default_rng(seed)
    positions = requests * length
    heat = rng.normal(size=(LAYERS, requests, EXPERTS)).repeat(length, axis=1)
    score = heat + rng.gumbel(size=(LAYERS, positions, EXPERTS))
    experts = np.argsort(-score, axis=-1)[..., :top_k].astype(np.int16)
    return RoutingTrace(
        experts=np.ascontiguousarray(experts),
        request_start=np.arange(requests + 1) * length,
        request_ids=tuple(f"r{q}" for q in range(requests)),
        domain_names=("code", "law"),
        request_domain=(np.arange(requests) % 2).astype(np.int32),
        position=np.tile(np.arange(length, dtype=np.int32), requests),
        prompt_len=np.full(requests, length // 2, dtype=np.int32),
        num_experts=EXPERTS,
        repetition=np.zeros(requests, dtype=np.bool_),
    )


def thinned(trace: RoutingTrace, seed: int = 0) -> RoutingTrace:
    """The trace with any number of experts a token, none at all included."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, trace.top_k + 1, size=trace.experts.shape[:2])
    count[:, 0] = trace.top_k
    lacks = np.arange(trace.top_k) >= count[..., None]
    return replace(trace, experts=np.where(lacks, np.int16(-1), trace.experts))


def padded(trace: RoutingTrace, columns: int = 3) -> RoutingTrace:
    """The trace with columns of -1 after all experts."""
    wide = np.pad(trace.experts, ((0, 0), (0, 0), (0, columns)), constant_values=-1)
    return replace(trace, experts=np.ascontiguousarray(wide))


def send(
    trace: RoutingTrace,
    placement: Placement,
    positions: NDArray[np.int64] | None = None,
    shared: bool = False,
    **options: Any,
) -> Dispatched:
    chosen = np.arange(trace.num_positions) if positions is None else positions
    dispatch = DispatchSettings(**options)
    return dispatch_batch(
        trace.experts,
        chosen,
        (chosen * 7 % DEVICES).astype(np.int32),
        replica_tables(placement, dispatch.replica_routing),
        dispatch,
        np.arange(DEVICES) // 2,
        np.array([3, 4], dtype=np.uint64),
        EXPERTS if shared else -1,
    )


def same(first: Dispatched, second: Dispatched) -> None:
    for name in ("copies", "slot_load", "wanted", "dropped", "rerouted"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


@settings(max_examples=15)
@given(seeds, st.sampled_from(COPIES), st.booleans())
def test_dispatch_is_the_sum_over_tokens_with_as_many_experts(
    seed: int, copies: str, shared: bool
) -> None:
    """Without replicas tokens do not meet, so that groups of them add up exactly."""
    trace = thinned(whole(seed=seed), seed)
    slots = 20 if shared else EXPERTS
    load = expert_load(trace, "routed") if shared else trace.load()
    single = tm.place(load, DEVICES, slots, method="contiguous")
    single = replace(single, slot_share=first_only(single))
    together = send(trace, single, shared=shared, copies=copies, node_size=2)
    count = (trace.experts >= 0).sum(axis=2)
    total = np.zeros_like(together.copies)
    load_sum = np.zeros_like(together.slot_load)
    for m in range(LAYERS):
        for k in range(trace.top_k + 1):
            positions = np.flatnonzero(count[m] == k)
            if k == 0:
                if shared:  # the shared expert is their only one
                    few = replace(trace, experts=trace.experts[:, :, :1])
                    part = send(few, single, positions, shared, copies=copies, node_size=2)
                    total[m] += part.copies[m]
                    load_sum[m] += part.slot_load[m]
                continue
            few = replace(trace, experts=np.ascontiguousarray(np.abs(trace.experts[:, :, :k])))
            part = send(few, single, positions, shared, copies=copies, node_size=2)
            total[m] += part.copies[m]
            load_sum[m] += part.slot_load[m]
    np.testing.assert_array_equal(together.copies, total)
    np.testing.assert_array_equal(together.slot_load, load_sum)


def first_only(placement: Placement) -> NDArray[np.float64]:
    """Shares of 1 for each expert's first slot."""
    share = np.zeros_like(placement.slot_share)
    for m, row in enumerate(placement.slot_expert):
        share[m, np.unique(row, return_index=True)[1]] = 1.0
    return share


@settings(max_examples=40)
@given(seeds, st.sampled_from(REPLICA_ROUTINGS), st.sampled_from(OVERFLOWS), st.booleans())
def test_no_pair_is_lost_and_none_is_made_up(
    seed: int, routing: str, overflow: tuple[str, float], shared: bool
) -> None:
    trace = thinned(whole(seed=seed), seed)
    load = expert_load(trace, "routed" if shared else "local")
    placement = tm.place(load, DEVICES, 24, method="eplb")
    sent = send(
        trace, placement, shared=shared, replica_routing=routing,
        overflow=overflow[0], capacity_factor=overflow[1],
    )  # fmt: skip
    pairs = (trace.experts >= 0).sum(axis=(1, 2))
    np.testing.assert_array_equal(sent.wanted, trace.load())
    every = pairs + shared * trace.num_positions
    np.testing.assert_array_equal(sent.slot_load.sum(axis=1) + sent.dropped, every)
    if overflow[1]:
        served = np.stack(
            [
                np.bincount(row, load, EXPERTS + shared)[:EXPERTS]
                for row, load in zip(placement.slot_expert, sent.slot_load, strict=True)
            ]
        )
        assert (served <= np.ceil(1.1 * pairs / EXPERTS)[:, None]).all()
    assert sent.copies.sum(axis=(1, 2)).max() <= every.max()


def test_the_capacity_is_of_the_pairs_that_are_there() -> None:
    """Four tokens of one expert each, all the same: ceil(1 * 4 / 16) = 1 stays, 3 are dropped."""
    experts = np.full((2, 4, 3), -1, dtype=np.int16)
    experts[:, :, 0] = 5
    trace = replace(whole(1, 4), experts=experts)
    placement = tm.place(np.ones((2, EXPERTS)), DEVICES, EXPERTS, method="contiguous")
    dropped = send(trace, placement, capacity_factor=1.0)
    assert dropped.dropped.tolist() == [3, 3]
    rerouted = send(trace, placement, capacity_factor=1.0, overflow="reroute-to-next-expert")
    assert rerouted.rerouted.tolist() == [3, 3]
    assert rerouted.slot_load[0, 5:9].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("routing", REPLICA_ROUTINGS)
@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize(("overflow", "factor"), OVERFLOWS)
def test_columns_of_no_expert_change_nothing_in_dispatch(
    routing: str, copies: str, overflow: str, factor: float
) -> None:
    trace = thinned(whole())
    placement = tm.place(trace, DEVICES, 24, method="eplb")
    for padding in (0.0, 1.25):
        options = {
            "replica_routing": routing,
            "copies": copies,
            "node_size": 2,
            "overflow": overflow,
            "capacity_factor": factor,
            "padded": padding,
        }
        same(send(trace, placement, **options), send(padded(trace), placement, **options))
        ordinary = whole()
        same(send(ordinary, placement, **options), send(padded(ordinary), placement, **options))


def test_columns_of_no_expert_change_no_load_and_no_statistic() -> None:
    full = whole()
    served = as_served(full, "decode")
    for trace in (full, thinned(full), served, thinned(served), whole(top_k=1)):
        wide = padded(trace)
        np.testing.assert_array_equal(wide.load(), trace.load())
        np.testing.assert_array_equal(wide.domain_load(), trace.domain_load())
        assert wide.pairs_per_token == trace.pairs_per_token
        for first, second in zip(
            tm.stats.co_activation(wide, 1), tm.stats.co_activation(trace, 1), strict=True
        ):
            np.testing.assert_array_equal(first, second)
        np.testing.assert_equal(tm.stats.stickiness(wide), tm.stats.stickiness(trace))
        assert tm.stats.successor_predictability(wide) == tm.stats.successor_predictability(trace)
        np.testing.assert_equal(tm.stats.summary(wide), tm.stats.summary(trace))
        np.testing.assert_array_equal(tm.stats.drift(wide, 3), tm.stats.drift(trace, 3))
        np.testing.assert_array_equal(tm.stats.domain_cosine(wide), tm.stats.domain_cosine(trace))
        positions = np.array([3, 3, 17, 200])
        np.testing.assert_array_equal(
            expert_counts(wide, positions), expert_counts(trace, positions)
        )
        np.testing.assert_array_equal(expert_load(wide, "routed"), expert_load(trace, "routed"))


@pytest.mark.parametrize("phase", ["decode", "training"])
@pytest.mark.parametrize("origins", ["uniform", "clustered"])
def test_columns_of_no_expert_change_nothing_in_simulation(phase: str, origins: str) -> None:
    trace = thinned(whole())
    topology = topologies.make("torus", grid=(2, 2))
    placement = tm.place(trace, DEVICES, 24, method="exact")
    results = []
    for each in (trace, padded(trace)):
        home = cluster_rows(each, each, placement, (2, 2)) if origins == "clustered" else None
        results.append(
            tm.simulate(
                each,
                topology,
                placement,
                "deepseek-v2-lite",
                workload=WorkloadSettings(phase=phase, batches=3, batch_tokens=64, origins=origins),
                dispatch=DispatchSettings("local-first", capacity_factor=1.2),
                step=StepSettings(overlap="two-batch"),
                resamples=2,
                home_rows=home,
            )
        )
    first, second = results
    for name in ("max_over_mean", "remote_bytes", "device_load", "dropped_share", "pre_drop_cv"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    np.testing.assert_array_equal(first.times.step, second.times.step)
    assert first.mean_interval == second.mean_interval


def test_what_no_token_chose_costs_nothing() -> None:
    """A batch without any pair sends nothing, computes nothing, and is balanced."""
    trace = replace(whole(), experts=np.full((LAYERS, 240, 4), -1, dtype=np.int16))
    placement = tm.place(np.ones((LAYERS, EXPERTS)), DEVICES, EXPERTS, method="contiguous")
    topology = topologies.make("torus", grid=(2, 2))
    result = tm.simulate(trace, topology, placement, "mixtral-8x7b", batch_tokens=32, batches=2)
    assert result.remote_bytes.sum() == 0
    assert result.times.compute.sum() == 0
    assert (result.max_over_mean == 1).all()
    assert not trace.load().any()
    assert tm.stats.stickiness(trace)[1] == 0


def test_statistics_count_pairs_alone() -> None:
    """Two tokens, {3, 5} and {3}, and a third with none: by hand."""
    experts = np.array([[[3, 5], [3, -1], [-1, -1]]] * 2, dtype=np.int16)
    trace = replace(
        whole(1, 3), experts=experts, weight=np.array([1.0, 2.0, 4.0]), domain_names=("code",)
    )
    assert trace.load()[0, [3, 5]].tolist() == [3, 1]
    assert trace.load().sum() == 8
    assert trace.domain_load().sum() == 8
    together, lift = tm.stats.co_activation(trace, 0)
    assert together[3, 5] == together[5, 3] == 1
    assert together.sum() == 3 + 1 + 1 + 1
    assert lift[3, 5] == 1
    overlap, chance = tm.stats.stickiness(trace, lags=(1,))
    assert overlap.tolist() == [1]  # of the pairs of the later tokens, one: shared
    assert chance == pytest.approx(((2 / 3) ** 2 + (1 / 3) ** 2) / 1)
    assert tm.stats.summary(trace)["tokens"].tolist() == [7, 7]
    assert expert_load(trace, "routed")[0, -1] == 7
    # 3 -> 3 twice, 3 -> 5, 5 -> 3, 5 -> 5: the usual token has one expert.
    assert trace.usual_top_k == 1
    assert tm.stats.successor_predictability(trace)[0] == pytest.approx(3 / 5)


@pytest.mark.parametrize("method", methods())
def test_every_placement_method_takes_such_a_trace(method: str) -> None:
    trace = thinned(whole())
    previous = tm.place(trace.load(), DEVICES, 24, method="contiguous")
    options = PlacementOptions(batch_tokens=256)
    made = [
        tm.place(each, DEVICES, 24, method=method, grid=(2, 2), previous=previous, options=options)
        for each in (trace, padded(trace))
    ]
    np.testing.assert_array_equal(made[0].slot_expert, made[1].slot_expert)
    np.testing.assert_array_equal(made[0].slot_share, made[1].slot_share)
    proof = certificate(made[0], trace.load())
    assert (proof.achieved >= proof.bound * (1 - 1e-12)).all()


def test_expected_copies_are_those_of_the_experts_there() -> None:
    trace = thinned(whole())
    placement = tm.place(trace, DEVICES, EXPERTS, method="contiguous")
    category = np.zeros(trace.num_positions, dtype=np.int64)
    sent = expected_copies.from_trace(trace, placement, category, 1)
    np.testing.assert_array_equal(
        sent, expected_copies.from_trace(padded(trace), placement, category, 1)
    )
    for m in range(LAYERS):  # one replica each: a copy to a device or none
        holder = np.empty(EXPERTS, dtype=np.int64)
        holder[placement.slot_expert[m]] = placement.slot_device
        reached = np.zeros((trace.num_positions, DEVICES), dtype=np.bool_)
        for p, row in enumerate(trace.experts[m]):
            reached[p, holder[row[row >= 0]]] = True
        np.testing.assert_allclose(sent[m, 0], reached.mean(axis=0))


def test_clusters_hold_as_many_experts_as_tokens_usually_have() -> None:
    trace = thinned(whole(requests=20))
    found, wide = fit(trace, 3), fit(padded(trace), 3)
    assert found.centroids.shape == (3, LAYERS, trace.usual_top_k)
    np.testing.assert_array_equal(found.centroids, wide.centroids)
    np.testing.assert_array_equal(found.objective, wide.objective)
    assert (np.diff(found.objective) <= 1e-12).all()
    assert 0 <= found.objective[-1] <= LAYERS
    np.testing.assert_array_equal(found.assign(trace), wide.assign(padded(trace)))


def test_comparisons_take_such_a_trace() -> None:
    trace = thinned(whole(requests=16))
    train, test = trace.split()
    placement = tm.place(train, DEVICES, 24, method="eplb")
    rows = batch_balance_rows(
        {"eplb": placement}, trace=test, tokens_per_device=(1, 16), batches=3, columns=2
    )
    assert np.isfinite(rows["max_over_mean"]).all()
    assert (rows["max_over_mean"] >= 1).all()
    front = front_rows(
        train, test, (2, 2), 24, methods=("eplb", "exact"), replica_routings=("weighted",),
        batches=2, batch_tokens=64,
    )  # fmt: skip
    assert (
        front["cross_row_bytes_per_token"] >= front["least_cross_row_bytes_per_token"] - 1e-9
    ).all()
    assert "(2" in describe(trace)[0][0]
    assert "average" not in describe(whole())[0][0]


def test_dispatch_of_ids_takes_no_expert_after_experts_only() -> None:
    placement = tm.place(np.ones((1, 8)), 4, 8, method="contiguous")
    ids = np.array([[0, 7], [5, -1], [-1, -1]])
    demand, load = tm.dispatch(ids, np.zeros(3, int), placement, "mixtral-8x7b")
    assert load.tolist() == [1, 0, 1, 1]
    size = tm.MODELS["mixtral-8x7b"].dispatch_bytes
    assert demand[0].tolist() == [0, 0, size, size]
    with pytest.raises(InputError, match="experts of token 1: -1"):
        tm.dispatch([[0, 1], [-1, 3]], [0, 0], placement, "mixtral-8x7b")


def test_files_keep_what_is_no_expert(tmp_path: Path) -> None:
    trace = thinned(whole())
    tm.save_trace(trace, tmp_path / "folder")
    tm.save_trace(trace, tmp_path / "x.npz")
    one = next((tmp_path / "folder").iterdir())
    with np.load(one) as fields:
        assert fields["routed_experts"].dtype == np.int8
    for path in (tmp_path / "folder", tmp_path / "x.npz"):
        back = tm.load_trace(path)
        np.testing.assert_array_equal(back.experts, trace.experts)
        assert back.experts.dtype == np.int16
    many = replace(trace, num_experts=200)
    tm.save_trace(many, tmp_path / "many.npz")
    with np.load(tmp_path / "many.npz") as fields:
        assert fields["experts"].dtype == np.int16
    np.testing.assert_array_equal(tm.load_trace(tmp_path / "many.npz").experts, trace.experts)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[[1, 2]], [[-1, 3]]], "position 1, layer 0: -1"),
        ([[[1, 2]], [[-2, 3]]], "position 1, layer 0: expert ids must be in"),
        ([[[1, 2]], [[3, -2]]], "position 1, layer 0: expert ids must be in"),
        ([[[1, -1], [-1, -1]], [[3, 2], [-1, -1]]], "no token has an expert in layer 1"),
        ([[[1, 1, -1]]], "names an expert twice"),
    ],
)
def test_files_with_misplaced_ids_are_refused(tmp_path: Path, rows: Any, message: str) -> None:
    np.savez(tmp_path / "a.npz", routed_experts=np.array(rows, dtype=np.int8))
    with pytest.raises(InputError, match=message) as caught:
        tm.load_trace(tmp_path)
    assert "a.npz" in str(caught.value)
