from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.agents import (
    ema_mpc,
    forecast,
    guarded,
    hysteresis,
    lazy_experts,
    threshold_rule,
    work_function,
)
from topomoe.agents.baselines import BASELINES, HINDSIGHT, ONLINE, ONLINE_BLIND, baseline
from topomoe.agents.clairvoyant import free_placement_bound, plan
from topomoe.agents.episodes import charged, observations
from topomoe.agents.greedy import Greedy
from topomoe.agents.guarded import Guarded, SwitchLimit
from topomoe.agents.hysteresis import Hysteresis
from topomoe.agents.lazy_experts import LazyExperts
from topomoe.agents.lookahead import lookahead
from topomoe.agents.policy import Policy
from topomoe.agents.random_choice import RandomChoice
from topomoe.agents.ridge import fit, held_out
from topomoe.agents.rollout import rollout
from topomoe.agents.static import Fixed, fixed_totals, never_switch, static_best
from topomoe.agents.threshold_rule import classify
from topomoe.agents.value_rule import SwitchPrice, follow
from topomoe.agents.work_function import WorkFunction
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import begin, charge, observe, step
from topomoe.topologies.errors import InputError

PLACEMENTS = ("mix", "annealed", "recent")
DEMAND = ("concentration", "locality")


def codesign(
    seed: int = 0,
    topologies: tuple[str, ...] = ("mesh", "torus"),
    epochs: int = 400,
    length: int = 20,
    every_epoch: bool = False,
    symmetric: bool = False,
    **phases: float,
) -> SwitchingProblem:
    """Return phases over topologies x placements, with stall, lag and slowdown."""
    random = np.random.default_rng(seed)
    places = len(PLACEMENTS)
    count = places * len(topologies)
    base = phase_problem(count, epochs, length, **{"noise": 0.1, "seed": seed, **phases})
    topology = np.arange(count) // places
    rewiring = random.uniform(0.1, 0.6, (count, count)) * (topology[:, None] != topology)
    if symmetric:
        rewiring = (rewiring + rewiring.T) / 2
    shape = (epochs if every_epoch else 1, places, places)
    moves = 1.0 - np.eye(places)
    if every_epoch:
        moves[2, 2] = 0.3  # the placement recent is made anew
    migration = Migration(
        random.uniform(0, 0.4, shape) * moves, random.uniform(0, 1, shape) * moves, 0.25
    )
    return SwitchingProblem(
        names=tuple(f"{t}/{p}" for t in topologies for p in PLACEMENTS),
        cost=base.cost,
        switch_cost=rewiring,
        components=base.components,
        features=base.features,
        feature_names=base.feature_names,
        episode_length=length,
        placements=PLACEMENTS,
        migration=migration,
        demand=random.uniform(0, 1, (epochs, 2)).astype(np.float32),
        demand_names=DEMAND,
    )


WHOLE = codesign(seed=3, epochs=700)
TRAINING = WHOLE.part(0, 400)
TRAINING = TRAINING.calibrated(TRAINING)
TEST = WHOLE.part(400, 700).calibrated(TRAINING)


def random_problem(
    seed: int, count: int = 3, epochs: int = 40, **given: object
) -> SwitchingProblem:
    """Return costs without any order, and a symmetric metric that keeps the triangle inequality."""
    random = np.random.default_rng(seed)
    where = random.uniform(0, 2, (count, 2))
    metric = np.abs(where[:, None] - where).sum(axis=2)
    names = tuple("abcdefgh"[:count])
    cost = random.uniform(0, 2, (epochs, count)) * (random.random((epochs, count)) < 0.6)
    return SwitchingProblem(names, cost + 1e-3, metric, **given)  # type: ignore[arg-type]


# Bounds


@given(seed=st.integers(0, 10_000), every_epoch=st.booleans())
@settings(max_examples=10, deadline=None)
def test_the_plan_with_migration_and_lag_equals_brute_force(seed: int, every_epoch: bool) -> None:
    problem = codesign(seed, ("mesh",), epochs=8, length=4, every_epoch=every_epoch, phase=2.0)
    choice, cost = plan(problem)
    every = np.array(list(product(range(3), repeat=4)))
    for episode, first in enumerate(problem.episodes()):
        state, total = begin(problem, np.full(len(every), first)), np.zeros(len(every))
        for epoch in range(4):
            state, _, outcome = step(problem, state, every[:, epoch])
            total += outcome.cost
        assert cost[episode] == pytest.approx(total.min())
    np.testing.assert_allclose(charged(problem, choice).sum(axis=1), cost)


def test_a_plan_in_parts_is_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plan(TEST)
    monkeypatch.setattr("topomoe.agents.clairvoyant.MOST_ENTRIES", 2 * 36)
    for one, other in zip(plan(TEST), whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_bound_where_placements_move_freely_is_the_sum_over_each_episode() -> None:
    assert free_placement_bound(TEST) is None
    bounded = replace(TEST, bound=TEST.cost.min(axis=1))
    found = free_placement_bound(bounded)
    assert found is not None
    np.testing.assert_allclose(found, bounded.bound.reshape(-1, 20).sum(axis=1))
    assert (found <= plan(bounded)[1]).all()
    one = free_placement_bound(bounded, [7])
    assert one is not None
    assert one[0] == pytest.approx(bounded.bound[7:27].sum())
    with pytest.raises(InputError, match="first epoch"):
        free_placement_bound(bounded, [290])


@pytest.mark.parametrize("every_epoch", [False, True])
def test_static_best_counts_the_move_and_what_keeping_a_placement_costs(every_epoch: bool) -> None:
    problem = codesign(5, every_epoch=every_epoch)
    layout = ObservationLayout.of(problem)
    every = [rollout(Fixed(layout, k), problem).cost.sum() for k in range(6)]
    np.testing.assert_allclose(fixed_totals(problem), every)
    assert rollout(static_best(problem), problem).cost.sum() == pytest.approx(min(every))


@given(seed=st.integers(0, 10_000), after=st.booleans())
@settings(max_examples=6, deadline=None)
def test_no_policy_beats_the_clairvoyant_when_experts_migrate(seed: int, after: bool) -> None:
    whole = codesign(seed, epochs=160, every_epoch=seed % 2 == 0, phase=6.0)
    training = whole.part(0, 80)
    training = training.calibrated(training)
    test = whole.part(80, 160).calibrated(training)
    optimum = plan(test)[1]
    for name in BASELINES:
        policy = baseline(name, training, test, "after" if after else "before", seed=seed)
        assert (rollout(policy, test).cost.sum(axis=1) >= optimum * (1 - 1e-9)).all(), name


# All at once, and one by one


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_gives_the_same_actions(name: str) -> None:
    one, other = (rollout(baseline(name, TRAINING, TEST, seed=4), TEST).choice for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["random", "lazy-experts"])
def test_another_seed_gives_other_draws(name: str) -> None:
    one, other = (rollout(baseline(name, TRAINING, TEST, seed=s), TEST).choice for s in (4, 5))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", [name for name in BASELINES if name not in HINDSIGHT])
def test_an_episode_after_another_is_played_like_the_first(name: str) -> None:
    """Without what the first left behind; the draws of random policies do go on."""
    policy = baseline(name, TRAINING, TEST)
    state, memory = begin(TEST, [0]), None
    for t in range(40):
        if t == 20:
            state = begin(TEST, [40])
        seen = observe(TEST, state, policy.layout)
        action, memory = policy.predict(seen, memory, np.array([t in (0, 20)]))
        if name not in ("random", "lazy-experts") and t >= 20:
            assert action[0] == rollout_of(name)[2, t - 20]
        state, _, _ = step(TEST, state, action)


CHOICES: dict[str, np.ndarray] = {}


def rollout_of(name: str) -> np.ndarray:
    if name not in CHOICES:
        CHOICES[name] = rollout(baseline(name, TRAINING, TEST), TEST).choice
    return CHOICES[name]


def test_observations_of_whole_episodes_are_those_of_the_environment() -> None:
    layout = ObservationLayout.of(TEST, "after")
    seen, state = observations(TEST, layout), begin(TEST, TEST.episodes())
    for epoch in range(20):
        np.testing.assert_array_equal(seen[:, epoch], observe(TEST, state, layout))
        state, _, _ = step(TEST, state, np.full(len(seen), TEST.start))


def test_choices_are_charged_as_the_environment_charges_them() -> None:
    run = rollout(RandomChoice(ObservationLayout.of(TEST), 1), TEST)
    np.testing.assert_allclose(charged(TEST, run.choice), run.cost, rtol=1e-12)


@pytest.mark.parametrize("name", ["hysteresis", "ema-mpc", "forecast"])
@pytest.mark.parametrize("observe", ["before", "after"])
def test_rules_tuned_on_arrays_do_in_the_environment_what_they_did_there(
    name: str, observe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def remember(*given: object) -> np.ndarray:
        tried.append(follow(*given))  # type: ignore[arg-type]
        return tried[-1]

    monkeypatch.setattr("topomoe.agents.value_rule.follow", remember)
    # One set of plans, and no folds: the forecasts tried are those of the policy itself.
    monkeypatch.setattr(forecast, "held_out", lambda x, y, g, gap: (fit(x, y, [1e-3])[0](x), 1e-3))
    policy = baseline(name, TRAINING, TEST, observe, queue=name != "forecast")
    costs = [charged(TRAINING, choice).sum() for choice in tried]
    best = tried[int(np.argmin(costs))]
    assert (rollout(policy, TRAINING).choice == best).mean() > 0.999
    assert len(costs) > 20


# The rules


@pytest.mark.parametrize("name", ["hysteresis", "ema-mpc", "forecast", "guarded"])
@pytest.mark.parametrize("problem", ["dear", "flat"])
def test_tuned_rules_never_switch_where_nothing_is_to_be_gained(name: str, problem: str) -> None:
    phases = {"switch": 1e4} if problem == "dear" else {"penalty": 0.0, "noise": 0.0}
    whole = phase_problem(epochs=900, episode_length=30, **phases)  # type: ignore[arg-type]
    training = whole.part(0, 600)
    test = whole.part(600, 900).calibrated(training)
    assert rollout(baseline(name, training, test), test).switched.sum() == 0


@pytest.mark.parametrize("name", ["work-function", "lazy-experts"])
def test_rules_that_must_explore_stay_near_never_switching_where_switching_is_dear(
    name: str,
) -> None:
    whole = phase_problem(epochs=900, episode_length=30, switch=50.0)
    training = whole.part(0, 600)
    test = whole.part(600, 900).calibrated(training)
    never = rollout(never_switch(training), test).cost.sum()
    assert rollout(baseline(name, training, test), test).cost.sum() < 1.5 * never


def perfect(epochs: int = 900) -> SwitchingProblem:
    """Return a problem whose queue features are the coming costs themselves."""
    base = phase_problem(4, epochs, 30, phase=6.0, noise=0.1, seed=8)
    return replace(base, features=base.cost.astype(np.float32), feature_names=base.names)


def test_with_queue_features_that_tell_all_the_forecast_beats_what_does_not_know_them() -> None:
    whole = perfect()
    training = whole.part(0, 600)
    training = training.calibrated(training)
    test = whole.part(600, 900).calibrated(training)
    cost = {name: rollout(baseline(name, training, test), test).cost.sum() for name in ONLINE_FREE}
    optimum = plan(test)[1].sum()
    best_blind = min(cost[name] for name in cost if name in ONLINE_BLIND)
    assert cost["forecast"] < best_blind
    assert cost["forecast"] - optimum < 0.5 * (best_blind - optimum)
    without = rollout(baseline("forecast", training, test, queue=False), test).cost.sum()
    assert without > cost["forecast"]


ONLINE_FREE = tuple(name for name in ONLINE if name not in ("eplb", "periodic-eplb", "rule"))


def test_a_forecast_without_queue_features_makes_do_with_the_past() -> None:
    assert forecast.tune(TRAINING, queue=False).inputs == forecast.Inputs(queue=False)
    assert forecast.tune(TRAINING).inputs.queue


def test_ridge_finds_a_linear_map_and_shrinks_with_its_penalty() -> None:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((200, 3)) * [1.0, 10.0, 0.1]
    inputs = np.column_stack([inputs, np.ones(200)])  # a constant says nothing and does no harm
    weight = np.array([[1.0, 0.0], [0.2, -1.0], [3.0, 0.0], [0.0, 0.0]])
    targets = inputs @ weight + [4.0, -2.0]
    exact, strong = fit(inputs, targets, [1e-12, 1e12])
    np.testing.assert_allclose(exact(inputs), targets, atol=1e-8)
    np.testing.assert_allclose(strong(inputs), np.tile(targets.mean(axis=0), (200, 1)), atol=1e-6)
    # The normal equations of the penalised problem, in standard units.
    standard = (inputs[:, :3] - inputs[:, :3].mean(axis=0)) / inputs[:, :3].std(axis=0)
    left = standard.T @ standard / 200 + 0.3 * np.eye(3)
    expected = np.linalg.solve(left, standard.T @ (targets - targets.mean(axis=0)) / 200)
    found = fit(inputs, targets, [0.3])[0].weight[:3] * inputs[:, :3].std(axis=0)[:, None]
    np.testing.assert_allclose(found, expected)


def test_what_is_held_out_is_not_learned_by_heart() -> None:
    random = np.random.default_rng(1)
    inputs, targets = random.standard_normal((100, 60)), random.standard_normal((100, 2))
    guess, penalty = held_out(inputs, targets, np.array([0, 1]), gap=2)
    assert ((guess - targets) ** 2).mean() > 0.7
    assert (penalty == 1.0).all()
    clear = inputs[:, :2] * 2.0
    guess, penalty = held_out(inputs, clear, np.array([0, 1]), gap=2)
    assert ((guess - clear) ** 2).mean() < 0.05


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_looking_ahead_equals_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    stage, price = random.uniform(0, 1, (2, 4, 3)), random.uniform(0, 0.7, (3, 3))
    np.fill_diagonal(price, 0.0)
    found = lookahead(stage, price)
    for row, begun in product(range(2), range(3)):
        totals = []
        for rest in product(range(3), repeat=3):
            way = (begun, *rest)
            total = sum(stage[row, g, k] for g, k in enumerate(way))
            totals.append(total + sum(price[a, b] for a, b in pairwise(way)))
        assert found[row, begun] == pytest.approx(min(totals))


def test_a_plan_of_one_epoch_without_memory_and_prices_is_greedy() -> None:
    layout = ObservationLayout.of(TEST)
    free = SwitchPrice.plain(np.zeros((6, 6)))
    prior = TEST.prior / TEST.scale
    rule = ema_mpc.EmaMpc(layout, free, prior, 20, weight=1.0, horizon=1)
    np.testing.assert_array_equal(rollout(rule, TEST).choice, rollout(Greedy(layout), TEST).choice)


def test_a_lasting_plan_without_later_switches_is_hysteresis() -> None:
    layout, dear = ObservationLayout.of(TEST), SwitchPrice.plain(3.0 * (1 - np.eye(6)))
    prior = TEST.prior / TEST.scale
    planned = ema_mpc.EmaMpc(layout, dear, prior, 20, weight=0.3, horizon=6, persistence=1.0)
    rule = Hysteresis(layout, dear, 20, weight=0.3, horizon=6.0)
    np.testing.assert_array_equal(rollout(planned, TEST).choice, rollout(rule, TEST).choice)


def test_a_switch_whose_first_epoch_is_served_by_the_old_placement_has_one_epoch_less_to_pay() -> (
    None
):
    cost = np.tile([1.0, 0.5], (6, 1))
    problem = SwitchingProblem(
        ("t/a", "t/b"),
        cost,
        np.zeros((2, 2)),
        placements=("a", "b"),
        migration=Migration([[0.0, 0.8], [0.8, 0.0]], [[0.0, 1.0], [1.0, 0.0]]),
    )
    switch, layout = SwitchPrice.of(problem), ObservationLayout.of(problem)
    for horizon, switches in ((2.0, 0), (3.0, 1)):
        rule = Hysteresis(layout, switch, 6, weight=1.0, horizon=horizon)
        assert rollout(rule, problem).switched.sum() == switches


@given(seed=st.integers(0, 100_000), count=st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_the_work_function_is_2k_minus_1_competitive(seed: int, count: int) -> None:
    problem = random_problem(seed, count)
    rule = work_function.tune(problem, "after")
    problem = problem.calibrated(problem)
    ratio = 2 * count - 1
    constant = ratio * problem.switch_cost.max()
    cost = rollout(rule, problem).cost.sum()
    assert cost <= ratio * plan(problem)[1].sum() + constant


def cruel(rule: Policy, count: int, epochs: int, hit: float) -> SwitchingProblem:
    """Return unit distances and costs that always fall on where a deterministic rule is."""
    layout, current, memory = rule.layout, 0, None
    cost = np.zeros((epochs, count))
    for epoch in range(epochs):
        cost[epoch, current] = hit
        seen = np.zeros(layout.size, np.float32)
        seen[layout["current"]] = np.eye(count)[current]
        seen[layout["coming"]] = cost[epoch]
        action, memory = rule.predict(seen, memory)
        current = int(action)
    return SwitchingProblem(tuple("abcdefgh"[:count]), cost, 1.0 - np.eye(count), scale=1.0)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("hit", [0.1, 0.4, 1.0])
def test_even_costs_that_follow_it_keep_the_work_function_within_its_bound(
    count: int, hit: float
) -> None:
    layout, ratio = ObservationLayout(count, 0, "after"), 2 * count - 1
    switch = SwitchPrice.plain(1.0 - np.eye(count))

    def excess_of(rule: Policy) -> float:
        problem = cruel(rule, count, 400, hit)
        return float(rollout(rule, problem).cost.sum() - ratio * (plan(problem)[1].sum() + 1.0))

    assert excess_of(WorkFunction(layout, switch)) <= 1e-6
    if hit == 0.1:
        assert excess_of(Greedy(layout)) > 0  # which the bound does tell apart


def test_the_work_function_knows_what_the_best_way_to_each_configuration_costs() -> None:
    problem = random_problem(1, 4, epochs=12, episode_length=12)
    rule = WorkFunction(ObservationLayout.of(problem, "after"), SwitchPrice.of(problem))
    state, memory = begin(problem, [0]), None
    for epoch in range(12):
        action, memory = rule.predict(observe(problem, state, rule.layout), memory)
        shorter = problem.part(0, epoch + 1)
        assert memory.min() * problem.scale == pytest.approx(plan(shorter)[1][0], rel=1e-5)
        state, _, _ = step(problem, state, action)


def test_ties_of_the_work_function_go_to_the_lowest() -> None:
    """Two equal ways: stay on what the work function has left, or go where it is served."""
    problem = SwitchingProblem(("a", "b"), [[3.0, 0.0]] * 2, [[0.0, 1.0], [1.0, 0.0]])
    rule = WorkFunction(ObservationLayout.of(problem, "after"), SwitchPrice.of(problem))
    # w = (2, 1): staying scores 2 + 0, moving 1 + 1.
    assert rollout(rule, problem).choice[0, 0] == 1


def test_a_metric_that_is_not_symmetric_is_made_so() -> None:
    problem = SwitchingProblem(("a", "b"), np.ones((4, 2)), [[0.0, 3.0], [1.0, 0.0]])
    rule = WorkFunction(ObservationLayout.of(problem), SwitchPrice.of(problem))
    np.testing.assert_array_equal(rule.metric, [[0.0, 2.0], [2.0, 0.0]])


def test_lazy_experts_keep_within_their_regret_of_every_configuration() -> None:
    random = np.random.default_rng(0)
    count, epochs, rate, first, d = 4, 300, 0.05, 0.5, 0.5
    cost = 1.0 + random.uniform(0, 0.5, (epochs * 40, count)) * [1.0, 0.9, 0.5, 1.0]
    problem = SwitchingProblem(
        tuple("abcd"), cost, d * (1 - np.eye(count)), episode_length=epochs, scale=1.0
    )
    rule = LazyExperts(ObservationLayout.of(problem), rate=rate, first=first)
    run = rollout(rule, problem)
    for k in range(count):
        prior = first if k == 0 else (1 - first) / (count - 1)
        bound = -np.log(prior) / rate + rate * epochs * 0.5 * (0.5 / 8 + d) + (1 - first) * d
        regret = run.cost.sum(axis=1) - problem.cost[:, k].reshape(40, epochs).sum(axis=1)
        assert regret.mean() <= bound
    assert (run.choice[:, -1] == 2).mean() > 0.5  # and it does learn which is best


def test_lazy_experts_come_back_to_what_was_bad_for_long() -> None:
    cost = np.array([[0.0, 1e3], [1e3, 0.0]]).repeat(60, axis=0)
    problem = SwitchingProblem(("a", "b"), cost, np.zeros((2, 2)), scale=1.0)
    run = rollout(LazyExperts(ObservationLayout.of(problem), rate=20.0), problem)
    assert (run.choice[0, 2:61] == 0).all()
    assert run.choice[0, -1] == 0  # as much was lost by either
    longer = SwitchingProblem(("a", "b"), cost[:59:-1], np.zeros((2, 2)), scale=1.0)
    assert rollout(LazyExperts(ObservationLayout.of(longer), rate=20.0), longer).choice[0, -1] == 1


def test_lazy_experts_are_drawn_by_their_probabilities_and_move_no_more_than_these_change() -> None:
    problem = replace(random_problem(2, 3, epochs=6), episode_length=6)
    copies = 4000
    rule = LazyExperts(ObservationLayout.of(problem), rate=1.0, share=0.1, first=0.6, seed=3)
    state, memory, before = begin(problem, np.zeros(copies, np.int64)), None, np.eye(3)[0]
    for epoch in range(6):
        seen = observe(problem, state, rule.layout)
        action, memory = rule.predict(seen, memory, np.full(copies, epoch == 0))
        law = np.exp(memory.log_probability[0])
        found = np.bincount(action, minlength=3) / copies
        np.testing.assert_allclose(found, law, atol=0.04)
        moved = (action != state.configuration).mean()
        assert moved == pytest.approx(np.maximum(law - before, 0).sum(), abs=0.03)
        before = law
        state, _, _ = step(problem, state, action)


@given(
    seed=st.integers(0, 100_000),
    eps=st.sampled_from([0.0, 0.05, 0.3]),
    allowance=st.sampled_from([0.0, 0.7, 3.0]),
    every_epoch=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_guarded_keeps_its_inequality_whatever_it_follows(
    seed: int, eps: float, allowance: float, every_epoch: bool
) -> None:
    problem = codesign(seed, epochs=120, length=30, every_epoch=every_epoch, phase=3.0, penalty=3.0)
    problem = problem.calibrated(problem)
    inner = RandomChoice(ObservationLayout.of(problem), seed)
    run = rollout(Guarded(inner, SwitchLimit.of(problem), eps, allowance), problem)
    home = problem.start
    never = charged(problem, np.full_like(run.choice, home))
    debt = np.cumsum(run.cost - (1 + eps) * never, axis=1) / problem.scale
    assert (debt <= allowance + excess(problem, eps) + excess(problem, eps, home) + 1e-5).all()


def excess(problem: SwitchingProblem, eps: float, only: int | None = None) -> float:
    """Return X or, for the way home alone, Y of Guarded's inequality, by trying everything."""
    every, migration, worst = np.arange(problem.num_configurations), problem.migration, 0.0
    assert migration is not None
    for epoch, chosen in product(range(problem.num_epochs), every if only is None else [only]):
        when = np.full_like(every, epoch)
        outcome = charge(problem, when, every, np.full_like(every, chosen))
        stall = migration.stall[migration.row(when), problem.placement_of(every)]
        waiting = stall[:, int(problem.placement_of(chosen))] + outcome.reconfiguration
        home = problem.cost[epoch, problem.start]
        worst = max(worst, float((outcome.cost - waiting - (1 + eps) * home).max()))
    return worst / problem.scale


def test_a_guard_that_can_afford_everything_changes_nothing_and_one_that_can_nothing_stays() -> (
    None
):
    inner = RandomChoice(ObservationLayout.of(TEST), 1)
    limit = SwitchLimit.of(TEST)
    free = rollout(Guarded(inner, limit, 0.05, allowance=1e9), TEST)
    np.testing.assert_array_equal(free.choice, rollout(inner, TEST).choice)
    dear = SwitchLimit.of(replace(TEST, switch_cost=1e6 * (1 - np.eye(6))))
    assert rollout(Guarded(inner, dear), TEST).switched.sum() == 0


def test_the_thresholds_are_those_published() -> None:
    kind, confidence = classify(
        np.array([0.75, 0.30, 0.10, 0.50, 0.56]), np.array([0.95, 0.95, 0.20, 0.50, 0.0])
    )
    assert kind.tolist() == [0, 1, 2, 0, 0]
    np.testing.assert_allclose(confidence, [1.0, 0.75, 1.0, 0.5, 0.05])


def test_the_rule_takes_topologies_by_name_cools_down_and_keeps_its_placement() -> None:
    names = ("mesh", "torus", "leaf-spine")
    base = codesign(1, names, epochs=60, length=60)
    cost = np.ones((60, 9))
    cost[:, 3:6] += 0.5  # starts in a mesh; leaving a torus always pays
    demand = np.tile(np.array([[0.1, 0.1], [0.9, 0.0]], np.float32).repeat(20, axis=0), (2, 1))[:60]
    cost[20:40, :6] += 1.0
    cost[:20, [0, 1, 2, 6, 7, 8]] += 2.0
    cost[40:, [0, 1, 2, 6, 7, 8]] += 2.0
    problem = replace(
        base, cost=cost, components={}, demand=demand, prior=np.zeros(0), scale=1.0, migration=None
    )
    policy = threshold_rule.tune(problem)
    start = problem.calibrated(problem)
    assert start.topologies == names
    placement = int(start.placement_of(start.start))
    assert policy.choice.tolist() == [6 + placement, 0 + placement, 3 + placement]
    run = rollout(policy, start)
    assert (start.placement_of(run.choice) == placement).all()
    moves = run.switched[0].nonzero()[0]
    assert len(moves) >= 2
    assert (np.diff(moves) >= threshold_rule.COOL_DOWN).all()
    assert start.topologies[int(start.topology_of(run.choice[0, 30]))] == "leaf-spine"


def test_the_rule_without_those_names_takes_what_is_cheapest_in_such_epochs() -> None:
    base = codesign(1, ("x", "y"), epochs=40)
    cost = np.ones((40, 6))
    cost[:20, :3] += 1.0
    cost[20:, 3:] += 2.0
    demand = np.array([[0.9, 0.1], [0.1, 0.9]], np.float32).repeat(20, axis=0)
    problem = replace(base, cost=cost, components={}, demand=demand, prior=np.zeros(0))
    topology = problem.topology_of(threshold_rule.tune(problem).choice)
    assert topology.tolist() == [1, 0, 0]  # even demand never came: never-switch's


def test_periodic_eplb_and_annealing_are_their_placements_on_the_best_topology() -> None:
    for name, placement in (("periodic-eplb", "recent"), ("annealing", "annealed")):
        policy = baseline(name, TRAINING, TEST)
        assert isinstance(policy, Fixed)
        totals = fixed_totals(TRAINING)
        choices = [k for k, n in enumerate(TRAINING.names) if n.endswith(f"/{placement}")]
        assert policy.configuration == min(choices, key=lambda k: totals[k])


def test_what_a_problem_lacks_is_named() -> None:
    bare = phase_problem(epochs=100, episode_length=20)
    with pytest.raises(InputError, match="periodic-eplb needs the placement 'recent'"):
        baseline("periodic-eplb", bare, bare)
    with pytest.raises(InputError, match="rule needs the demand's concentration and locality"):
        baseline("rule", bare, bare)
    annealed, never = (baseline(name, bare, bare) for name in ("annealing", "never-switch"))
    assert isinstance(annealed, Fixed)
    assert isinstance(never, Fixed)
    assert annealed.configuration == never.configuration
    with pytest.raises(InputError, match="'ema-mpc'"):
        baseline("ema-mcp", bare, bare)


def test_groups_of_baselines() -> None:
    assert set(ONLINE) == set(BASELINES) - set(HINDSIGHT)
    assert set(ONLINE_BLIND) == set(ONLINE) - {"forecast", "guarded"}


@pytest.mark.parametrize("queue", [True, False])
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_reads_the_layout_it_is_asked_for(name: str, queue: bool) -> None:
    policy: Policy = baseline(name, TRAINING, TEST, "after", queue)
    assert policy.layout == ObservationLayout.of(TEST, "after", queue)


def test_parameters_out_of_range_are_refused() -> None:
    layout, switch = ObservationLayout.of(TEST), SwitchPrice.of(TEST)
    with pytest.raises(InputError, match="persistence"):
        ema_mpc.EmaMpc(layout, switch, TEST.prior, 20, persistence=1.5)
    with pytest.raises(InputError, match="multiple"):
        WorkFunction(layout, switch, -1.0)
    with pytest.raises(InputError, match="rate"):
        LazyExperts(layout, rate=0.0)
    with pytest.raises(InputError, match="eps"):
        Guarded(Greedy(layout), SwitchLimit.of(TEST), eps=-0.1)
    with pytest.raises(InputError, match="at least one"):
        hysteresis.tune(TRAINING, weights=())
    assert lazy_experts.tune(TRAINING, rates=[0.1], shares=[0.0], firsts=[0.9]).rate == 0.1
    assert guarded.tune(TRAINING, eps=0.2).eps == 0.2
