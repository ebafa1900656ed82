"""The methods that split each expert evenly: what they must reach, and never fall below."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe.placement import Placement, PlacementOptions, certificate, lower_bound, place
from topomoe.placement.search.mixed_integer import solve_layer
from topomoe.synthetic import calibrated_loads
from topomoe.topologies.errors import InputError

METHODS = ("local-search", "anneal", "milp")
FEW = PlacementOptions(sweeps=20, nodes=1)


@st.composite
def problems(draw: st.DrawFn) -> tuple[NDArray[np.float64], int, int]:
    """Loads of one layer, devices and slots: also S = E, S/N = 1, zero loads and hot experts."""
    devices = draw(st.integers(1, 9))
    per_device = draw(st.integers(1, 5))
    slots = devices * per_device
    experts = draw(st.one_of(st.just(slots), st.integers(min(per_device + 1, slots), slots)))
    seed = draw(st.integers(0, 2**32 - 1))
    load = np.random.default_rng(seed).lognormal(0, draw(st.sampled_from([0.5, 1.1, 2])), experts)
    load[: draw(st.integers(0, experts - 1))] = 0.0
    load[-1] *= draw(st.sampled_from([1, 100]))
    return load * draw(st.sampled_from([1e-300, 1, 1e300 / load.sum()])), devices, slots


def highest(placement: Placement, load: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(placement.device_load(load).max(axis=1))


def has_doubles(placement: Placement) -> bool:
    """Whether a device holds an expert twice."""
    held = np.sort(placement.slot_expert.reshape(-1, placement.num_slots // placement.num_devices))
    return bool((held[:, 1:] == held[:, :-1]).any())


def best_by_enumeration(load: NDArray[np.float64], devices: int, per_device: int) -> float:
    """The lowest maximum over every even split without doubles."""
    best = np.inf
    sets = list(combinations(range(load.size), per_device))
    for devices_hold in combinations_with_replacement(sets, devices):
        count = np.bincount(np.ravel(devices_hold), minlength=load.size)
        if count.all():
            best = min(best, max((load / count)[list(held)].sum() for held in devices_hold))
    return best


@settings(deadline=None, max_examples=60)
@given(problem=problems())
def test_local_search_is_never_worse_than_eplb(
    problem: tuple[NDArray[np.float64], int, int],
) -> None:
    load, devices, slots = problem
    start = highest(place(load, devices, slots, method="eplb"), load)[0]
    searched = place(load, devices, slots, method="local-search")
    assert highest(searched, load)[0] <= start * (1 + 1e-12)
    assert not has_doubles(searched) or slots >= devices * load.size


@settings(deadline=None, max_examples=25)
@given(problem=problems())
def test_annealing_is_never_worse_than_local_search(
    problem: tuple[NDArray[np.float64], int, int],
) -> None:
    load, devices, slots = problem
    local = highest(place(load, devices, slots, method="local-search"), load)[0]
    annealed = place(load, devices, slots, method="anneal", options=FEW)
    assert highest(annealed, load)[0] <= local * (1 + 1e-12)
    assert not has_doubles(annealed) or slots >= devices * load.size


@pytest.mark.parametrize("method", METHODS)
def test_replicas_of_an_expert_have_equal_shares(method: str) -> None:
    load = np.random.default_rng(0).lognormal(0, 1, (2, 7))
    placement = place(load, 4, 12, method=method, options=FEW)
    count = np.take_along_axis(placement.replicas(), placement.slot_expert.astype(int), axis=1)
    np.testing.assert_array_equal(placement.slot_share, 1 / count)
    assert count.max() > 1


@pytest.mark.parametrize("method", METHODS)
def test_equal_seeds_give_equal_bytes_and_no_load_below_the_bound(method: str) -> None:
    load = np.random.default_rng(5).lognormal(0, 1, (2, 7))
    first, again = (place(load, 4, 12, method=method, seed=3, options=FEW) for _ in range(2))
    assert first.slot_expert.tobytes() == again.slot_expert.tobytes()
    assert (certificate(first, load).gap >= 0).all()


@pytest.mark.parametrize("seed", range(4))
def test_local_search_balances_every_layer_of_calibrated_loads(seed: int) -> None:
    load = calibrated_loads("deepseek-v3", seed)
    assert place(load, 128, 384, method="local-search").balancedness(load).min() >= 0.995


@pytest.mark.parametrize("deviation", [0.5, 0.8, 1.1])
def test_local_search_balances_heavy_tails(deviation: float) -> None:
    load = np.random.default_rng(3).lognormal(0, deviation, (58, 256))
    assert place(load, 128, 384, method="local-search").balancedness(load).min() >= 0.995


def test_local_search_balances_a_routed_shared_expert_and_other_models() -> None:
    load = calibrated_loads("deepseek-v3", 1)
    # Every token of top-8 goes to the shared expert too: an eighth of all other pairs.
    shared = np.column_stack([load, load.sum(axis=1) / 8])
    placement = place(shared, 128, 384, method="local-search")
    assert placement.balancedness(shared).min() >= 0.995
    assert (placement.replicas()[:, 256] >= 128 / 9).all()
    kimi = calibrated_loads("kimi-k2", 0)
    assert place(kimi, 128, 512, method="local-search").balancedness(kimi).min() >= 0.995


def test_a_smaller_tolerance_balances_better() -> None:
    load = calibrated_loads("deepseek-v3", 0, layers=6)
    for tolerance in (0.02, 0.005, 0.001):
        options = PlacementOptions(tolerance=tolerance)
        reached = highest(place(load, 128, 384, method="local-search", options=options), load)
        assert (reached <= load.sum(axis=1) / 128 * (1 + tolerance) * (1 + 1e-12)).all()


def test_layers_are_searched_independently() -> None:
    load = np.random.default_rng(4).lognormal(0, 1, (3, 20))
    together = place(load, 8, 32, method="local-search", seed=7)
    for layer in range(3):
        alone = place(load[layer], 8, 32, method="local-search", seed=7)
        np.testing.assert_array_equal(alone.slot_expert[0], together.slot_expert[layer])


def test_a_hot_expert_gets_at_most_one_slot_on_each_device() -> None:
    load = np.array([1e6, 1, 1, 1, 1])
    placement = place(load, 4, 8, method="local-search")
    assert placement.replicas()[0, 0] == 4
    np.testing.assert_allclose(placement.device_load(load), 250001)


@settings(deadline=None, max_examples=20)
@given(
    load=st.lists(st.integers(0, 30), min_size=3, max_size=5).filter(any),
    shape=st.sampled_from([(2, 2), (3, 2), (2, 3), (4, 2)]),
)
def test_milp_reaches_and_proves_the_optimum_of_every_tiny_layer(
    load: list[int], shape: tuple[int, int]
) -> None:
    devices, per_device = shape
    if not per_device < len(load) <= devices * per_device:
        return
    loads = np.array(load, dtype=float)
    best = best_by_enumeration(loads, devices, per_device)
    solution = solve_layer(loads, devices, devices * per_device)
    assert solution.achieved == pytest.approx(best, rel=1e-6)
    assert solution.bound == pytest.approx(best, rel=1e-5)
    placement = place(loads, devices, devices * per_device, method="milp")
    np.testing.assert_allclose(highest(placement, loads), solution.achieved)
    assert not has_doubles(placement)


def test_milp_proves_more_than_the_general_bound_and_local_search_is_within_its_gap() -> None:
    for experts, seed in ((8, 2), (10, 4)):
        load = np.random.default_rng(seed).lognormal(0, 1, experts)
        solution = solve_layer(load, 4, 12)
        local = highest(place(load, 4, 12, method="local-search"), load)[0]
        general = lower_bound(load, 4, 12)
        assert general * (1 + 1e-3) < solution.bound <= solution.achieved <= local * (1 + 1e-12)
        assert solution.gap == pytest.approx(solution.achieved / solution.bound - 1)
        assert solution.gap < 1e-6


def test_milp_stopped_early_still_proves_a_bound_and_keeps_the_local_search() -> None:
    load = np.random.default_rng(1).lognormal(0, 1, 8)
    solved, stopped = (solve_layer(load, 4, 12, nodes=nodes) for nodes in (1000, 1))
    assert stopped.bound <= solved.bound <= solved.achieved <= stopped.achieved * (1 + 1e-12)
    assert solved.gap < stopped.gap


def test_milp_deals_experts_of_equal_load_without_doubles() -> None:
    for load in ([3.0, 3, 3, 1, 1, 1, 1], [2.0] * 7, [0.0, 0, 0, 0, 0, 5, 5]):
        solution = solve_layer(load, 4, 12)
        rows = solution.slot_expert.reshape(4, 3)
        assert all(np.unique(row).size == 3 for row in rows)
        assert np.unique(rows).size == 7


def test_milp_refuses_a_layer_it_cannot_solve_in_one_line() -> None:
    load = np.random.default_rng(0).lognormal(0, 0.7, 256)
    with pytest.raises(InputError, match="milp takes at most 5000 variables") as caught:
        place(load, 128, 384, method="milp")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"load must be \[E\], got shape \(1, 4\)"):
        solve_layer(np.ones((1, 4)), 2, 4)
    with pytest.raises(InputError, match="nodes must be >= 1"):
        solve_layer(np.ones(4), 2, 4, nodes=0)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(InputError, match="tolerance must be >= 0 and finite, got -1"):
        PlacementOptions(tolerance=-1)
