from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.envs.layout import COST_LIMIT, ObservationLayout
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import AVERAGE_WEIGHT, begin, observe, step
from topomoe.topologies.errors import InputError

PROBLEM = phase_problem(num_configurations=3, epochs=60, episode_length=12, seed=2)


@given(actions=st.lists(st.integers(0, 2), min_size=12, max_size=12), start=st.integers(0, 48))
@settings(max_examples=40, deadline=None)
def test_a_switch_is_charged_when_and_only_when_the_configuration_changes(
    actions: list[int], start: int
) -> None:
    state = begin(PROBLEM, start)
    before = PROBLEM.start
    for offset, action in enumerate(actions):
        state, reward, outcome = step(PROBLEM, state, np.array([action]))
        switching = 0.5 if action != before else 0.0
        assert outcome.reconfiguration[0] == switching
        assert outcome.switched[0] == (action != before)
        assert outcome.cost[0] == PROBLEM.cost[start + offset, action] + switching
        assert reward[0] == -outcome.cost[0] / PROBLEM.scale
        parts = sum(part[0] for part in outcome.components.values())
        assert parts + outcome.reconfiguration[0] == pytest.approx(outcome.cost[0])
        before = action


def test_an_asymmetric_switching_cost_is_read_from_row_to_column() -> None:
    problem = SwitchingProblem(("a", "b"), np.ones((4, 2)), [[0.0, 1.0], [7.0, 0.0]])
    state = begin(problem, 0)
    state, _, there = step(problem, state, np.array([1]))
    state, _, back = step(problem, state, np.array([0]))
    assert (there.reconfiguration[0], back.reconfiguration[0]) == (1.0, 7.0)


def test_never_switching_earns_minus_one_an_epoch_on_average() -> None:
    state = begin(PROBLEM, PROBLEM.episodes())
    rewards = []
    for _ in range(PROBLEM.episode_length):
        state, reward, _ = step(PROBLEM, state, np.full(5, PROBLEM.start))
        rewards.append(reward)
    assert np.mean(rewards) == pytest.approx(-1.0)


def test_copies_never_meet() -> None:
    random = np.random.default_rng(0)
    starts = np.array([0, 7, 7, 30])
    actions = random.integers(3, size=(12, 4))
    together = begin(PROBLEM, starts)
    apart = [begin(PROBLEM, start) for start in starts]
    layout = ObservationLayout.of(PROBLEM, "after")
    for row in actions:
        together, reward, _ = step(PROBLEM, together, row)
        for copy, action in enumerate(row):
            apart[copy], alone, _ = step(PROBLEM, apart[copy], np.array([action]))
            assert alone[0] == reward[copy]
            np.testing.assert_array_equal(
                observe(PROBLEM, apart[copy], layout)[0], observe(PROBLEM, together, layout)[copy]
            )


def test_before_an_epoch_nothing_of_its_cost_is_observed() -> None:
    cost = PROBLEM.cost.copy()
    cost[10:] *= 3.0
    changed = SwitchingProblem(
        PROBLEM.names,
        cost,
        PROBLEM.switch_cost,
        features=PROBLEM.features,
        feature_names=PROBLEM.feature_names,
        episode_length=12,
        scale=PROBLEM.scale,
        prior=PROBLEM.prior,
    )
    for kind, same in (("before", True), ("after", False)):
        layout = ObservationLayout.of(PROBLEM, kind)
        states = [begin(problem, 0) for problem in (PROBLEM, changed)]
        for _ in range(10):
            states = [
                step(problem, state, np.array([1]))[0]
                for problem, state in zip((PROBLEM, changed), states, strict=True)
            ]
        seen = [
            observe(problem, state, layout)
            for problem, state in zip((PROBLEM, changed), states, strict=True)
        ]
        assert np.array_equal(*seen) is same


@pytest.mark.parametrize("kind", ["before", "after"])
@pytest.mark.parametrize("queue", [True, False])
def test_every_part_of_the_observation_is_where_the_layout_says(kind: str, queue: bool) -> None:
    layout = ObservationLayout.of(PROBLEM, kind, queue)
    state = begin(PROBLEM, 5)
    seen = observe(PROBLEM, state, layout)[0]
    relative = PROBLEM.cost / PROBLEM.scale
    assert seen.shape == (layout.size,)
    assert layout.size == 3 * 3 + (3 if kind == "after" else 0) + (3 if queue else 0) + 1
    np.testing.assert_allclose(seen[layout["last"]], PROBLEM.prior / PROBLEM.scale, rtol=1e-6)
    for action in (2, 1):
        state, _, _ = step(PROBLEM, state, np.array([action]))
    seen = observe(PROBLEM, state, layout)[0]
    assert seen[layout["current"]].tolist() == [0.0, 1.0, 0.0]
    np.testing.assert_allclose(seen[layout["last"]], relative[6], rtol=1e-6)
    w = AVERAGE_WEIGHT
    average = (1 - w) ** 2 * PROBLEM.prior / PROBLEM.scale + w * (1 - w) * relative[5]
    np.testing.assert_allclose(seen[layout["average"]], average + w * relative[6], rtol=1e-6)
    if kind == "after":
        np.testing.assert_allclose(seen[layout["coming"]], relative[7], rtol=1e-6)
        assert layout.newest == layout["coming"]
    else:
        assert layout.newest == layout["last"]
    if queue:
        np.testing.assert_array_equal(seen[layout["queue"]], PROBLEM.features[7])
    assert seen[layout["left"]] == pytest.approx(10 / 12)


def test_after_the_last_epoch_nothing_is_coming() -> None:
    layout = ObservationLayout.of(PROBLEM, "after")
    state = begin(PROBLEM, 48)
    for _ in range(12):
        state, _, _ = step(PROBLEM, state, np.array([0]))
    seen = observe(PROBLEM, state, layout)[0]
    for part in ("coming", "queue", "left"):
        assert not seen[layout[part]].any()
    with pytest.raises(InputError, match="over"):
        step(PROBLEM, state, np.array([0]))


def test_observations_stay_within_bounds_however_dear_an_epoch_is() -> None:
    problem = SwitchingProblem(("a", "b"), [[1.0, 1e9], [1.0, 1.0]], np.zeros((2, 2)))
    layout = ObservationLayout.of(problem, "after")
    low, high = layout.bounds()
    seen = observe(problem, begin(problem, 0), layout)[0]
    assert (low <= seen).all()
    assert (seen <= high).all()
    assert seen[layout["coming"]][1] == COST_LIMIT


@pytest.mark.parametrize("action", [[-1], [3], [0, 1], [0.5], [[0]]])
def test_an_action_that_is_no_configuration_is_refused(action: list[float]) -> None:
    with pytest.raises(InputError, match="action"):
        step(PROBLEM, begin(PROBLEM, 0), action)


@pytest.mark.parametrize("start", [-1, 49])
def test_an_episode_outside_the_timeline_is_refused(start: int) -> None:
    with pytest.raises(InputError, match="first epoch"):
        begin(PROBLEM, start)


def test_an_unknown_way_to_observe_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="'before'"):
        ObservationLayout.of(PROBLEM, "befor")


def test_phases_without_penalty_leave_nothing_to_gain() -> None:
    flat = phase_problem(epochs=50, penalty=0.0, noise=0.0)
    assert np.ptp(flat.cost) == 0.0
