"""What rewiring costs: the presets, which circuits go dark, and when nothing does."""

from __future__ import annotations

import numpy as np
import pytest

from topomoe.topologies import InputError, Topology, make
from topomoe.topologies.reconfiguration import (
    DELAYS,
    ReconfigurationDelay,
    changed_circuits,
    delay_preset,
    switch_cost,
)

MEMS = DELAYS["mems"]
NAMES = ("mesh", "torus", "torus-twist-2", "rows", "columns", "expander")


def wiring(circuits: object, grid: tuple[int, int] = (4, 4), **options: object) -> Topology:
    return make("optical", grid, 1e9, 0.0, circuits=circuits, **options)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("plzt", 10e-9),
        ("siph", 7e-6),
        ("rotor", 10e-6),
        ("mems", 25e-3),
        ("mems-control", 69e-3),
        ("nic-bring-up", 5.739),
    ],
)
def test_presets_go_from_nanoseconds_to_seconds(name: str, seconds: float) -> None:
    delay = delay_preset(name)
    assert delay.total == pytest.approx(seconds, rel=1e-12)
    assert delay.total == delay.control + delay.settle + delay.bring_up
    assert delay_preset(delay) is delay
    assert list(DELAYS) == sorted(DELAYS, key=lambda n: DELAYS[n].total)


def test_an_unknown_delay_is_refused() -> None:
    with pytest.raises(
        InputError, match="unknown reconfiguration delay 'mem'; did you mean 'mems'"
    ):
        delay_preset("mem")


def test_circuits_that_both_wirings_hold_stay_lit() -> None:
    """A torus of 4x4 is a mesh and 8 wraps, of two circuits each."""
    changed = changed_circuits([wiring("mesh"), wiring("torus")])
    np.testing.assert_array_equal(changed, [[0, 0], [16, 0]])


def test_changed_circuits_are_those_of_a_plain_restatement() -> None:
    wirings = [wiring(name) for name in NAMES]
    held = [set(map(tuple, w.parameters["circuits"].tolist())) for w in wirings]
    wanted = [[len(a - b) for b in held] for a in held]
    np.testing.assert_array_equal(changed_circuits(wirings), wanted)


def test_one_of_two_parallel_circuits_may_go_dark() -> None:
    ring = [(a, (a + 1) % 4) for a in range(4)]
    double, single = (wiring([*ring, *more], (2, 2)) for more in ([(0, 1)], []))
    np.testing.assert_array_equal(changed_circuits([double, single]), [[0, 1], [0, 0]])
    np.testing.assert_array_equal(switch_cost([double, single], MEMS), [[0, 0.025], [0.025, 0]])


def test_the_order_of_circuits_changes_nothing() -> None:
    first = wiring("torus")
    shuffled = np.random.default_rng(0).permutation(first.parameters["circuits"])
    assert not changed_circuits([first, wiring(shuffled)]).any()


@pytest.mark.parametrize("delay", DELAYS.values(), ids=DELAYS)
def test_switching_is_symmetric_and_costs_the_delay_between_different_wirings(
    delay: ReconfigurationDelay,
) -> None:
    cost = switch_cost([wiring(name) for name in NAMES], delay)
    np.testing.assert_array_equal(cost, cost.T)
    np.testing.assert_array_equal(cost, delay.total * ~np.eye(len(NAMES), dtype=bool))


def test_identical_wirings_cost_nothing() -> None:
    """A twist by all four rows is none, and a wiring built twice is the same."""
    same = [wiring("torus"), wiring("torus"), wiring("torus-twist-4")]
    assert not switch_cost(same, DELAYS["nic-bring-up"]).any()
    seeds = [wiring("expander", seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(
        switch_cost(seeds, MEMS) > 0,
        [[False, False, True], [False, False, True], [True, True, False]],
    )


def test_a_topology_without_circuits_is_refused() -> None:
    with pytest.raises(InputError, match="torus is not a wiring of an optical fabric"):
        changed_circuits([wiring("mesh"), make("torus", (4, 4))])
