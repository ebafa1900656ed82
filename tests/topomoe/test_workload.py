"""Batches cut from a trace: what they hold, where tokens start, and how they change over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.arrivals import load_arrivals, renewal_counts
from topomoe.origins import ORIGINS, domain_rows
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError
from topomoe.trace import load_trace
from topomoe.workload import (
    ARRIVALS,
    PHASES,
    SCHEDULES,
    Batch,
    WorkloadSettings,
    as_served,
    coverage,
    iter_batches,
    make_batches,
    workload_notes,
)

GRID = (4, 2)
DOMAINS = [0] * 6 + [1] * 3 + [2] * 3


def make_trace(domains: list[int] = DOMAINS, prompt_len: int = -1) -> RoutingTrace:
    """Return a trace whose request q has 5 + q positions."""
    lengths = [5 + q for q in range(len(domains))]
    rng = np.random.default_rng(0)
    return RoutingTrace(
        experts=rng.integers(8, size=(2, sum(lengths), 1), dtype=np.int16),
        request_start=np.concatenate([[0], np.cumsum(lengths)]),
        request_ids=tuple(f"r{q}" for q in range(len(domains))),
        domain_names=tuple(f"d{d}" for d in range(max(domains) + 1)),
        request_domain=np.array(domains, dtype=np.int32),
        position=np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
        prompt_len=np.full(len(domains), prompt_len, dtype=np.int32),
        num_experts=8,
        repetition=np.zeros(len(domains), dtype=np.bool_),
    )


def batches(seed: int = 0, trace: RoutingTrace | None = None, **fields: Any) -> list[Batch]:
    fields = {"batches": 20, "batch_tokens": 100} | fields
    trace = trace or make_trace()
    rng = np.random.default_rng(seed)
    homes = trace.position_request % GRID[0] if fields.get("origins") == "clustered" else None
    return make_batches(trace, 8, GRID, WorkloadSettings(**fields), rng, homes)


def same(a: Batch, b: Batch) -> bool:
    return all(
        np.array_equal(x, y)
        for x, y in (
            (a.positions, b.positions),
            (a.origin, b.origin),
            (a.domain_mix, b.domain_mix),
            (a.time, b.time),
        )
    )


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("origins", ORIGINS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("arrivals", ARRIVALS[:3])
def test_every_batch_is_whole_and_does_not_depend_on_how_many_follow(
    phase: str, origins: str, schedule: str, arrivals: str
) -> None:
    fields = {"phase": phase, "origins": origins, "schedule": schedule, "arrivals": arrivals}
    run = batches(**fields, phase_batches=3)
    trace = make_trace()
    for batch in run:
        assert batch.positions.dtype == np.int64
        assert batch.origin.dtype == np.int32
        assert batch.positions.shape == batch.origin.shape
        assert batch.positions.min() >= 0
        assert batch.positions.max() < trace.num_positions
        assert batch.origin.min() >= 0
        assert batch.origin.max() < 8
        assert batch.domain_mix.sum() == pytest.approx(1)
        if arrivals == "fixed":
            assert len(batch.positions) == 100
    shorter = batches(**fields, phase_batches=3, batches=7)
    assert all(same(a, b) for a, b in zip(run[:7], shorter, strict=True))
    other = batches(seed=1, **fields, phase_batches=3)
    assert not any(
        np.array_equal(a.positions, b.positions) for a, b in zip(run, other, strict=True)
    )


def test_decode_draws_positions_evenly_within_requests_and_requests_evenly() -> None:
    trace = make_trace()
    (batch,) = batches(batches=1, batch_tokens=120_000)
    request = trace.position_request[batch.positions]
    assert np.bincount(request) / 10_000 == pytest.approx(1, abs=0.05)
    offset = trace.position[batch.positions[request == 0]]
    assert np.bincount(offset) / 2000 == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("phase", ["prefill", "training"])
def test_packed_phases_hold_contiguous_runs_of_requests_cut_only_at_both_ends(phase: str) -> None:
    trace = make_trace()
    for batch in batches(phase=phase):
        position = trace.position[batch.positions]
        request = trace.position_request[batch.positions]
        starts = np.flatnonzero(np.diff(batch.positions) != 1) + 1
        assert (position[starts] == 0).all()
        ends = starts - 1
        assert (position[ends] == 4 + request[ends]).all()
    assert len({int(trace.position[b.positions[0]]) for b in batches(phase=phase)}) > 3


@pytest.mark.parametrize(("phase", "low", "high"), [("decode", 4, 99), ("prefill", 0, 3)])
def test_a_known_prompt_length_restricts_decode_and_prefill(
    phase: str, low: int, high: int
) -> None:
    trace = make_trace(prompt_len=4)
    for batch in batches(trace=trace, phase=phase):
        position = trace.position[batch.positions]
        assert position.min() >= low
        assert position.max() <= high
    assert workload_notes(trace, WorkloadSettings(phase=phase)) == ()
    assert len({int(p) for b in batches(trace=trace) for p in trace.position[b.positions]}) == 12


def test_a_trace_without_the_phase_s_part_is_drawn_from_whole_and_said() -> None:
    trace = make_trace(prompt_len=14)  # 12 requests of 5..16 positions: 10 have no output
    (note,) = workload_notes(trace, WorkloadSettings(phase="decode"))
    assert "10 of 12 requests have no known output positions" in note
    seen = np.concatenate([b.positions for b in batches(trace=trace, batch_tokens=2000)])
    request, position = trace.position_request[seen], trace.position[seen]
    assert (position[request >= 10] >= 14).all()
    assert position[request < 10].min() == 0
    assert workload_notes(trace, WorkloadSettings(phase="training")) == ()


def test_round_robin_deals_tokens_or_pieces_in_turn() -> None:
    for batch in batches(origins="round-robin"):
        assert (batch.origin == np.arange(100) % 8).all()
    trace = make_trace()
    for batch in batches(origins="round-robin", phase="training", batch_tokens=40):
        cut = np.diff(batch.origin) != 0
        run = np.split(np.arange(40), np.flatnonzero(cut) + 1)
        assert max(len(piece) for piece in run) <= 5
        assert [int(batch.origin[piece[0]]) for piece in run] == [i % 8 for i in range(len(run))]
        for piece in run:
            assert len(set(trace.position_request[batch.positions[piece]])) == 1


@pytest.mark.parametrize("phase", PHASES)
def test_domain_affine_keeps_a_domain_on_its_own_rows(phase: str) -> None:
    trace = make_trace()
    rows_of: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for batch in batches(origins="domain-affine", phase=phase, schedule="drift"):
        domain = trace.request_domain[trace.position_request[batch.positions]]
        for d, row in zip(domain.tolist(), (batch.origin // GRID[1]).tolist(), strict=True):
            rows_of[d].add(row)
    taken = [row for rows in rows_of.values() for row in rows]
    assert sorted(taken) == [0, 1, 2, 3]
    if phase == "decode":
        assert rows_of == {0: {0, 1}, 1: {2}, 2: {3}}


def test_domain_affine_deals_a_domain_evenly_over_the_devices_of_its_rows() -> None:
    for batch in batches(origins="domain-affine"):
        load = np.bincount(batch.origin, minlength=8)
        for devices in (slice(0, 4), slice(4, 6), slice(6, 8)):
            assert np.ptp(load[devices]) <= 1


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.floats(0, 10), min_size=1, max_size=8).filter(lambda w: sum(w) > 0.1),
    rows=st.integers(1, 20),
)
def test_rows_are_shared_out_whole_contiguous_and_in_proportion(
    weights: list[float], rows: int
) -> None:
    mix = np.array(weights)
    table = domain_rows(mix, rows)
    present = np.flatnonzero(mix)
    assert (table[:, 0] >= 0).all()
    assert (table.sum(axis=1) <= rows).all()
    assert (table[:, 1] >= 1).all()
    if len(present) <= rows:
        first, count = table[present].T
        assert (first == np.cumsum(count) - count).all()
        assert count.sum() == rows
    else:
        assert (np.diff(table[:, 0]) >= 0).all()


def test_rows_follow_the_shares() -> None:
    assert domain_rows(np.array([0.9, 0.1]), 10)[:, 1].tolist() == [9, 1]
    assert domain_rows(np.array([0.98, 0.01, 0.01]), 4)[:, 1].tolist() == [2, 1, 1]
    assert domain_rows(np.array([0.25] * 4), 2)[:, 0].tolist() == [0, 0, 1, 1]


def test_phases_have_one_dominant_domain_at_a_time() -> None:
    run = batches(schedule="phases", phase_batches=5, dominant_weight=0.8, batches=40)
    base = np.array([0.5, 0.25, 0.25])
    dominant = []
    for batch in run:
        extra = batch.domain_mix - 0.2 * base
        assert np.sort(extra) == pytest.approx([0, 0, 0.8], abs=1e-12)
        dominant.append(int(extra.argmax()))
    phases = np.array(dominant).reshape(8, 5)
    assert (phases == phases[:, :1]).all()
    assert (np.diff(phases[:, 0]) != 0).all()
    assert set(dominant) == {0, 1, 2}
    flat = batches(schedule="phases", dominant_weight=0.0)
    assert all(b.domain_mix == pytest.approx(base) for b in flat)


def test_drift_is_smooth_and_its_memory_is_as_long_as_asked() -> None:
    mix = np.stack(
        [
            b.domain_mix
            for b in batches(schedule="drift", batches=6000, batch_tokens=1, drift_batches=20.0)
        ]
    )
    log_odds = np.log(mix[:, 0] / mix[:, 1]) - np.log(2)
    assert log_odds.std() == pytest.approx(2**0.5, rel=0.15)
    centred = log_odds - log_odds.mean()
    lagged = (centred[20:] * centred[:-20]).mean() / centred.var()
    assert lagged == pytest.approx(np.exp(-1), abs=0.12)
    still = batches(schedule="drift", drift_spread=0.0)
    assert all(b.domain_mix == pytest.approx([0.5, 0.25, 0.25]) for b in still)


def test_the_drawn_domains_follow_the_mix() -> None:
    trace = make_trace()
    for batch in batches(schedule="phases", phase_batches=1, batch_tokens=20_000, batches=4):
        domain = trace.request_domain[trace.position_request[batch.positions]]
        share = np.bincount(domain, minlength=3) / 20_000
        assert share == pytest.approx(batch.domain_mix, abs=0.015)


def test_a_domain_without_requests_is_never_drawn() -> None:
    trace = replace(make_trace([0, 0, 2, 2]), domain_names=("a", "b", "c", "d"))
    for schedule in SCHEDULES:
        for batch in batches(trace=trace, schedule=schedule, origins="domain-affine"):
            assert batch.domain_mix[[1, 3]].tolist() == [0, 0]


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_arrivals_have_the_asked_rate_and_burstiness(cv: float) -> None:
    counts = np.array(list(islice(renewal_counts(50.0, cv, 2.0, np.random.default_rng(0)), 20_000)))
    assert counts.mean() == pytest.approx(100, rel=0.03)
    # The variance of a renewal process's counts tends to cv^2 x mean (Cox, 1962, section 4.5).
    assert counts.var() / counts.mean() == pytest.approx(cv**2, rel=0.15)


def test_arrivals_scale_the_tokens_and_time_the_batches() -> None:
    fields = {"batches": 400, "batch_tokens": 1000, "request_rate": 400.0, "batch_interval": 0.1}
    run = batches(arrivals="poisson", **fields)
    tokens = np.array([len(b.positions) for b in run])
    assert tokens.mean() == pytest.approx(1000, rel=0.03)
    assert tokens.std() / tokens.mean() == pytest.approx(40**-0.5, rel=0.15)
    assert [b.time for b in run[:3]] == pytest.approx([0, 0.1, 0.2])
    bursty = batches(arrivals="gamma", arrival_cv=8.0, most_tokens=5000, **fields)
    sizes = [len(b.positions) for b in bursty]
    assert min(sizes) == 1
    assert max(sizes) == 5000


def test_recorded_arrivals_are_replayed_and_start_over(tmp_path: Path) -> None:
    path = tmp_path / "azure.csv"
    stamps = ("16:00:00.1000000", "16:00:00.2", "16:00:01.3", "16:00:02.15", "16:00:00.15")
    path.write_text("TIMESTAMP,ContextTokens\n" + "".join(f"2023-11-16 {s},1\n" for s in stamps))
    assert load_arrivals(path) == pytest.approx([0, 0.05, 0.1, 1.2, 2.05], abs=1e-6)
    run = batches(
        arrivals="recorded", arrival_trace=str(path), batch_interval=1.0, batch_tokens=20, batches=4
    )
    assert [len(b.positions) for b in run] == [30, 10, 30, 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no arrivals"),
        ("TIMESTAMP\n", "no arrivals"),
        ("when\n1\n", "none of the columns"),
        ("time\n1\nsoon\n", "line 3: time"),
        ("time\nnan\n", "line 2: time"),
    ],
)
def test_a_bad_arrival_trace_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_arrivals(path)
    assert "bad.csv" in str(error.value)
    with pytest.raises(InputError, match="cannot be read"):
        load_arrivals(tmp_path / "absent.csv")


def test_coverage_counts_distinct_requests_and_positions() -> None:
    trace = make_trace()
    mix = np.ones(3) / 3
    empty = np.zeros(3, dtype=np.int32)
    run = [
        Batch(np.array([0, 1, 1]), empty, 0.0, mix),
        Batch(np.array([1, 5, 0]), empty, 0.0, mix),
    ]
    assert coverage(trace, run) == (2, 3)


def test_the_whole_stream_is_endless() -> None:
    stream = iter_batches(
        make_trace(), 8, None, WorkloadSettings(batches=2, batch_tokens=3), np.random.default_rng(0)
    )
    assert len(list(islice(stream, 5))) == 5


BAD_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"phase": "decoding"}, "unknown phase 'decoding'; did you mean 'decode'"),
    ({"origins": "uniforms"}, "unknown origins 'uniforms'; did you mean 'uniform'"),
    ({"schedule": "phase"}, "did you mean 'phases'"),
    ({"arrivals": "poison"}, "did you mean 'poisson'"),
    ({"batches": 0}, "batches must be a whole number >= 1"),
    ({"batch_tokens": -5}, "batch_tokens must be a whole number >= 1"),
    ({"batch_tokens": 1.5}, "batch_tokens must be a whole number"),
    ({"phase_batches": 0}, "phase_batches must be"),
    ({"arrival_cv": 0.0}, "arrival_cv must be > 0"),
    ({"request_rate": float("nan")}, "request_rate must be > 0"),
    ({"batch_interval": float("inf")}, "batch_interval must be > 0"),
    ({"drift_batches": -1.0}, "drift_batches must be > 0"),
    ({"dominant_weight": 1.5}, "dominant_weight must be in"),
    ({"drift_spread": -1.0}, "drift_spread must be >= 0"),
    ({"most_tokens": -1}, "most_tokens must be >= 0"),
    ({"arrivals": "recorded"}, "go together"),
    ({"arrival_trace": "x.csv"}, "go together"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_SETTINGS)
def test_bad_settings_are_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WorkloadSettings(**fields)


def test_a_grid_that_does_not_match_is_refused() -> None:
    trace, rng = make_trace(), np.random.default_rng(0)
    with pytest.raises(InputError, match="grid must be rows x columns = devices"):
        make_batches(trace, 9, GRID, WorkloadSettings(), rng)
    with pytest.raises(InputError, match="devices must be >= 1"):
        make_batches(trace, 0, None, WorkloadSettings(), rng)
    with pytest.raises(InputError, match="needs a grid"):
        make_batches(trace, 8, None, WorkloadSettings(origins="domain-affine"), rng)


@pytest.mark.parametrize("name", ["gpt-oss-20b", "deepseek-v2-lite"])
@pytest.mark.parametrize("phase", PHASES)
def test_real_traces_fill_hundreds_of_batches_from_all_their_requests(
    trace_folder: Callable[[str], Path], name: str, phase: str
) -> None:
    trace = load_trace(trace_folder(name))
    chosen = WorkloadSettings(phase=phase, batches=200, batch_tokens=16384)
    run = make_batches(trace, 128, (16, 8), chosen, np.random.default_rng(0))
    requests, positions = coverage(trace, run)
    assert requests == trace.num_requests
    assert positions > 0.9 * trace.num_positions


def test_served_loads_are_those_that_batches_draw_on_average() -> None:
    trace = make_trace(prompt_len=3)
    for phase in PHASES:
        served = as_served(trace, phase)
        assert served.weight is not None
        assert served.weight.mean() == pytest.approx(1)
        run = batches(trace=trace, phase=phase, batches=60, batch_tokens=4000)
        drawn = np.zeros(trace.num_positions)
        for batch in run:
            drawn += np.bincount(batch.positions, minlength=trace.num_positions)
        np.testing.assert_allclose(drawn / drawn.mean(), served.weight, atol=0.12)


@pytest.mark.parametrize("phase", ["prefill", "training"])
@pytest.mark.parametrize("batch_tokens", [1, 4, 7, 40])
def test_batches_shorter_than_requests_draw_every_position_alike(
    phase: str, batch_tokens: int
) -> None:
    # Windows on a sequence of requests of 5 to 16 positions: where they open is not by request.
    trace = make_trace()
    run = batches(
        trace=trace, phase=phase, batches=48_000 // batch_tokens, batch_tokens=batch_tokens
    )
    drawn = np.zeros(trace.num_requests)
    for batch in run:
        drawn += np.bincount(trace.position_request[batch.positions], minlength=len(drawn))
    np.testing.assert_allclose(
        drawn / drawn.sum(), np.arange(5, 17) / trace.num_positions, atol=0.01
    )


def test_decode_counts_requests_alike_and_other_phases_their_positions() -> None:
    trace = make_trace()
    decode, training = as_served(trace, "decode"), as_served(trace, "training")
    assert decode.weight is not None
    by_request = np.bincount(trace.position_request, decode.weight)
    np.testing.assert_allclose(by_request, trace.num_positions / trace.num_requests)
    np.testing.assert_allclose(training.load(), trace.load())
    np.testing.assert_allclose(decode.load().sum(axis=1), trace.load().sum(axis=1))
    np.testing.assert_allclose(decode.domain_load().sum(axis=0), decode.load())
    half = decode.select([3, 1])
    np.testing.assert_allclose(half.weight, decode.weight[trace.positions_of(np.array([3, 1]))])
    with pytest.raises(InputError, match="unknown phase 'decod'"):
        as_served(trace, "decod")
