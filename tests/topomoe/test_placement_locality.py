"""Placements near their tokens: the limit on loads holds, and fewer bytes cross between rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import topomoe as tm
from topomoe.comparison.placement_front import Candidate, front_rows, undominated
from topomoe.demand import DispatchSettings, dispatch_batch, replica_tables
from topomoe.model import model_preset
from topomoe.placement import Placement, PlacementOptions, lower_bound, place
from topomoe.placement.rows.capacity_flow import augment
from topomoe.placement.rows.co_activation_graph import co_activation_graphs
from topomoe.placement.rows.local_shares import local_shares
from topomoe.placement.rows.locality_kernel import device_price
from topomoe.placement.rows.row_bound import least_cross_row_bytes
from topomoe.placement.rows.row_partition import row_start
from topomoe.topologies.errors import InputError

GRID = (4, 2)
FEW = PlacementOptions(sweeps=40, batch_tokens=1024)


def trace_of(experts: NDArray[np.int64], num_experts: int, domains: int = 1) -> tm.RoutingTrace:
    """A trace of [P, K] picks of one layer, ten tokens a request."""
    requests = len(experts) // 10
    return tm.RoutingTrace(
        experts=np.ascontiguousarray(experts[None, : 10 * requests], dtype=np.int16),
        request_start=np.arange(requests + 1) * 10,
        request_ids=tuple(f"q{q}" for q in range(requests)),
        domain_names=tuple(f"d{d}" for d in range(domains)),
        request_domain=(np.arange(requests) % domains).astype(np.int32),
        position=np.tile(np.arange(10), requests).astype(np.int32),
        prompt_len=np.full(requests, -1, dtype=np.int32),
        num_experts=num_experts,
        repetition=np.zeros(requests, dtype=np.bool_),
    )


def grouped(seed: int = 0, tokens: int = 3000, experts: int = 24) -> tm.RoutingTrace:
    """Tokens that choose both experts of one of E/2 couples, some couples hotter."""
    rng = np.random.default_rng(seed)
    weight = rng.lognormal(0, 0.7, experts // 2)
    couple = rng.choice(experts // 2, size=tokens, p=weight / weight.sum())
    other = rng.permutation(experts).reshape(-1, 2)
    return trace_of(other[couple], experts)


def crossing(
    placement: Placement, trace: tm.RoutingTrace, grid: tuple[int, int], routing: str
) -> float:
    """Copies a token and layer between rows, tokens starting anywhere."""
    devices = grid[0] * grid[1]
    tokens = np.random.default_rng(5).permutation(trace.num_positions)[:8192]
    row = np.arange(devices) // grid[1]
    sent = dispatch_batch(
        trace.experts,
        tokens,
        np.random.default_rng(6).integers(devices, size=len(tokens), dtype=np.int32),
        replica_tables(placement, routing),
        DispatchSettings(replica_routing=routing),
        row,
        np.arange(trace.num_layers).astype(np.uint64),
    )
    apart = sent.copies[:, row[:, None] != row].sum(dtype=np.float64)
    return float(apart / len(tokens) / trace.num_layers)


def test_experts_that_fire_together_cross_rows_far_less_than_under_eplb() -> None:
    trace = grouped()
    near = place(trace, 8, 32, "locality", GRID, options=FEW)
    far = place(trace, 8, 32, "eplb", GRID)
    assert near.balancedness(trace.load()).min() >= 0.98
    for routing in ("weighted", "local-first", "lp"):
        assert crossing(near, trace, GRID, routing) < 0.8 * crossing(far, trace, GRID, routing)


@settings(max_examples=15)
@given(
    shape=st.sampled_from([(2, 2, 8), (3, 2, 12), (4, 2, 16), (4, 2, 24), (8, 1, 8), (2, 3, 30)]),
    least=st.sampled_from([0.8, 0.95, 1.0]),
    seed=st.integers(0, 100),
)
def test_balance_is_kept_wherever_it_can_be(
    shape: tuple[int, int, int], least: float, seed: int
) -> None:
    rows, columns, slots = shape
    rng = np.random.default_rng(seed)
    trace = trace_of(np.argsort(-rng.gumbel(0, 1, (300, 8)) - rng.normal(0, 1, 8))[:, :2], 8)
    options = replace(FEW, least_balancedness=least)
    placement = place(trace, rows * columns, slots, "locality", (rows, columns), options=options)
    load = trace.load()[0]
    exact = place(trace, rows * columns, slots, "exact").balancedness(trace.load())[0]
    bound = load.sum() / (rows * columns) / lower_bound(load, rows * columns, slots)
    reached = placement.balancedness(trace.load())[0]
    assert reached >= min(least, exact, bound) - 1e-5
    held = placement.slot_expert[0].reshape(rows * columns, -1)
    if slots // (rows * columns) <= 8:
        assert all(len(set(device.tolist())) == len(device) for device in held)


def test_equal_arguments_give_equal_bytes_and_another_numbering_as_good_a_placement() -> None:
    trace = grouped(1)
    first = place(trace, 8, 32, "locality", GRID, seed=3, options=FEW)
    again = place(trace, 8, 32, "locality", GRID, seed=3, options=FEW)
    assert first.slot_expert.tobytes() == again.slot_expert.tobytes()
    assert first.slot_share.tobytes() == again.slot_share.tobytes()
    number = np.random.default_rng(2).permutation(24)
    renamed = replace(trace, experts=number[trace.experts].astype(np.int16))
    other = place(renamed, 8, 32, "locality", GRID, seed=3, options=FEW)
    here, there = (
        crossing(p, t, GRID, "local-first") for p, t in ((first, trace), (other, renamed))
    )
    assert there == pytest.approx(here, rel=0.12)


def test_what_it_cannot_do_without_is_asked_for_in_one_line() -> None:
    trace = grouped()
    with pytest.raises(InputError, match="locality needs the trace that the loads were counted"):
        place(trace.load(), 8, 32, "locality", GRID)
    with pytest.raises(InputError, match="locality needs a grid: rows x columns"):
        place(trace, 8, 32, "locality")
    served = place(trace, 8, 40, "eplb")
    with pytest.raises(InputError, match=r"same \(layers, slots, experts\), got \(1, 40, 24\)"):
        place(trace, 8, 32, "locality", GRID, previous=served, options=replace(FEW, moves=3))


def test_no_more_copies_move_than_allowed() -> None:
    trace = grouped(2)
    served = place(grouped(9), 8, 32, "eplb", GRID)
    crossed = []
    for moves in (0, 4, 12):
        options = replace(FEW, moves=moves)
        placement = place(trace, 8, 32, "locality", GRID, previous=served, options=options)
        assert placement.migration_slots(served).sum() <= moves
        crossed.append(crossing(placement, trace, GRID, "weighted"))
    assert crossed[2] < crossed[0]


def test_numbering_devices_after_the_previous_placement_moves_fewer_copies() -> None:
    trace = grouped(3)
    served = place(trace, 8, 32, "locality", GRID, seed=1, options=FEW)
    anew = place(trace, 8, 32, "locality", GRID, seed=2, options=FEW)
    after = place(trace, 8, 32, "locality", GRID, seed=2, options=FEW, previous=served)
    assert after.migration_slots(served).sum() < anew.migration_slots(served).sum()


def test_rows_of_a_domain_hold_what_the_domain_uses() -> None:
    rng = np.random.default_rng(0)
    # Two domains with experts of their own: 0..7 and 8..15.
    picks = np.argsort(rng.random((2000, 8)))[:, :2]
    domain = np.repeat(np.arange(200) % 2, 10)
    trace = trace_of(picks + 8 * domain[:, None], 16, domains=2)
    options = replace(FEW, origins="domain-affine")
    placement = place(trace, 8, 16, "locality", GRID, options=options)
    home = placement.slot_expert[0].reshape(4, 4) // 8
    np.testing.assert_array_equal(home, [[0] * 4, [0] * 4, [1] * 4, [1] * 4])


def test_the_graph_counts_every_token_once_over_the_rows() -> None:
    trace = trace_of(np.array([[0, 1], [0, 1], [1, 2], [3, 0]] * 10), 4, domains=2)
    for origins in ("uniform", "domain-affine"):
        (graph,) = co_activation_graphs(trace, rows=4, origins=origins)
        np.testing.assert_allclose(graph.demand.sum(axis=0), [30, 30, 10, 10])
        total = graph.pairs.sum(axis=0) * (4 / len(graph.pairs))
        np.testing.assert_allclose(total[0], [0, 20, 0, 10])


def test_the_price_of_a_device_of_two_experts_is_the_copies_that_reach_it() -> None:
    """One slot an expert: what the price expects is what a dispatch counts."""
    rng = np.random.default_rng(4)
    trace = trace_of(np.argsort(rng.random((4000, 16)) - rng.normal(0, 0.3, 16))[:, :4], 16)
    placement = place(trace, 8, 16, "random")
    (graph,) = co_activation_graphs(trace, 4)
    slot = placement.slot_expert[0].copy()
    held = np.zeros((4, 16), dtype=np.int64)
    held[np.repeat(np.arange(4), 4), slot] = 1
    lacking = (graph.demand * (held == 0)).sum(axis=0)
    price = sum(
        device_price(
            d, 2, 2, slot, held, np.ones(16, dtype=np.int64), graph.demand, lacking, graph.pairs,
            1e9, 1.0, np.empty(2), np.empty(2, dtype=np.int64),
        )
        for d in range(8)
    )  # fmt: skip
    expected = crossing(placement, trace, GRID, "weighted")
    assert price / trace.num_positions == pytest.approx(expected, rel=0.02)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_the_flow_is_short_exactly_below_the_least_largest_load(seed: int) -> None:
    rng = np.random.default_rng(seed)
    load = rng.lognormal(0, 1, 10)
    slot = place(load, 8, 16, "random", seed=seed).slot_expert[0].copy()
    demand = np.tile(load / 2, (2, 1))
    share, _ = local_shares(slot, demand, 8, 4, 0.0)
    largest = np.bincount(np.arange(16) // 2, load[slot] * share).max()
    where, replicas = np.zeros((10, 16), dtype=np.int64), np.zeros(10, dtype=np.int64)
    for s, e in enumerate(slot):
        where[e, replicas[e]] = s
        replicas[e] += 1

    def short(most: float) -> float:
        scratch = [np.zeros(10, dtype=np.int64) for _ in range(2)]
        return augment(
            slot, where, replicas, 2, most, np.zeros(16), np.zeros(8), load.copy(), *scratch,
            np.zeros(8, dtype=np.int64),
        )  # fmt: skip

    assert short(largest * (1 + 1e-6)) < 1e-7
    assert short(largest * 0.99) > 1e-4


def test_shares_keep_in_their_row_what_the_limit_lets_them() -> None:
    # Two rows of one device; both hold expert 0, each one more. Row 0 has all of the demand for 0.
    slot = np.array([0, 1, 0, 2], dtype=np.int32)
    demand = np.array([[3.0, 0.5, 0.0], [0.0, 0.0, 0.5]])
    share, leaving = local_shares(slot, demand, 2, 1, 4.0)
    assert leaving == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(share, [1, 1, 0, 1], atol=1e-9)
    share, leaving = local_shares(slot, demand, 2, 1, 2.0)
    assert leaving == pytest.approx(1.5)
    np.testing.assert_allclose(share, [0.5, 1, 0.5, 1], atol=1e-6)


def test_partitioned_rows_keep_couples_together() -> None:
    couples = np.zeros((16, 16))
    couples[np.arange(16), np.arange(16) ^ 1] = 5.0
    rows = row_start(couples, np.ones(16), (4, 2), 16, 0).reshape(4, 4)
    for row in rows:
        assert {int(e) ^ 1 for e in row} == {int(e) for e in row}


def test_no_placement_undercuts_the_bound() -> None:
    model = "mixtral-8x7b"
    size = model_preset(model).dispatch_bytes + model_preset(model).combine_bytes
    for trace in (
        grouped(0),
        trace_of(np.argsort(np.random.default_rng(1).random((2000, 24)))[:, :4], 24),
    ):
        for grid, slots in (((4, 2), 24), ((4, 2), 32), ((4, 2), 64), ((2, 4), 48)):
            bound = least_cross_row_bytes(trace, grid, slots, model)[0] / size
            for method in ("eplb", "exact", "locality"):
                placement = place(trace, 8, slots, method, grid, options=FEW)
                assert bound <= 1.03 * crossing(placement, trace, grid, "local-first") + 1e-9
    assert least_cross_row_bytes(trace, (1, 8), 32, model)[0] == 0.0


def test_the_bound_is_met_where_rows_hold_what_they_can() -> None:
    """One slot a device, a device a row: a token meets its expert at home in 1 of R rows."""
    trace = trace_of(np.repeat(np.arange(4), 50)[:, None], 4)
    size = model_preset("mixtral-8x7b")
    bound = least_cross_row_bytes(trace, (4, 1), 4, size)[0]
    assert bound == pytest.approx(0.75 * (size.dispatch_bytes + size.combine_bytes))


@given(costs=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(costs: list[tuple[int, int, int]]) -> None:
    table = np.array(costs, dtype=float)
    front = undominated(table)
    assert front.any()
    for x in np.flatnonzero(~front):
        assert any((table[y] <= table[x]).all() and (table[y] < table[x]).any()
                   for y in np.flatnonzero(front))  # fmt: skip


def test_the_front_scores_all_candidates_on_the_same_held_out_batches() -> None:
    trace = grouped(4)
    train, test = trace.split(0.5, 0)
    frame = front_rows(
        train,
        test,
        GRID,
        32,
        model="mixtral-8x7b",
        methods=("eplb", Candidate("near", "locality", FEW)),
        replica_routings=("weighted", "local-first"),
        batches=2,
        batch_tokens=512,
    )
    assert list(frame["candidate"]) == ["eplb", "eplb", "near", "near"]
    eplb, near = (frame[frame["candidate"] == c].iloc[1] for c in ("eplb", "near"))
    assert near["cross_row_bytes_per_token"] < eplb["cross_row_bytes_per_token"]
    assert (
        frame["least_cross_row_bytes_per_token"] <= 1.05 * frame["cross_row_bytes_per_token"]
    ).all()
    assert (frame["cross_row_bytes_per_token"] <= frame["remote_bytes_per_token"]).all()
    assert (frame["remote_rows_per_token"] <= 2).all()
    assert near["balancedness_worst"] >= 0.98
    assert frame["on_front"].any()


@pytest.mark.parametrize(("name", "less"), [("deepseek-v2-lite", 0.8), ("gpt-oss-20b", 0.5)])
def test_a_fifth_fewer_bytes_cross_rows_of_held_out_requests_than_under_eplb(
    name: str, less: float, trace_folder: Callable[[str], Path]
) -> None:
    trace = tm.load_trace(trace_folder(name)).filter(layers=[2, 16])
    train, test = trace.split(0.5, 0)
    near = place(train, 64, 128, "locality", (8, 8))
    far = place(train, 64, 128, "eplb", (8, 8))
    assert near.balancedness(train.load()).min() >= 0.98
    here, there = (crossing(p, test, (8, 8), "local-first") for p in (near, far))
    assert here < less * there
