from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.agents.baselines import BASELINES, baseline
from topomoe.agents.clairvoyant import Clairvoyant, plan
from topomoe.agents.greedy import Greedy
from topomoe.agents.hysteresis import Hysteresis, tune
from topomoe.agents.policy import Policy
from topomoe.agents.random_choice import RandomChoice
from topomoe.agents.rollout import rollout
from topomoe.agents.rotor import Rotor
from topomoe.agents.static import Fixed, never_switch, static_best
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.topologies.errors import InputError

# Those that need no placements and no statistics of the demand.
NAMES = [name for name in BASELINES if name not in ("eplb", "periodic-eplb", "rule")]
WHOLE = phase_problem(epochs=900, episode_length=30, noise=0.15, seed=1)
TRAINING = WHOLE.part(0, 600)
TRAINING = TRAINING.calibrated(TRAINING)
TEST = WHOLE.part(600, 900).calibrated(TRAINING)


def total(problem: SwitchingProblem, choices: tuple[int, ...]) -> float:
    cost, before = 0.0, problem.start
    for epoch, choice in enumerate(choices):
        cost += problem.switch_cost[before, choice] + problem.cost[epoch, choice]
        before = choice
    return cost


@given(seed=st.integers(0, 10_000), start=st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_the_clairvoyant_plan_equals_brute_force(seed: int, start: int) -> None:
    random = np.random.default_rng(seed)
    switch = random.uniform(0, 1.5, (3, 3))
    np.fill_diagonal(switch, 0.0)  # asymmetric, and the triangle inequality may fail
    problem = SwitchingProblem(("a", "b", "c"), random.uniform(0, 2, (5, 3)), switch, start=start)
    choice, cost = plan(problem)
    best = min(total(problem, every) for every in product(range(3), repeat=5))
    assert cost[0] == pytest.approx(best)
    assert total(problem, tuple(choice[0])) == pytest.approx(best)


def test_without_switching_cost_the_clairvoyant_takes_every_minimum() -> None:
    free = phase_problem(epochs=120, episode_length=30, switch=0.0)
    expected = free.cost.min(axis=1).reshape(4, 30).sum(axis=1)
    np.testing.assert_allclose(plan(free)[1], expected)


@pytest.mark.parametrize("observe", ["before", "after"])
@pytest.mark.parametrize("name", NAMES)
def test_no_policy_beats_the_clairvoyant_in_any_episode(name: str, observe: str) -> None:
    cost = rollout(baseline(name, TRAINING, TEST, observe), TEST).cost.sum(axis=1)
    optimum = plan(TEST)[1]
    assert (cost >= optimum * (1 - 1e-12)).all()
    if name == "clairvoyant":
        np.testing.assert_allclose(cost, optimum)


def test_the_clairvoyant_follows_its_plan_in_the_environment() -> None:
    env = TopologySwitchEnv(TEST)
    observation, info = env.reset(seed=5)
    policy = Clairvoyant(TEST)
    state: object = [info["epoch"]]
    cost = 0.0
    for _ in range(30):
        action, state = policy.predict(observation, state)
        observation, _, _, _, step_info = env.step(int(action))
        cost += step_info["cost"]
    assert cost == pytest.approx(plan(TEST, [info["epoch"]])[1][0])
    with pytest.raises(InputError, match="state"):
        policy.predict(observation, state)
    with pytest.raises(InputError, match="state"):
        policy.predict(observation)


def test_never_switch_never_switches_and_is_the_best_of_training() -> None:
    run = rollout(never_switch(TRAINING), TEST)
    assert run.switched.sum() == 0
    assert run.reconfiguration.sum() == 0.0
    assert (run.choice == TRAINING.cost.mean(axis=0).argmin()).all()


def test_static_best_is_the_best_of_all_fixed_choices_with_its_switch_charged() -> None:
    layout = ObservationLayout.of(TEST)
    every = [rollout(Fixed(layout, k), TEST).cost.sum() for k in range(4)]
    assert rollout(static_best(TEST), TEST).cost.sum() == pytest.approx(min(every))


def test_greedy_takes_the_cheapest_of_the_last_epoch() -> None:
    run = rollout(Greedy(ObservationLayout.of(TEST)), TEST)
    last = TEST.cost[run.epoch[:, 1:] - 1].astype(np.float32)
    np.testing.assert_array_equal(run.choice[:, 1:], last.argmin(axis=2))


def test_greedy_keeps_the_current_configuration_in_a_tie() -> None:
    flat = SwitchingProblem(("a", "b"), np.ones((5, 2)), [[0, 1], [1, 0]], start=1)
    assert rollout(Greedy(ObservationLayout.of(flat)), flat).switched.sum() == 0


def test_greedy_takes_every_minimum_when_it_observes_the_coming_epoch() -> None:
    run = rollout(Greedy(ObservationLayout.of(TEST, "after")), TEST)
    np.testing.assert_array_equal(run.choice, TEST.cost[run.epoch].argmin(axis=2))


def test_hysteresis_tuned_under_huge_switching_costs_never_switches() -> None:
    dear = phase_problem(epochs=600, episode_length=30, switch=1e4)
    assert rollout(tune(dear), dear).switched.sum() == 0


def test_hysteresis_tuned_is_no_worse_in_training_than_any_of_its_grid_or_never_switching() -> None:
    best = rollout(tune(TRAINING), TRAINING).cost.sum()
    assert best <= rollout(never_switch(TRAINING), TRAINING).cost.sum()
    layout, relative = ObservationLayout.of(TRAINING), TRAINING.switch_cost / TRAINING.scale
    for weight, horizon in ((1.0, 5.0), (0.35, 8.0), (0.5, 50.0)):
        assert (
            best <= rollout(Hysteresis(layout, relative, 30, weight, horizon), TRAINING).cost.sum()
        )


def test_hysteresis_follows_phases_that_pay() -> None:
    run = rollout(tune(TRAINING), TEST)
    assert run.switched.any()
    assert run.cost.sum() < rollout(never_switch(TRAINING), TEST).cost.sum()


def test_hysteresis_without_memory_and_cost_of_switching_is_greedy() -> None:
    layout = ObservationLayout.of(TEST)
    plain = Hysteresis(layout, np.zeros((4, 4)), 30, weight=1.0, horizon=1.0)
    np.testing.assert_array_equal(rollout(plain, TEST).choice, rollout(Greedy(layout), TEST).choice)


def test_random_choice_repeats_with_its_seed_and_rotor_turns() -> None:
    layout = ObservationLayout.of(TEST)
    first, again, other = (rollout(RandomChoice(layout, seed), TEST).choice for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    turning = rollout(Rotor(layout, period=3), TEST)
    assert (np.diff(turning.switched.nonzero()[1].reshape(10, -1), axis=1) == 3).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("random", "lazy-experts")])
def test_a_policy_alone_in_the_environment_does_what_it_does_in_a_batch(name: str) -> None:
    policy = baseline(name, TRAINING, TEST)
    batch = rollout(policy, TEST)
    env = TopologySwitchEnv(TEST)
    observation, info = env.reset(options={"episode": 2})
    state: object = [info["epoch"]] if name == "clairvoyant" else None
    for epoch in range(30):
        action, state = policy.predict(observation, state)
        assert action == batch.choice[2, epoch]
        observation, *_ = env.step(int(action))


def wrong_layout() -> Policy:
    return Greedy(ObservationLayout(5, 4))


def test_a_policy_for_another_problem_is_refused() -> None:
    with pytest.raises(InputError, match="5 configurations"):
        rollout(wrong_layout(), TEST)
    with pytest.raises(InputError, match="observation"):
        wrong_layout().predict(np.zeros((2, 3), np.float32))


def test_parameters_out_of_range_are_refused() -> None:
    layout = ObservationLayout.of(TEST)
    with pytest.raises(InputError, match="configuration"):
        Fixed(layout, 4)
    with pytest.raises(InputError, match="period"):
        Rotor(layout, 0)
    with pytest.raises(InputError, match="weight"):
        Hysteresis(layout, np.zeros((4, 4)), 30, weight=0.0)
    with pytest.raises(InputError, match="'greedy'"):
        baseline("gredy", TRAINING, TEST)
