"""Placements from several loads: the share programme, its proofs, and the objectives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe.placement import Placement, PlacementOptions, place
from topomoe.placement.options import OBJECTIVES
from topomoe.placement.problem import PlacementProblem
from topomoe.placement.shift.mixes import mix_certificate
from topomoe.placement.shift.robust import PLANS, Plan, changed, choose_plan, planned
from topomoe.placement.shift.robust_anneal import anneal_slots
from topomoe.placement.shift.robust_kernel import change_replicas, spread, swap_slots
from topomoe.placement.shift.share_program import best_shares
from topomoe.topologies.errors import InputError

Floats = NDArray[np.float64]


def domain_loads(seed: int, domains: int, layers: int, experts: int) -> Floats:
    rng = np.random.default_rng(seed)
    base = rng.lognormal(0, 0.7, (1, layers, experts))
    loads = base * rng.lognormal(0, 0.4, (domains, layers, experts))
    return np.asarray(loads / loads.mean(axis=2, keepdims=True))


def highs_value(row: NDArray[np.int32], loads: Floats, devices: int, weight: float) -> float:
    """The same programme for one layer, loads [D, E], by HiGHS."""
    from scipy.optimize import linprog

    domains, experts = loads.shape
    slots = len(row)
    upper = np.zeros((devices * domains, slots + 1 + domains))
    for s, expert in enumerate(row):
        for d in range(domains):
            upper[s // (slots // devices) * domains + d, s] = loads[d, expert]
    upper[:, slots] = -1
    for d in range(domains):
        upper[d::domains, slots + 1 + d] = -1
    equal = np.zeros((experts, slots + 1 + domains))
    equal[row, np.arange(slots)] = 1
    cost = np.concatenate([np.zeros(slots), [1], np.full(domains, weight)])
    bounds = [(0, None)] * slots + [(None, None)] + [(0, None)] * domains
    found = linprog(cost, upper, np.zeros(len(upper)), equal, np.ones(experts), bounds)
    return float(found.fun)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    domains=st.integers(1, 5),
    devices=st.integers(1, 6),
    per_device=st.integers(1, 4),
    weight=st.sampled_from([1.0, 0.6, 0.4]),
)
def test_the_share_programme_meets_highs_and_proves_it(
    seed: int, domains: int, devices: int, per_device: int, weight: float
) -> None:
    rng = np.random.default_rng(seed)
    slots = devices * per_device
    experts = int(rng.integers(1, slots + 1))
    row = rng.permutation(np.concatenate([np.arange(experts), rng.integers(0, experts, slots)]))
    row = np.concatenate([np.arange(experts), row])[:slots].astype(np.int32)
    weight = max(weight, 1.05 / domains)
    loads = domain_loads(seed, domains, 1, experts)
    found = best_shares(row[None], loads, devices, weight)
    assert found.bound[0] <= found.value[0] * (1 + 1e-12)
    assert found.value[0] <= found.bound[0] * (1 + 1e-5)
    expected = highs_value(row, loads[:, 0], devices, weight)
    np.testing.assert_allclose(found.value[0], expected, rtol=1e-5)
    Placement(row[None], found.slot_share, devices, experts)  # checks the shares


def test_one_load_with_enough_slots_is_shared_out_equally() -> None:
    load = domain_loads(3, 1, 2, 10)
    slots = place(load[0], 4, 16, method="exact").slot_expert
    np.testing.assert_allclose(best_shares(slots, load, 4).value, load[0].sum(axis=1) / 4)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), weights=st.lists(st.floats(0.01, 1), min_size=3, max_size=3))
def test_no_mix_of_the_loads_is_worse_than_the_certificate(seed: int, weights: list[float]) -> None:
    loads = domain_loads(seed, 3, 2, 12)
    options = PlacementOptions(objective="mixes")
    placement = place(loads, 4, 16, method="robust", options=options)
    proof = mix_certificate(placement, loads)
    mix = np.array(weights) / sum(weights)
    mixed = np.tensordot(mix, loads, axes=1)
    assert (placement.device_load(mixed).max(axis=1) <= proof.worst * (1 + 1e-12)).all()
    assert (proof.placement_bound <= proof.worst).all()
    np.testing.assert_allclose(proof.shares_bound, proof.worst, rtol=1e-5)
    np.testing.assert_allclose(proof.mix.sum(axis=1), 1)
    # Neither other shares nor another placement may beat the bounds on the worst mix.
    other = place(loads, 4, 16, method="eplb")
    worst = np.max([other.device_load(load).max(axis=1) for load in loads], axis=0)
    assert (worst >= proof.placement_bound * (1 - 1e-12)).all()


def test_mixes_are_no_worse_than_eplb_on_the_loads_it_was_made_for() -> None:
    for seed in range(5):
        loads = domain_loads(seed, 4, 3, 24)
        options = PlacementOptions(objective="mixes")
        robust = place(loads, 8, 40, method="robust", options=options)
        for start in (loads.mean(axis=0), loads.max(axis=0)):
            peer = place(start, 8, 40, method="eplb")

            def worst(placement: Placement, given: Floats = loads) -> float:
                return float(np.mean([1 / placement.balancedness(load) for load in given]))

            assert worst(robust) <= worst(peer)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_gives_valid_equal_bytes_without_doubles(objective: str) -> None:
    loads = domain_loads(1, 4, 2, 13)
    options = PlacementOptions(objective=objective)
    for devices, slots in [(4, 16), (13, 13), (5, 20), (1, 13)]:
        one = place(loads, devices, slots, method="robust", options=options)
        two = place(loads.copy(), devices, slots, method="robust", options=options)
        assert one.slot_expert.tobytes() == two.slot_expert.tobytes()
        assert one.slot_share.tobytes() == two.slot_share.tobytes()
        for row in one.slot_expert.reshape(2 * devices, -1):
            assert len(np.unique(row)) == len(row)


def test_each_objective_is_best_at_what_it_minimises_on_equal_slots() -> None:
    loads = domain_loads(5, 5, 1, 14)
    slots = place(loads.max(axis=0), 4, 20, method="eplb").slot_expert
    worst_shares = best_shares(slots, loads, 4)
    tail_shares = best_shares(slots, loads, 4, weight=1 / (0.4 * 5))

    def device_max(share: Floats) -> Floats:
        placement = Placement(slots, share, 4, 14)
        return np.sort([placement.device_load(load).max() for load in loads])[::-1]

    one, two = device_max(worst_shares.slot_share), device_max(tail_shares.slot_share)
    np.testing.assert_allclose(worst_shares.value, one[0], rtol=1e-6)
    np.testing.assert_allclose(tail_shares.value, two[:2].mean(), rtol=1e-6)
    assert one[0] <= two[0] * (1 + 1e-6)
    assert two[:2].mean() <= one[:2].mean() * (1 + 1e-6)


def test_a_load_taken_off_every_device_load_is_what_regret_is_measured_from() -> None:
    loads = domain_loads(2, 3, 1, 10)
    slots = place(loads.mean(axis=0), 5, 15, method="eplb").slot_expert
    offset = np.array([[2.0], [1.0], [2.2]])
    found = best_shares(slots, loads, 5, offset=offset)
    placement = Placement(slots, found.slot_share, 5, 10)
    excess = [
        placement.device_load(load).max() - o[0] for load, o in zip(loads, offset, strict=True)
    ]
    np.testing.assert_allclose(found.value, max(excess), rtol=1e-6)
    assert found.bound[0] <= found.value[0] + 1e-12


def test_changed_loads_keep_their_mean_and_reach_both_ends() -> None:
    loads = domain_loads(0, 3, 2, 9)
    np.testing.assert_allclose(changed(loads, 0.0, 0.0), loads)
    np.testing.assert_allclose(changed(loads, 0.7, 0.3).mean(axis=2), 1)
    np.testing.assert_allclose(changed(loads, -1.0, 0.0), loads.mean(axis=0, keepdims=True))
    np.testing.assert_allclose(changed(loads, 0.0, 1.0), np.ones_like(loads))


def with_variance(loads: Floats, variance: float) -> Floats:
    """Loads and variance [E, D + 1] of the first layer, in means of 4 devices."""
    load = np.ascontiguousarray(loads[:, 0].T) * 4 / loads.shape[2]
    return np.column_stack([load, np.full(len(load), variance)])


def power_cost(slots: NDArray[np.int32], load: Floats) -> float:
    """Sum of (device load + its standard deviation) to the power 16, even shares, 4 devices."""
    count = np.bincount(slots, minlength=len(load))[:, None]
    part = (load / count)[slots]
    part[:, -1] = (load / count**2)[slots, -1]
    device = part.reshape(4, -1, load.shape[1]).sum(axis=1)
    return float(((device[:, :-1] + np.sqrt(device[:, -1:])) ** 16).sum())


@pytest.mark.parametrize("variance", [0.0, 0.02])
def test_the_search_lowers_its_cost_and_keeps_every_expert(variance: float) -> None:
    load = with_variance(domain_loads(4, 3, 1, 12), variance)
    slots = np.array(place(np.ones(12), 4, 20, method="contiguous").slot_expert[0])
    costs = [power_cost(slots, load)]
    assert change_replicas(slots, load, 4) > 0
    costs.append(power_cost(slots, load))
    count = np.bincount(slots, minlength=12)[:, None]
    part = np.column_stack([load[:, :-1] / count, load[:, -1:] / count**2])[slots]
    assert swap_slots(slots, part, 4, 12, 5) > 0
    costs.append(power_cost(slots, load))
    assert costs[0] > costs[1] > costs[2]
    assert set(slots) == set(range(12))
    carried = np.column_stack([load[:, :-1] / count, load[:, -1:] / count**2])[slots]
    np.testing.assert_allclose(part, carried)  # what a slot carries went with its expert


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), variance=st.sampled_from([0.0, 0.02]))
def test_annealing_is_within_two_percent_of_the_greedy_or_better_and_makes_no_doubles(
    seed: int, variance: float
) -> None:
    loads = domain_loads(seed, 3, 1, 12)
    load = with_variance(loads, variance)
    greedy = place(loads.max(axis=0), 4, 20, method="eplb").slot_expert[0]
    slots = np.array(greedy)
    anneal_slots(slots, load, 4, 20_000, np.random.default_rng(seed).random(1 << 12))
    assert set(slots) == set(range(12))
    for row in slots.reshape(4, 5):
        assert len(set(row)) == 5
    assert power_cost(slots, load) <= power_cost(np.array(greedy), load) * 1.02


def problem_of(loads: Floats, devices: int, slots: int) -> PlacementProblem:
    return PlacementProblem(loads.sum(axis=0), loads, devices, slots, None, 0)


def test_plans_that_start_from_eplb_are_eplb() -> None:
    loads = domain_loads(3, 4, 2, 16)
    for start, load in (("mean", loads.mean(axis=0)), ("max", loads.max(axis=0))):
        slots = planned(problem_of(loads, 4, 24), Plan(start), "shift")[0]
        assert slots.tobytes() == place(load, 4, 24, method="eplb").slot_expert.tobytes()
        assert Plan(start) in PLANS  # so that the choice can fall back to it


def test_loads_that_repeat_are_planned_for_as_they_are() -> None:
    loads = np.repeat(domain_loads(2, 1, 2, 24), 5, axis=0)
    plan = choose_plan(problem_of(loads, 8, 40), "shift")
    assert plan.pull == 0  # there is nothing unseen to be ready for
    robust = place(loads, 8, 40, method="robust")
    peer = place(loads[0], 8, 40, method="eplb")
    assert (robust.balancedness(loads[0]) >= peer.balancedness(loads[0])).all()


def test_levelling_keeps_every_load_and_reaches_the_programmes_largest() -> None:
    loads = domain_loads(7, 1, 1, 12)
    row = place(loads.mean(axis=0), 4, 20, method="eplb").slot_expert[0]
    load = np.ascontiguousarray(loads[:, 0].T)
    part = (load / np.bincount(row, minlength=12)[:, None])[row]
    spread(row, load, part, 4, 500)
    np.testing.assert_allclose(np.bincount(row, part[:, 0]), load[:, 0])
    best = best_shares(row[None], loads, 4).value[0]
    np.testing.assert_allclose(part.reshape(4, -1).sum(axis=1).max(), best, rtol=1e-4)


def test_bad_loads_are_refused_in_one_line() -> None:
    placement = place(np.ones(4), 2, 4)
    with pytest.raises(InputError, match=r"loads must be \[D, M, E\]"):
        mix_certificate(placement, np.ones((2, 1, 5)))
    with pytest.raises(InputError, match="finite and >= 0"):
        mix_certificate(placement, -np.ones((2, 1, 4)))
