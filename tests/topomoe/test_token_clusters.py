"""Clusters of tokens by expert history, and the rows on which they start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topomoe as tm
from topomoe import origins
from topomoe.clustering import home_rows
from topomoe.clustering import token_clusters as tc
from topomoe.placement import Placement, place
from topomoe.routing_trace import RoutingTrace
from topomoe.simulation import simulate
from topomoe.synthetic import synthetic_trace
from topomoe.topologies import make
from topomoe.topologies.errors import InputError
from topomoe.workload import WorkloadSettings, make_batches

KINDS, LAYERS, TOP_K, EXPERTS = 4, 3, 2, 16


def separable(requests: int = 24, positions: int = 10, seed: int = 0) -> RoutingTrace:
    """Requests of four kinds; a kind has two experts of its own in every layer.

    One pick in five is a stray among experts that no kind has. Domains tell nothing.
    """
    rng = np.random.default_rng(seed)
    total = requests * positions
    kind = np.repeat(np.arange(requests) % KINDS, positions)
    own = (2 * kind[None, :] + 2 * np.arange(LAYERS)[:, None]) % 8
    experts = np.stack([own, own + 1], axis=2)
    stray = rng.random((LAYERS, total)) < 0.2
    experts[..., 1] = np.where(stray, 8 + rng.integers(8, size=stray.shape), experts[..., 1])
    return RoutingTrace(
        experts=experts.astype(np.int16),
        request_start=np.arange(requests + 1) * positions,
        request_ids=tuple(f"r{q}" for q in range(requests)),
        domain_names=("a", "b"),
        request_domain=rng.integers(2, size=requests).astype(np.int32),
        position=np.tile(np.arange(positions, dtype=np.int32), requests),
        prompt_len=np.full(requests, -1, dtype=np.int32),
        num_experts=EXPERTS,
        repetition=np.zeros(requests, dtype=np.bool_),
    )


def real_like(requests: int = 16, seed: int = 0) -> RoutingTrace:
    trace = synthetic_trace("deepseek-v2-lite", requests=requests, positions=30, seed=seed)
    return trace.filter(layers=(0, 1, 2))


def kind_of(trace: RoutingTrace) -> np.ndarray:
    return trace.position_request % KINDS


@pytest.mark.parametrize("unit", tc.UNITS)
def test_separable_kinds_are_found_exactly(unit: str) -> None:
    trace = separable()
    found = tc.fit(trace, KINDS, seed=1, unit=unit)
    for kind in range(KINDS):
        first = (2 * kind + 2 * np.arange(LAYERS)) % 8
        wanted = np.stack([first, first + 1], axis=1)
        assert (found.centroids == wanted).all(axis=(1, 2)).sum() == 1
    label = found.assign(trace, causal=False)
    pairs = set(zip(label.tolist(), kind_of(trace).tolist(), strict=True))
    assert len(pairs) == KINDS
    stray = (trace.experts[..., 1] >= 8).sum()
    expected = stray / TOP_K / trace.num_positions  # layers less overlap, of a mean token
    assert found.objective[-1] == pytest.approx(expected)


def test_with_one_pick_the_centroid_is_the_mode_and_the_distance_layers_less_overlap() -> None:
    base = separable()
    picks = np.array([[3, 3, 5, 3], [1, 2, 2, 2]], dtype=np.int16)  # [layers, tokens]
    trace = replace(
        base.select([0]),
        experts=picks[..., None],
        request_start=np.array([0, 4]),
        position=np.arange(4, dtype=np.int32),
    )
    found = tc.fit(trace, 1)
    np.testing.assert_array_equal(found.centroids[0, :, 0], [3, 2])
    # Overlaps 1, 2, 1, 2 of 2 layers.
    assert found.objective[-1] == pytest.approx(2 - 6 / 4)
    np.testing.assert_array_equal(found.overlaps(trace)[:, 0], [1, 2, 1, 2])


@settings(max_examples=15)
@given(seed=st.integers(0, 10_000), clusters=st.integers(1, 12), unit=st.sampled_from(tc.UNITS))
def test_no_iteration_raises_the_distance(seed: int, clusters: int, unit: str) -> None:
    rng = np.random.default_rng(seed)
    trace = separable(requests=12, positions=6, seed=seed)
    noise = np.argsort(rng.random((LAYERS, trace.num_positions, EXPERTS)), axis=2)[..., :TOP_K]
    trace = replace(trace, experts=noise.astype(np.int16))
    found = tc.fit(trace, clusters, seed, unit, restarts=1)
    assert (np.diff(found.objective) <= 1e-12).all()
    assert found.centroids.shape == (clusters, LAYERS, TOP_K)
    assert (np.diff(found.centroids, axis=2) > 0).all()


def test_more_restarts_are_never_farther() -> None:
    trace = real_like()
    once, more = (tc.fit(trace, 6, 3, restarts=n).objective[-1] for n in (1, 5))
    assert more <= once


@settings(max_examples=20)
@given(data=st.data())
def test_a_cluster_takes_no_more_than_its_capacity(data: st.DataObject) -> None:
    trace = separable(requests=8, positions=5)
    found = tc.fit(trace, 3, 0)
    capacity = data.draw(st.integers(14, 40))
    causal = data.draw(st.booleans())
    label = found.assign(trace, capacity=capacity, causal=causal)
    assert np.bincount(label, minlength=3).max() <= capacity
    free = found.assign(trace, causal=causal)
    first = np.flatnonzero(np.bincount(free, minlength=3) > capacity)
    if not len(first):
        np.testing.assert_array_equal(label, free)
    with pytest.raises(InputError, match="capacity must be >= positions / clusters, got 13 for 40"):
        found.assign(trace, capacity=13)


@pytest.mark.parametrize("pin_after", [None, 4])
def test_what_comes_later_has_no_say(pin_after: int | None) -> None:
    train, test = real_like(24).split()
    placement = place(train, 8, 80)
    rows = home_rows.cluster_rows(train, test, placement, (4, 2), 6, pin_after=pin_after)
    found = tc.fit(train, 6, 0, "request")
    before = found.assign(test, pin_after=pin_after)
    rng = np.random.default_rng(0)
    for at in (0, 7, 19):
        experts = test.experts.copy()
        later = test.position_request * 0 + (
            np.arange(test.num_positions) - test.request_start[test.position_request] >= at
        )
        drawn = np.argsort(rng.random((3, int(later.sum()), test.num_experts)), axis=2)
        experts[:, later.astype(bool)] = drawn[..., : test.top_k]
        changed = replace(test, experts=experts)
        kept = ~later.astype(bool)
        kept |= np.arange(test.num_positions) - test.request_start[test.position_request] == at
        now = home_rows.cluster_rows(train, changed, placement, (4, 2), 6, pin_after=pin_after)
        np.testing.assert_array_equal(rows[kept], now[kept])
        np.testing.assert_array_equal(
            before[kept], found.assign(changed, pin_after=pin_after)[kept]
        )
        if pin_after is None and at == 7:
            assert (rows != now).any()


def test_a_request_without_history_is_its_domains_commonest() -> None:
    trace = separable()
    names = tuple("abcd")
    trace = replace(
        trace, domain_names=names, request_domain=(np.arange(24) % KINDS).astype(np.int32)
    )
    found = tc.fit(trace, KINDS)
    label = found.assign(trace)
    np.testing.assert_array_equal(
        label[trace.request_start[:-1]], found.domain_cluster[trace.request_domain]
    )
    assert len(set(found.domain_cluster.tolist())) == KINDS
    unknown = replace(trace, domain_names=("w", "x", "y", "z"))
    assert len(set(found.assign(unknown)[unknown.request_start[:-1]].tolist())) == 1


def test_a_pinned_request_moves_once_and_what_moves_is_its_cache() -> None:
    train, test = real_like(24).split()
    placement = place(train, 8, 80)
    pinned = home_rows.cluster_rows(train, test, placement, (4, 2), 8, pin_after=3)[:, 0]
    age = np.arange(test.num_positions) - test.request_start[test.position_request]
    for q in range(test.num_requests):
        mine = test.position_request == q
        assert len(set(pinned[mine & (age >= 3)].tolist())) <= 1
        assert len(set(pinned[mine & (age < 3)].tolist())) <= 1
    free = home_rows.cluster_rows(train, test, placement, (4, 2), 8)
    model = tm.MODELS["deepseek-v2-lite"]
    moved = home_rows.moved_bytes(test, pinned, model)
    per_token = model.kv_bytes * (model.num_layers + model.num_dense_layers)
    assert set((moved / per_token).tolist()) <= {0.0, 3.0}
    assert home_rows.moved_bytes(test, free, model).sum() >= 0
    assert not home_rows.moved_bytes(test, np.zeros(test.num_positions, np.int32), model).any()


def home_placement() -> Placement:
    """Row r of 4 holds the experts of kind r in every layer: 8 experts of 16, strays anywhere."""
    slots = []
    for m in range(LAYERS):
        row = [
            [(2 * r + 2 * m) % 8, (2 * r + 2 * m) % 8 + 1, 8 + 2 * r, 9 + 2 * r]
            for r in range(KINDS)
        ]
        slots.append(np.ravel(row))
    return Placement(np.array(slots, dtype=np.int32), np.ones((LAYERS, 16)), 8, EXPERTS)


def test_clusters_live_on_the_rows_of_their_experts() -> None:
    train, test = separable(), separable(seed=5)
    rows = home_rows.cluster_rows(train, test, home_placement(), (4, 2), KINDS)
    assert rows.shape == (test.num_positions, 4)
    assert rows.dtype == np.int32
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(4), (len(rows), 1)))
    age = np.arange(test.num_positions) - test.request_start[test.position_request]
    np.testing.assert_array_equal(rows[age > 0, 0], kind_of(test)[age > 0])


def test_a_cluster_of_half_the_tokens_gets_half_the_rows() -> None:
    served = np.array([[4.0, 3, 2, 1], [3, 3, 3, 3], [0, 1, 2, 4]])
    parts = home_rows._share_out(served, np.array([20, 10, 10]), 4)
    np.testing.assert_array_equal(parts.sum(axis=0), [8, 8, 8, 8])
    np.testing.assert_array_equal(parts.sum(axis=1), [16, 8, 8])
    assert parts[0, 0] == 8
    assert parts[2, 3] == 8


@pytest.mark.parametrize("phase", ["decode", "prefill", "training"])
def test_every_device_starts_as_many_tokens_whatever_rows_are_wished_for(phase: str) -> None:
    trace = separable()
    for homes in (
        np.zeros(trace.num_positions, dtype=np.int32),
        kind_of(trace).astype(np.int32),
        np.tile(np.array([3, 1], dtype=np.int32), (trace.num_positions, 1)),
    ):
        workload = WorkloadSettings(phase=phase, batches=5, batch_tokens=164, origins="clustered")
        for batch in make_batches(trace, 8, (4, 2), workload, np.random.default_rng(0), homes):
            tokens = np.bincount(batch.origin, minlength=8)
            spread = 1 if phase == "decode" else -(-164 // 8)  # a piece's longest
            assert tokens.max() - tokens.min() <= spread
            rows = tokens.reshape(4, 2).sum(axis=1)
            assert rows.max() <= 41 + spread - (phase == "decode")
            wished = homes.reshape(trace.num_positions, -1)[batch.positions, 0]
            if phase == "decode":
                assert (batch.origin // 2 == wished).sum() >= min(41, np.bincount(wished).max())


def test_pieces_of_a_batch_go_by_what_was_known_before_it() -> None:
    trace = separable(requests=4, positions=40)
    homes = np.zeros(trace.num_positions, dtype=np.int32)
    homes[trace.request_start[:-1]] = 2
    workload = WorkloadSettings(phase="training", batches=3, batch_tokens=40, origins="clustered")
    for batch in make_batches(trace, 8, (4, 2), workload, np.random.default_rng(0), homes):
        start = np.flatnonzero(np.diff(batch.positions, prepend=-9) != 1)
        for first, last in zip(start, [*start[1:], 40], strict=True):
            wish = homes[batch.positions[first]]
            taken = batch.origin[first:last] // 2
            assert (taken[0] == wish) or first > 0  # full rows take no more


def test_full_rows_pass_pieces_on_to_the_next_best() -> None:
    rows = origins.by_row(
        np.arange(8), np.tile(np.array([1, 3], dtype=np.int32), (8, 1)), rows=4, columns=1
    )
    assert np.bincount(rows, minlength=4).tolist() == [2, 2, 2, 2]
    np.testing.assert_array_equal(rows[:4], [1, 1, 3, 3])


def test_clustered_origins_send_less_across_rows_than_uniform_ones() -> None:
    train, test = separable(48), separable(48, seed=5)
    placement, topology = home_placement(), make("torus", grid=(4, 2))
    homes = home_rows.cluster_rows(train, test, placement, (4, 2))
    model = replace(tm.MODELS["mixtral-8x7b"], num_layers=LAYERS, num_experts=EXPERTS)

    def crossing(origin: str, **given: Any) -> float:
        result = simulate(
            test,
            topology,
            placement,
            model,
            workload=WorkloadSettings(batches=6, batch_tokens=400, origins=origin),
            **given,
        )
        return float(result.cross_row_bytes.sum())

    uniform = crossing("uniform")
    assert crossing("clustered", home_rows=homes) < 0.45 * uniform
    with_interval = simulate(
        test,
        topology,
        placement,
        model,
        workload=WorkloadSettings(batches=2, batch_tokens=64, origins="clustered"),
        home_rows=homes,
        resamples=2,
    )
    assert with_interval.mean_interval is not None


def test_what_clustered_origins_lack_is_named() -> None:
    trace = separable()
    rng = np.random.default_rng(0)
    workload = WorkloadSettings(origins="clustered")
    homes = np.zeros(trace.num_positions, dtype=np.int32)
    with pytest.raises(InputError, match="origins = clustered needs home_rows"):
        make_batches(trace, 8, (4, 2), workload, rng)
    with pytest.raises(InputError, match="origins = clustered needs a grid"):
        make_batches(trace, 8, None, workload, rng, homes)
    for wrong, message in (
        (homes[:-1], r"home_rows must be \[P\] or \[P, H\] with P=240, got shape \(239,\)"),
        (homes + 4, r"home_rows must be integers in 0\.\.3"),
        (homes - 1, r"home_rows must be integers in 0\.\.3"),
        (homes * 0.5, r"home_rows must be integers in 0\.\.3"),
    ):
        with pytest.raises(InputError, match=message):
            make_batches(trace, 8, (4, 2), workload, rng, wrong)
    with pytest.raises(InputError, match="did you mean 'token'"):
        tc.fit(trace, 2, unit="tokens")
    with pytest.raises(
        InputError, match=r"clusters must be in 1\.\.24, the requests at hand, got 25"
    ):
        tc.fit(trace, 25, unit="request")
    with pytest.raises(InputError, match="clusters are of 3 layers of 16 experts, top-2"):
        tc.fit(trace, 2).assign(real_like())
    with pytest.raises(InputError, match="got 3x2 and 8"):
        home_rows.cluster_rows(trace, trace, home_placement(), (3, 2))
    with pytest.raises(InputError, match="pin_after must be >= 1"):
        tc.fit(trace, 2).assign(trace, pin_after=0)


def test_equal_seeds_give_equal_clusters() -> None:
    trace = real_like()
    first, again = (tc.fit(trace, 5, seed=7) for _ in range(2))
    assert first.centroids.tobytes() == again.centroids.tobytes()
    np.testing.assert_array_equal(first.assign(trace), again.assign(trace))


def test_real_tokens_overlap_their_cluster_more_than_the_commonest_experts(
    trace_folder: Any,
) -> None:
    folder: Path = trace_folder("deepseek-v2-lite")
    train, test = tm.load_trace(folder).filter(layers=(4, 12, 20)).split()
    one, many = (tc.fit(train, clusters, unit="request", restarts=1) for clusters in (1, 8))
    alone = one.overlaps(test)[:, 0].mean()
    label = many.assign(test)
    own = np.take_along_axis(many.overlaps(test), label[:, None], axis=1).mean()
    assert own > 1.1 * alone
