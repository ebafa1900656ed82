from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topomoe.envs.cluster import moving_cost
from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import begin, charge, step, transition_cost
from topomoe.topologies.errors import InputError

PLAIN = phase_problem(num_configurations=6, epochs=20, episode_length=5, seed=3)
NAMES = tuple(f"{topology}/{placement}" for topology in ("mesh", "torus") for placement in "abc")


def moved(migration: Migration | None) -> SwitchingProblem:
    """Six configurations, which are two topologies with three placements."""
    return replace(PLAIN, names=NAMES, placements=tuple("abc"), migration=migration)


def drawn(rows: int, seed: int = 0) -> Migration:
    random = np.random.default_rng(seed)
    return Migration(random.random((rows, 3, 3)), random.random((rows, 3, 3)), 0.3)


@pytest.mark.parametrize("rows", [1, 20])
def test_every_pair_costs_in_a_step_what_the_table_of_transitions_says(rows: int) -> None:
    problem = moved(drawn(rows))
    epochs = np.arange(20)
    table = transition_cost(problem, epochs)
    for before in range(6):
        for chosen in range(6):
            outcome = charge(problem, epochs, np.full(20, before), np.full(20, chosen))
            np.testing.assert_allclose(outcome.cost, table[:, before, chosen], rtol=1e-12)
            parts = sum(outcome.components.values()) + outcome.reconfiguration + outcome.migration
            np.testing.assert_allclose(parts, outcome.cost, rtol=1e-9)


def test_a_worked_example() -> None:
    """Half an epoch of 4 s under the old placement, half of 2 s; 3 s of the old are network."""
    problem = SwitchingProblem(
        names=("mesh/a", "mesh/b"),
        placements=("a", "b"),
        cost=[[4.0, 2.0]],
        switch_cost=np.zeros((2, 2)),
        components={"dispatch": [[3.0, 1.0]], "compute": [[1.0, 1.0]]},
        migration=Migration([[0.0, 0.25], [0.0, 0.0]], [[0.0, 0.5], [0.0, 0.0]], slowdown=0.2),
    )
    _, reward, outcome = step(problem, begin(problem, 0), np.array([1]))
    assert outcome.components["dispatch"][0] == 2.0
    assert outcome.components["compute"][0] == 1.0
    assert outcome.migration[0] == pytest.approx(0.25 + 0.5 * 0.2 * 3.0)
    assert outcome.cost[0] == pytest.approx(3.55)
    assert reward[0] == pytest.approx(-3.55 / 4.0)


def test_migration_that_takes_no_time_costs_nothing() -> None:
    nothing = Migration(np.zeros((3, 3)), np.zeros((3, 3)), slowdown=9.0)
    epochs = np.arange(20)
    np.testing.assert_array_equal(
        transition_cost(moved(nothing), epochs), transition_cost(moved(None), epochs)
    )


def test_migration_that_takes_the_whole_epoch_leaves_it_to_the_old_placement() -> None:
    whole = moved(Migration(np.zeros((3, 3)), np.ones((3, 3))))
    here, there = np.zeros(20, dtype=np.int64), np.full(20, 5)  # mesh/a to torus/c
    outcome = charge(whole, np.arange(20), here, there)
    np.testing.assert_allclose(outcome.cost, PLAIN.cost[:, 3] + PLAIN.switch_cost[0, 5])


def test_rewiring_alone_moves_no_expert() -> None:
    problem = moved(Migration(1.0 - np.eye(3), 1.0 - np.eye(3)))
    for before, chosen, stalled in ((0, 3, 0.0), (4, 1, 0.0), (0, 1, 1.0), (0, 5, 1.0)):
        outcome = charge(problem, np.array([7]), np.array([before]), np.array([chosen]))
        assert outcome.migration[0] == stalled


def test_a_part_of_the_timeline_charges_what_the_whole_did() -> None:
    problem = moved(drawn(20))
    part = problem.part(5, 15)
    np.testing.assert_array_equal(
        transition_cost(part, np.arange(10)), transition_cost(problem, np.arange(5, 15))
    )


def test_what_rules_reckon_with_is_the_mean_of_what_is_charged_beyond_the_epochs() -> None:
    problem = moved(drawn(20))
    assert problem.migration is not None
    same_lag = Migration(problem.migration.stall, np.zeros((20, 3, 3)))
    problem = replace(problem, migration=same_lag, metric=np.zeros(0))
    beyond = transition_cost(problem, np.arange(20)) - problem.cost[:, None, :]
    np.testing.assert_allclose(problem.metric, beyond.mean(axis=0), atol=1e-12)


def test_the_start_is_best_with_what_keeping_it_costs() -> None:
    """Placement b is sooner by itself, but is made anew every epoch at more than it saves."""
    problem = SwitchingProblem(
        names=("mesh/a", "mesh/b"),
        placements=("a", "b"),
        cost=[[4.0, 3.0]] * 2,
        switch_cost=np.zeros((2, 2)),
        components={"dispatch": [[2.0, 1.0]] * 2, "compute": [[2.0, 2.0]] * 2},
        migration=Migration([[0.0, 0.0], [0.0, 0.9]], [[0.0, 0.0], [0.0, 1.0]], slowdown=0.2),
    )
    calibrated = problem.calibrated(problem)
    assert calibrated.metric[1, 1] == pytest.approx(0.9 + 0.2)
    assert (calibrated.start, calibrated.scale) == (0, 4.0)
    np.testing.assert_array_equal(calibrated.prior, [4.0, 3.0])
    dear = replace(
        problem, cost=problem.cost + np.array([0.2, 0.0]), components={}, metric=np.zeros(0)
    )
    again = dear.calibrated(dear)  # without its parts no network is slowed: 3.9 against 4.2
    assert (again.start, again.scale) == (1, pytest.approx(3.9))


@given(seconds=st.floats(0, 1e3), epoch=st.floats(1e-3, 1e2), share=st.floats(0.01, 0.99))
def test_every_byte_is_sent_beside_the_epoch_or_after_it(
    seconds: float, epoch: float, share: float
) -> None:
    stall, lag = moving_cost(np.array(seconds), epoch, share)
    assert share * lag * epoch + stall == pytest.approx(share * seconds)
    assert 0.0 <= lag <= 1.0
    assert stall == 0.0 or lag == 1.0


WRONG = {
    "stall of other shape": ({"stall": np.zeros((2, 3))}, "stall"),
    "stall negative": ({"stall": np.full((3, 3), -1.0)}, "stall"),
    "stall NaN": ({"stall": np.full((3, 3), np.nan)}, "stall"),
    "stall of no epoch": ({"stall": np.zeros((0, 3, 3))}, "stall"),
    "lag above 1": ({"lag": np.full((3, 3), 1.5)}, "lag"),
    "lag of other epochs": ({"lag": np.zeros((4, 3, 3))}, "one shape"),
    "slowdown negative": ({"slowdown": -0.1}, "slowdown"),
    "slowdown infinite": ({"slowdown": np.inf}, "slowdown"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_refused_by_name(case: str) -> None:
    change, named = WRONG[case]
    good = {"stall": np.zeros((3, 3)), "lag": np.zeros((3, 3)), "slowdown": 0.1}
    with pytest.raises(InputError, match=named):
        Migration(**{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 2, 2), (7, 3, 3)])
def test_migration_of_another_problem_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="migration"):
        moved(Migration(np.zeros(shape), np.zeros(shape)))
