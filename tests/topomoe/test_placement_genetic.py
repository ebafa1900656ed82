"""Remapping: whole device contents change devices, never for the worse, to the best of all."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.placement import Placement, PlacementOptions, place
from topomoe.placement.remapping import expected_copies, genetic
from topomoe.placement.remapping.genetic_search import Objective, cost, descend, evolve
from topomoe.routing_trace import RoutingTrace
from topomoe.synthetic import synthetic_trace
from topomoe.topologies import make, route
from topomoe.topologies.errors import InputError

GRID = (2, 3)
MODEL_BYTES = (100.0, 200.0)


def trace_of(seed: int = 0, requests: int = 12) -> RoutingTrace:
    """Two layers of 64 experts, top-6, four domains."""
    trace = synthetic_trace("deepseek-v2-lite", requests=requests, positions=20, seed=seed)
    return trace.filter(layers=(0, 1))


def busy_with(seed: int, grid: tuple[int, int] = GRID, by_row: bool = True) -> Objective:
    """Makespan of random copies on a torus, senders by row or all alike."""
    routing = route(make("torus", grid=grid))
    devices = grid[0] * grid[1]
    group = np.arange(devices) // grid[1] if by_row else np.zeros(devices, dtype=np.int64)
    copies = np.random.default_rng(seed).lognormal(3, 1, (group.max() + 1, devices))
    return genetic.link_seconds(routing, group, *MODEL_BYTES)._replace(copies=copies)


def sum_with(seed: int, grid: tuple[int, int] = GRID) -> Objective:
    devices = grid[0] * grid[1]
    tokens = np.random.default_rng(seed).random((devices, devices))
    return genetic.pair_sum(tokens, route(make("mesh", grid=grid)), 7.0)


def value(objective: Objective, order: np.ndarray) -> float:
    return cost(objective, np.asarray(order, dtype=np.int64), np.zeros(2 * objective.half))


def test_makespan_is_that_of_the_demand_between_devices() -> None:
    topology = make("torus", grid=(3, 4), bandwidth=1e9)
    routing = route(topology)
    rng = np.random.default_rng(3)
    row = np.arange(12) // 4
    copies = rng.random((3, 12))
    objective = genetic.link_seconds(routing, row, *MODEL_BYTES)._replace(copies=copies)
    order = rng.permutation(12)
    demand = copies[row][:, order]  # from each device to each device's new contents
    np.fill_diagonal(demand, 0)
    both = np.stack([demand * MODEL_BYTES[0], demand.T * MODEL_BYTES[1]])
    assert value(objective, order) == pytest.approx(routing.transfer_time(both).sum())


def test_the_sum_is_scalemoes_equation_2() -> None:
    # A mesh of one row, 0 - 1 - 2: neighbours 1/B a byte, the ends 2/B.
    routing = route(make("mesh", grid=(1, 3), bandwidth=2.0))
    local = 10.0 - np.array([[0.0, 4, 1], [3, 0, 2], [5, 6, 0]])  # b*s - CM, b*s = 10
    objective = genetic.pair_sum(local, routing, 8.0)
    seconds = 8.0 / 2.0
    near = (10 - 4) + (10 - 3) + (10 - 2) + (10 - 6)
    assert value(objective, np.array([0, 1, 2])) == pytest.approx(
        seconds * (near + 2 * ((10 - 1) + (10 - 5)))
    )
    # Contents 0 and 1 at the ends, where what they need not send saves most.
    near = (10 - 1) + (10 - 5) + (10 - 2) + (10 - 6)
    assert value(objective, np.array([0, 2, 1])) == pytest.approx(
        seconds * (near + 2 * ((10 - 4) + (10 - 3)))
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("made", [busy_with, sum_with])
def test_the_best_of_all_orders_is_found(made: object, seed: int) -> None:
    for grid in ((1, 5), (2, 3)):
        objective = made(seed, grid)  # type: ignore[operator]
        devices = grid[0] * grid[1]
        best = min(value(objective, np.array(p)) for p in permutations(range(devices)))
        found = evolve(objective, np.arange(devices), 60, np.uint64(seed))
        assert value(objective, found) == pytest.approx(best, rel=1e-12)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), generations=st.integers(0, 5), is_sum=st.booleans())
def test_no_search_is_worse_than_its_start_and_both_permute(
    seed: int, generations: int, is_sum: bool
) -> None:
    objective = sum_with(seed, (3, 4)) if is_sum else busy_with(seed, (3, 4), by_row=seed % 2 == 0)
    start = np.random.default_rng(seed).permutation(12)
    for order in (
        evolve(objective, start, generations, np.uint64(seed)),
        descend(objective, start),
    ):
        np.testing.assert_array_equal(np.sort(order), np.arange(12))
        assert value(objective, order) <= value(objective, start) * (1 + 1e-12)


@pytest.mark.parametrize("is_sum", [False, True])
def test_no_swap_of_two_devices_improves_the_end_of_a_descent(is_sum: bool) -> None:
    objective = sum_with(1, (3, 4)) if is_sum else busy_with(1, (3, 4))
    order = descend(objective, np.arange(12))
    best = value(objective, order)
    for a in range(12):
        for b in range(a):
            swapped = order.copy()
            swapped[[a, b]] = order[[b, a]]
            assert value(objective, swapped) >= best * (1 - 1e-9)


@pytest.mark.parametrize("goal", ["makespan", "sum"])
def test_contents_stay_together_and_balance_stays_as_it_was(goal: str) -> None:
    trace = trace_of()
    base = place(trace, 8, 80, method="eplb")
    options = PlacementOptions(goal=goal, generations=20, origins="domain-affine")
    result = genetic.remap(base, trace, (2, 4), options=options)
    contents = base.slot_expert.reshape(2, 8, -1)
    moved = result.placement.slot_expert.reshape(2, 8, -1)
    for m in range(2):
        np.testing.assert_array_equal(np.sort(result.order[m]), np.arange(8))
        np.testing.assert_array_equal(moved[m], contents[m, result.order[m]])
    load = trace.load()
    np.testing.assert_allclose(
        np.sort(result.placement.device_load(load)), np.sort(base.device_load(load))
    )
    assert (result.after <= result.before).all()
    assert result.after.sum() < result.before.sum()


def test_senders_by_row_gain_more_than_senders_alike() -> None:
    trace = trace_of(requests=24)
    base = place(trace, 16, 80, method="exact")
    gain = {}
    for origins in ("uniform", "domain-affine"):
        result = genetic.remap(base, trace, (4, 4), options=PlacementOptions(origins=origins))
        gain[origins] = 1 - result.after.sum() / result.before.sum()
    assert gain["domain-affine"] > gain["uniform"] >= 0


def test_home_rows_are_senders_too() -> None:
    trace = trace_of()
    base = place(trace, 8, 80)
    home = (trace.position_domain % 2).astype(np.int32)
    result = genetic.remap(base, trace, (2, 4), home_rows=home)
    ranked = genetic.remap(base, trace, (2, 4), home_rows=np.stack([home, 1 - home], axis=1))
    np.testing.assert_array_equal(result.order, ranked.order)
    assert result.after.sum() < result.before.sum()


def test_expected_copies_count_a_device_once_whatever_it_serves() -> None:
    # Experts 0, 1 on device 0; 2 and half of 0 on device 1. Token 0 picks {0, 1}, token 1 {0, 2}.
    placement = Placement(np.array([[0, 1, 2, 0]]), np.array([[0.5, 1, 1, 0.5]]), 2, 3)
    trace = RoutingTrace(
        experts=np.array([[[0, 1], [0, 2]]], dtype=np.int16),
        request_start=np.array([0, 2]),
        request_ids=("a",),
        domain_names=("all",),
        request_domain=np.zeros(1, dtype=np.int32),
        position=np.arange(2, dtype=np.int32),
        prompt_len=np.array([-1], dtype=np.int32),
        num_experts=3,
        repetition=np.zeros(1, dtype=np.bool_),
    )
    each = expected_copies.from_trace(trace, placement, np.array([0, 1]), 2)
    np.testing.assert_allclose(each, [[[1, 0.5], [0.5, 1]]])
    left_out = expected_copies.from_trace(trace, placement, np.array([-1, 0]), 1)
    np.testing.assert_allclose(left_out, [[[0.5, 1]]])
    # Loads alone: picks 0, 1, 2 with probabilities 1, .5, .5, independently.
    load = np.array([[2.0, 1.0, 1.0]])
    np.testing.assert_allclose(
        expected_copies.from_load(load, 2, placement), [[[1 - 0.5 * 0.5, 1 - 0.5 * 0.5]]]
    )
    # From contents {0, 1} to {2, 0}: only 2 is lacking; back, only 1.
    np.testing.assert_allclose(
        expected_copies.from_contents(load, 2, placement), [[[0, 0.5], [0.5, 0]]], atol=1e-12
    )


def test_equal_seeds_give_equal_bytes_for_both_goals() -> None:
    load = np.random.default_rng(1).lognormal(0, 0.7, (3, 20))
    for goal in ("makespan", "sum"):
        options = PlacementOptions(goal=goal, generations=30)
        first, again = (
            place(load, 8, 32, method="genetic", grid=(2, 4), seed=5, options=options)
            for _ in range(2)
        )
        assert first.slot_expert.tobytes() == again.slot_expert.tobytes()
        assert first.slot_share.tobytes() == again.slot_share.tobytes()


@pytest.mark.parametrize("topology", ["leaf-spine", "mesh", "fat-tree"])
def test_other_topologies_and_odd_grids_are_remapped(topology: str) -> None:
    load = np.random.default_rng(2).lognormal(0, 1, (1, 24))
    options = PlacementOptions(topology=topology, generations=5)
    grid = (2, 4) if topology == "fat-tree" else (5, 1)
    placement = place(load, grid[0] * grid[1], method="genetic", grid=grid, options=options)
    assert placement.num_layers == 1


def test_what_remapping_lacks_is_named() -> None:
    trace = trace_of()
    base = place(trace, 8, 80)
    affine = PlacementOptions(origins="domain-affine")
    with pytest.raises(InputError, match="origins = domain-affine needs a trace and a grid"):
        genetic.remap(base, trace, None, options=affine)
    with pytest.raises(InputError, match="needs a trace and a grid"):
        genetic.remap(base, trace.load(), (2, 4), options=affine)
    with pytest.raises(InputError, match="as many layers as the traffic, got 2 and 1"):
        genetic.remap(base, trace.load()[:1], (2, 4))
    with pytest.raises(InputError, match="has 9 devices, the placement 8"):
        genetic.remap(base, trace, (3, 3))
    with pytest.raises(InputError, match="did you mean 'domain-affine'"):
        replace(affine, origins="domain-afine")
