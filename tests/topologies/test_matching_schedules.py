"""Schedules of circuits: what they send, how long they take, and what a dark circuit costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topomoe.topologies import CircuitSchedule, InputError, schedule_circuits
from topomoe.topologies.circuits import check_ports
from topomoe.topologies.matching.birkhoff import decompose, stuff
from topomoe.topologies.matching.eclipse import best_step
from topomoe.topologies.matching.rotor import rotor_cycle
from topomoe.topologies.matching.schedule import Step, run_schedule
from topomoe.topologies.matching.scheduling import SCHEDULES

RATE = 1e9


def drawn(devices: int, seed: int = 0, share: float = 1.0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    demand = np.ceil(rng.pareto(1.5, (devices, devices)) * 1e6)
    demand *= rng.random((devices, devices)) < share
    np.fill_diagonal(demand, 0)
    return demand


def busiest(demand: NDArray[Any]) -> float:
    """The largest row or column sum: what no schedule of one port a device can beat."""
    return float(max(demand.sum(axis=0).max(), demand.sum(axis=1).max()))


def schedule(demand: Any, delay: Any = 0.0, **options: Any) -> CircuitSchedule:
    if options.get("method") == "rotor":
        options.setdefault("slot", busiest(np.asarray(demand)) / RATE / 5 or 1.0)
    return schedule_circuits(demand, RATE, delay, **options)


@settings(max_examples=60, deadline=None)
@given(
    devices=st.integers(2, 8),
    degree=st.integers(1, 3),
    method=st.sampled_from(SCHEDULES),
    delay=st.sampled_from([0.0, 1e-5, 1e-2]),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    relay=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_schedule_keeps_to_the_ports_and_serves_the_demand(
    devices: int, degree: int, method: str, delay: float, share: float, relay: bool, seed: int
) -> None:
    demand = drawn(devices, seed, share)
    relay = relay and method == "rotor"
    made = schedule(demand, delay, degree=degree, method=method, relay=relay)
    for circuits in made.matchings:
        check_ports(circuits, devices, degree)
    assert not made.remaining.any()
    if relay:
        # What arrives has left and vice versa, whatever is passed on in between.
        net = made.sent.sum(axis=0) - made.sent.sum(axis=1)
        np.testing.assert_allclose(net, demand.sum(axis=0) - demand.sum(axis=1), atol=1e-3)
        assert made.sent.sum() <= 2 * demand.sum() * (1 + 1e-9)
    else:
        np.testing.assert_allclose(made.sent, demand, rtol=1e-9, atol=1e-6)
    assert made.total_time >= busiest(demand) / (degree * RATE) * (1 - 1e-9)
    assert made.completion_time == made.total_time
    assert len(made.durations) == len(made.dark) == len(made.matchings)


@settings(max_examples=60, deadline=None)
@given(
    devices=st.integers(2, 9), share=st.sampled_from([0.2, 1.0]), seed=st.integers(0, 999),
    whole=st.booleans(),
)  # fmt: skip
def test_birkhoff_takes_a_demand_apart_and_meets_the_largest_sum(
    devices: int, share: float, seed: int, whole: bool
) -> None:
    demand = drawn(devices, seed, share) * (1.0 if whole else np.pi)
    successors, weight = decompose(demand)
    assert len(weight) <= (devices - 1) ** 2 + 1
    assert np.all(weight > 0)
    total = np.zeros_like(demand)
    for successor, w in zip(successors, weight, strict=True):
        assert sorted(successor.tolist()) == list(range(devices))
        total[np.arange(devices), successor] += w
    assert np.all(total >= demand * (1 - 1e-15))
    np.testing.assert_allclose(weight.sum(), busiest(demand), rtol=0 if whole else 1e-12)
    if whole and demand.any():
        np.testing.assert_array_equal(total, stuff(demand.astype(np.int64)))


def test_birkhoff_of_a_doubly_stochastic_demand_is_exact() -> None:
    """Filled up, it gains nothing: the matchings sum to the demand itself."""
    demand = np.array([[0, 3, 4], [5, 0, 2], [2, 4, 1]]).astype(float)
    successors, weight = decompose(demand)
    total = np.zeros((3, 3))
    for successor, w in zip(successors, weight, strict=True):
        total[np.arange(3), successor] += w
    np.testing.assert_array_equal(total, demand)


@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_birkhoff_without_delay_takes_the_shortest_time_there_is(degree: int, share: float) -> None:
    demand = drawn(12, 3, share)
    made = schedule(demand, method="birkhoff", degree=degree)
    assert made.total_time == pytest.approx(busiest(demand) / (degree * RATE), rel=1e-9)
    assert made.reconfigurations == 0


@pytest.mark.parametrize("method", SCHEDULES)
def test_a_shorter_delay_is_never_slower(method: str) -> None:
    demand = drawn(10)
    unit = busiest(demand) / RATE
    times = [
        schedule(demand, share * unit, method=method).total_time for share in (0, 1e-3, 0.1, 1, 100)
    ]
    assert times == sorted(times)


def test_eclipse_is_near_birkhoff_without_delay_and_beats_it_with_one() -> None:
    demand = drawn(16)
    unit = busiest(demand) / RATE
    assert schedule(demand, 0.0).total_time <= 1.1 * unit
    for share in (1e-2, 1e-1):
        eclipse, birkhoff = (
            schedule(demand, share * unit, method=method) for method in ("eclipse", "birkhoff")
        )
        assert eclipse.total_time < birkhoff.total_time
        assert eclipse.reconfigurations < birkhoff.reconfigurations


def test_one_matching_serves_what_one_matching_can_at_a_huge_delay() -> None:
    order = np.random.default_rng(0).permutation(9)
    demand = np.zeros((9, 9))
    demand[order, np.roll(order, -1)] = np.arange(1, 10) * 1e6
    made = schedule(demand, 100.0)
    assert len(made.matchings) == made.reconfigurations == 1
    assert made.total_time == 100.0 + 9e6 / RATE


def test_eclipses_step_is_the_best_of_all_matchings_and_durations() -> None:
    """Within the 1 % that it stops at; three devices have two perfect matchings."""
    busy = np.array([[0.0, 3.0, 5.0], [4.0, 0.0, 1.0], [2.0, 7.0, 0.0]])
    for delay in (0.01, 1.0, 50.0):
        each = [np.array([3.0, 1.0, 2.0]), np.array([5.0, 4.0, 7.0])]
        each += [np.array([busy[0, 1], busy[1, 0]]), np.array([busy[0, 2], busy[2, 0]])]
        each += [np.array([busy[1, 2], busy[2, 1]])]
        best = max(np.minimum(e, t).sum() / (t + delay) for e in each for t in busy[busy > 0])
        circuits, duration = best_step(busy, delay, degree=1)
        gain = np.minimum(busy[tuple(circuits.T)], duration).sum() / (duration + delay)
        assert best / 1.01 <= gain <= best * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_eclipse_sends_its_share_of_what_a_window_allows(seed: int) -> None:
    """At least 1 - 1/e of the most that any schedule could, here bounded by ports and demand."""
    demand = drawn(12, seed)
    window = 0.5 * busiest(demand) / RATE
    delay = window / 100
    made = schedule(demand, delay, window=window)
    assert made.total_time <= window * (1 + 1e-12)
    np.testing.assert_allclose(made.sent + made.remaining, demand, rtol=1e-9)
    most = min(np.minimum(demand.sum(axis=k), window * RATE).sum() for k in (0, 1))
    assert made.sent.sum() >= (1 - 1 / np.e) * most


@pytest.mark.parametrize("devices", [2, 5, 8])
@pytest.mark.parametrize("degree", [1, 2, 3, 9])
def test_a_rotor_cycle_lights_every_pair_exactly_once(devices: int, degree: int) -> None:
    cycle = rotor_cycle(devices, degree)
    assert len(cycle) == -(-(devices - 1) // degree)
    for slot in cycle:
        check_ports(slot, devices, degree)
    pairs = np.concatenate(cycle)
    assert len(pairs) == devices * (devices - 1) == len(np.unique(pairs, axis=0))


def test_a_rotor_serves_uniform_demand_in_whole_cycles() -> None:
    demand = np.full((6, 6), 3e6)
    made = schedule(demand, 1e-3, method="rotor", slot=1e-3)  # 1 MB a slot, so three cycles
    assert len(made.matchings) == 15
    assert made.total_time == pytest.approx(15 * 2e-3)
    assert made.duty_cycle == pytest.approx(0.5)


def test_a_rotor_with_a_port_for_every_peer_never_goes_dark_again() -> None:
    made = schedule(drawn(5), 1e-3, method="rotor", degree=4, slot=1e-5)
    assert made.reconfigurations == 1
    assert schedule(
        drawn(5), 1e-3, method="rotor", degree=4, slot=1e-5, charge_first=False
    ).total_time == pytest.approx(drawn(5).max() / RATE)


def test_relaying_spreads_one_heavy_pair_over_all_devices() -> None:
    """Directly it has one slot in N-1; with half of each relayed byte's hops, half of them."""
    demand = np.zeros((16, 16))
    demand[0, 1] = 300e6
    direct, relayed = (
        schedule(demand, method="rotor", slot=1e-3, relay=relay) for relay in (False, True)
    )
    assert relayed.total_time < direct.total_time / 5
    assert relayed.sent.sum() <= 2 * 300e6


def test_circuits_of_two_matchings_in_a_row_stay_lit_while_others_change() -> None:
    """0->1 sends 2 MB of its 8 in the first, 5 while 2->3 becomes 2->0, and the last beside it."""
    demand = np.zeros((4, 4))
    demand[0, 1], demand[2, 3], demand[2, 0] = 8e6, 2e6, 1e6
    first, second = np.array([[0, 1], [2, 3]]), np.array([[2, 0], [0, 1]])

    def steps(remaining: NDArray[np.float64]) -> Iterator[Step]:
        yield first, 2e-3
        yield second, 9e-3

    made = run_schedule("given", demand, steps, RATE, delay=5e-3, charge_first=False)
    np.testing.assert_allclose(made.durations, [2e-3, 1e-3])
    np.testing.assert_allclose(made.dark, [0.0, 5e-3])
    np.testing.assert_allclose(made.sent, demand)


def test_between_equal_matchings_nothing_goes_dark() -> None:
    demand = np.zeros((3, 3))
    demand[0, 1], demand[1, 2] = 3e6, 3e6
    circuits = np.array([[1, 2], [0, 1]])

    def steps(remaining: NDArray[np.float64]) -> Iterator[Step]:
        for order in (circuits, circuits[::-1], circuits[:1]):
            yield order, 1e-3

    made = run_schedule("given", demand, steps, RATE, delay=1.0)
    np.testing.assert_array_equal(made.dark, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(made.sent[[0, 1], [1, 2]], [2e6, 3e6])


@pytest.mark.parametrize("method", SCHEDULES)
def test_with_a_base_neither_side_alone_is_faster(method: str) -> None:
    demand = drawn(12)
    unit = busiest(demand) / RATE
    for share in (0.0, 0.05, 0.5, 20.0):
        both = schedule(demand, share * unit, method=method, base_bandwidth=RATE / 4)
        assert both.completion_time <= 4 * unit * (1 + 1e-9)
        alone = schedule(demand, share * unit, method=method)
        assert both.completion_time <= alone.completion_time * (1 + 1e-9)
        np.testing.assert_allclose(both.sent + both.remaining, demand, rtol=1e-9)
    assert len(both.matchings) == 0
    assert both.base_time == pytest.approx(4 * unit)


def test_what_a_window_leaves_without_a_base_never_arrives() -> None:
    made = schedule(drawn(6), 1e-3, window="2ms")
    assert made.total_time <= 2e-3
    assert made.completion_time == np.inf


def test_the_first_configuration_is_charged_unless_said() -> None:
    demand = [[0, 1e6], [1e6, 0]]
    assert schedule(demand, "25ms").total_time == pytest.approx(26e-3)
    assert schedule(demand, "25ms", charge_first=False).total_time == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "eclipsed"}, "unknown schedule method 'eclipsed'; did you mean 'eclipse'"),
        ({"demand": np.ones((2, 3))}, r"demand must be square \[N, N\]"),
        ({"demand": [[0, -1], [1, 0]]}, "demand must be finite and >= 0, device 0 to 1 has -1"),
        ({"demand": [[0, np.inf], [1, 0]]}, "demand must be finite and >= 0, device 0 to 1"),
        ({"demand": np.full((4, 4), 1e300)}, r"demand must be <= 1e\+24 bytes a pair"),
        ({"degree": 0}, "degree must be >= 1, got 0"),
        ({"bandwidth": 0}, "bandwidth must be finite and > 0"),
        ({"delay": -1.0}, "delay must be finite and >= 0"),
        ({"delay": "25"}, "delay must have a unit"),
        ({"base_bandwidth": -1.0}, "base_bandwidth must be finite and > 0"),
        ({"slot": 1.0}, "slot and relay are options of rotor, got method=eclipse"),
        ({"method": "birkhoff", "relay": True}, "options of rotor, got method=birkhoff"),
        ({"method": "rotor"}, "rotor: slot must be > 0"),
        ({"method": "rotor", "slot": 1e-12, "demand": [[0, 1e9], [0, 0]]}, "needs 1e\\+12"),
    ],
)
def test_bad_schedules_are_named_in_one_line(change: dict[str, Any], message: str) -> None:
    good = {"demand": np.ones((4, 4)), "bandwidth": RATE, "delay": 0.0}
    with pytest.raises(InputError, match=message) as caught:
        schedule_circuits(**{**good, **change})
    assert "\n" not in str(caught.value)
