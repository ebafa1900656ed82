"""The exact method balances every load it claims to, and no bound exceeds the true optimum."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe.placement import certificate, gap, lower_bound, place
from topomoe.topologies.errors import InputError


@st.composite
def balanceable(draw: st.DrawFn) -> tuple[int, int, list[float]]:
    """Devices, slots and a load of E experts with S/N >= 2 and S >= E + N - 1."""
    devices = draw(st.integers(1, 16))
    per_device = draw(st.integers(2, 6))
    experts = draw(st.integers(1, devices * (per_device - 1) + 1))
    value = st.one_of(
        st.just(0.0),
        st.integers(1, 5).map(float),
        st.floats(1e-9, 1e9),
        st.floats(1e-200, 1e200, allow_subnormal=False),
    )
    load = draw(st.lists(value, min_size=experts, max_size=experts).filter(any))
    return devices, devices * per_device, load


@settings(deadline=None, max_examples=400)
@given(case=balanceable())
@example(case=(16, 80, list(np.random.default_rng(0).lognormal(0, 0.7, 60))))
@example(case=(128, 384, [1.0] + 256 * [0.0]))
@example(case=(128, 384, [1.0] * 257))
@example(case=(3, 6, [1e300, 1e-300, 1.0, 0.0]))
def test_every_device_has_the_mean_load_when_slots_suffice(
    case: tuple[int, int, list[float]],
) -> None:
    devices, slots, load = case
    placement = place(load, devices, slots, method="exact")
    device_load = placement.device_load(load)
    np.testing.assert_allclose(device_load, sum(load) / devices, rtol=1e-9)
    for row in placement.slot_expert.reshape(devices, -1):
        assert np.unique(row).size == min(row.size, len(load))
    sums = np.bincount(placement.slot_expert[0], placement.slot_share[0], len(load))
    np.testing.assert_allclose(sums, 1, rtol=1e-12)


def test_one_slot_short_of_the_theorem_a_load_exists_that_cannot_be_balanced() -> None:
    # 6 slots on 3 devices are E + N - 1 for four experts; of five equal ones, two share a device.
    assert certificate(place([3.0] * 4, 3, 6), [3.0] * 4).achieved == pytest.approx(4)
    assert best_by_enumeration(np.full(5, 3.0), 3, 2) == pytest.approx(6)
    assert lower_bound([3.0] * 5, 3, 6) == pytest.approx(6)


def test_calibrated_loads_of_every_layer_are_balanced_to_rounding() -> None:
    load = np.random.default_rng(0).lognormal(0, 0.7, (58, 256))
    placement = place(load, 128, 384, method="exact")
    np.testing.assert_allclose(placement.balancedness(load), 1, rtol=1e-9)
    routed_shared = np.concatenate([load, 8 * load.mean(axis=1, keepdims=True)], axis=1)
    placement = place(routed_shared, 128, 384, method="exact")  # E + N - 1 = 384 exactly
    np.testing.assert_allclose(placement.balancedness(routed_shared), 1, rtol=1e-9)


def test_surplus_slots_hold_the_hottest_experts_their_device_lacks_with_share_zero() -> None:
    # Two devices of four slots take 2 * 3 + 1 items, so two are padding. With the mean at 1, M = 1
    # and any window will do: the padding and expert 3 (1/8), with 7/8 of expert 0. The two slots
    # left over beside {3, 0} get the heaviest experts that are not there, 1 and 2.
    load = np.array([8.0, 4.0, 2.0, 1.0, 1.0])
    placement = place(load, 2, 8, method="exact")
    np.testing.assert_array_equal(placement.slot_expert, [[1, 2, 3, 0, 4, 0, 2, 1]])
    np.testing.assert_allclose(placement.slot_share, [[0, 0, 1, 7 / 8, 1, 1 / 8, 1, 1]])


def test_spare_slots_spread_over_experts_in_proportion_to_load() -> None:
    load = np.random.default_rng(4).lognormal(0, 0.7, 32)
    placement = place(load, 8, 128, method="exact")
    replicas = placement.replicas()[0]
    assert replicas.max() <= 8  # one a device
    assert replicas[np.argmax(load)] >= 7
    assert np.corrcoef(load, replicas)[0, 1] > 0.8


def best_by_enumeration(load: NDArray[np.float64], devices: int, per_device: int) -> float:
    """The lowest maximum device load of any placement with shares, by trying all of them.

    For one placement it is the maximum over sets of experts of their load over the number of
    devices that hold any of them (max-flow min-cut).
    """
    experts = len(load)
    sets = [sum(1 << e for e in c) for c in combinations(range(experts), per_device)]
    masks = np.array(list(product(sets, repeat=devices)))
    masks = masks[np.bitwise_or.reduce(masks, axis=1) == (1 << experts) - 1]
    worst = np.zeros(len(masks))
    for subset in range(1, 1 << experts):
        total = sum(load[e] for e in range(experts) if subset >> e & 1)
        worst = np.maximum(worst, total / ((masks & subset) > 0).sum(axis=1))
    return float(worst.min())


@pytest.mark.parametrize(
    ("experts", "devices", "per_device"), [(4, 2, 2), (5, 3, 2), (6, 3, 2), (6, 2, 3), (4, 5, 1)]
)
def test_bound_is_below_and_exact_near_the_enumerated_optimum(
    experts: int, devices: int, per_device: int
) -> None:
    rng = np.random.default_rng(experts * 100 + devices)
    slots = devices * per_device
    excess = []
    for _ in range(40):
        load = rng.lognormal(0, rng.uniform(0.1, 2.0), experts)
        best = best_by_enumeration(load, devices, per_device)
        achieved = certificate(place(load, devices, slots, method="exact"), load).achieved[0]
        assert lower_bound(load, devices, slots) <= best * (1 + 1e-12)
        assert achieved >= best * (1 - 1e-12)
        excess.append(achieved / best - 1)
    assert np.mean(excess) < 0.01
    assert np.median(excess) < 1e-12


def test_exact_meets_the_bound_on_two_slots_a_device_without_replicas() -> None:
    # Folding, heaviest with lightest, is optimal, and the bound proves it.
    load = np.random.default_rng(0).lognormal(0, 0.7, (6, 64))
    ordered = np.sort(load, axis=1)
    folded = (ordered[:, :32] + ordered[:, :31:-1]).max(axis=1)
    result = certificate(place(load, 32, 64, method="exact"), load)
    np.testing.assert_allclose(result.achieved, folded)
    np.testing.assert_array_equal(result.gap, 0)


def test_exact_meets_the_bound_on_one_slot_a_device() -> None:
    # Experts of 6, 3 and 1 on five devices: 6/2 and 3/2 tie at 3 after one surplus slot; the
    # second goes to either, and 3 remains the largest load per replica.
    result = certificate(place([6.0, 3.0, 1.0], 5, 5, method="exact"), [6.0, 3.0, 1.0])
    np.testing.assert_allclose(result.achieved, [3.0])
    np.testing.assert_array_equal(result.gap, [0.0])


def test_exact_is_no_worse_than_eplb_and_near_the_bound_when_slots_are_few() -> None:
    load = np.random.default_rng(5).lognormal(0, 0.7, (8, 64))
    for devices, slots in [(16, 64), (24, 72), (30, 90), (8, 64), (20, 80)]:
        exact = certificate(place(load, devices, slots, method="exact"), load)
        eplb = certificate(place(load, devices, slots, method="eplb"), load)
        assert exact.gap.mean() <= eplb.gap.mean() + 1e-12
        assert exact.gap.mean() < 0.03


def test_bounds_in_closed_form() -> None:
    assert lower_bound([4, 2, 1, 1], 2, 6) == 4  # enough slots: the mean
    assert lower_bound([9, 1, 1, 1], 2, 4) == 10  # 9 beside the lightest
    assert lower_bound([5, 5, 5, 1], 2, 4) == 10  # two of the three heaviest together
    assert lower_bound([8, 1, 1], 4, 4) == 4  # one surplus slot halves the heaviest
    # One surplus slot: some two of the heaviest four that stay whole share one of three devices.
    assert lower_bound([6, 6, 6, 6, 6], 3, 6) == 12


def test_gap_is_achieved_over_bound_less_one() -> None:
    load = [[9.0, 1.0, 1.0, 1.0]]
    placement = place(load, 2, 4, method="contiguous")  # {9, 1} and {1, 1}
    np.testing.assert_allclose(gap(placement, load), [0.0])
    worse = place([[5.0, 4.0, 1.0, 1.0]], 2, 4, method="contiguous")  # 9 against 6 at best
    np.testing.assert_allclose(gap(worse, [[5.0, 4.0, 1.0, 1.0]]), [0.5])
    np.testing.assert_array_equal(gap(worse, np.zeros((1, 4))), [0.0])


def test_a_bound_for_impossible_slots_is_refused() -> None:
    for devices, slots in [(2, 2), (2, 5), (0, 4)]:
        with pytest.raises(InputError, match="slots must be >= experts and a multiple"):
            lower_bound([1, 1, 1], devices, slots)
    with pytest.raises(InputError, match=r"\[E\]"):
        lower_bound(np.ones((2, 2)), 2, 2)
