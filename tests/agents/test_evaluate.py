from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from topomoe.agents.baselines import baseline
from topomoe.agents.bootstrap import (
    UNKNOWN,
    interquartile_mean,
    iqm_estimate,
    sample_index,
    share_estimate,
)
from topomoe.agents.evaluate import evaluate
from topomoe.agents.greedy import Greedy
from topomoe.agents.policy import Policy
from topomoe.agents.random_choice import RandomChoice
from topomoe.agents.static import Fixed
from topomoe.agents.step_times import percentiles, step_times
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

NAMES = (
    "never-switch",
    "static-best",
    "random",
    "rotor",
    "greedy",
    "hysteresis",
    "forecast",
    "clairvoyant",
)
WHOLE = phase_problem(epochs=1200, episode_length=30, noise=0.15, seed=1)
TRAINING = WHOLE.part(0, 600)
TEST = WHOLE.part(600, 900).calibrated(TRAINING)
OTHER = WHOLE.part(900, 1200).calibrated(TRAINING)
LAYOUT = ObservationLayout.of(TEST)
POLICIES: dict[str, Policy] = {name: baseline(name, TRAINING, TEST) for name in NAMES}


def placed(seed: int = 0, epochs: int = 60, waits: float = 0.0) -> SwitchingProblem:
    """Two topologies by two placements, with migration and the times of three steps an epoch."""
    random = np.random.default_rng(seed)
    steps = random.uniform(1.0, 2.0, (epochs, 3, 4)).astype(np.float32)
    cost = 4.0 * steps.sum(axis=1).astype(np.float64)  # twelve steps an epoch
    apart = np.kron(1 - np.eye(2), np.ones((2, 2)))
    return SwitchingProblem(
        names=("a/p", "a/q", "b/p", "b/q"),
        cost=cost,
        switch_cost=waits * apart,
        components={"dispatch": 0.25 * cost, "compute": 0.75 * cost},
        placements=("p", "q"),
        migration=Migration(waits * (1 - np.eye(2)), 0.5 * (1 - np.eye(2)), 0.2),
        steps=steps,
        bound=0.5 * cost.min(axis=1),
        episode_length=20,
    )


class Alternating:
    """Something that only has ``predict``: it goes round the configurations."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[Any, Any]:
        turn = 0 if state is None else state + 1
        return np.full(len(observation), turn % 4), turn


class Returning:
    """Returns whatever it was given, as an action."""

    def __init__(self, returned: Any) -> None:
        self.returned = returned

    def predict(self, *_: Any) -> Any:
        return self.returned


def test_there_is_a_row_for_every_agent_seed_and_episode() -> None:
    drawn = {7: RandomChoice(LAYOUT, 7), 8: RandomChoice(LAYOUT, 8)}
    found = evaluate({"greedy": Greedy(LAYOUT), "random": drawn}, TEST)
    table = found.to_frame()
    keys = list(zip(table["agent"], table["seed"], table["episode"], strict=True))
    agents = [("greedy", 0), ("random", 7), ("random", 8)]
    assert keys == [(*agent, episode) for agent in agents for episode in range(10)]
    assert [(row.agent, row.seeds, row.episodes) for row in found.summary] == [
        ("greedy", 1, 10),
        ("random", 2, 10),
    ]


def test_every_seed_plays_a_timeline_of_its_own_and_trained_seeds_take_turns() -> None:
    third = replace(TEST, cost=2.0 * TEST.cost, components={})
    trained: dict[int, Policy] = {4: Fixed(LAYOUT, 1), 9: Fixed(LAYOUT, 2)}
    found = evaluate({"fixed": trained}, {0: TEST, 1: OTHER, 2: third})
    played = {seed: int(run.rollout.choice[0, 0]) for (_, seed), run in found.runs.items()}
    assert played == {0: 1, 1: 2, 2: 1}
    table = found.to_frame().set_index(["seed", "episode"])["cost"]
    assert table[0, 0] == pytest.approx(TEST.cost[:30, 1].sum() + TEST.switch_cost[TEST.start, 1])
    assert table[1, 0] == pytest.approx(OTHER.cost[:30, 2].sum() + TEST.switch_cost[TEST.start, 2])
    assert table[2, 0] > 1.9 * table[0, 0]


def test_ratios_are_to_the_bound_and_to_staying() -> None:
    table = evaluate(POLICIES, TEST).to_frame().set_index(["agent", "episode"])
    assert (table["ratio_to_clairvoyant"] >= 1 - 1e-12).all()
    assert (table.loc["clairvoyant", "ratio_to_clairvoyant"] - 1).abs().max() < 1e-12
    never = table.loc["never-switch"]
    assert (never[["switches", "reconfiguration_s", "migration_s"]] == 0).all(axis=None)
    assert (never["ratio_to_never_switch"] == 1).all()
    for agent in NAMES:
        own = table.loc[agent]
        np.testing.assert_allclose(own["ratio_to_never_switch"], own["cost"] / never["cost"])
        np.testing.assert_allclose(own["reconfiguration_s"], 0.5 * own["switches"])
    assert table["ratio_to_bound"].isna().all()  # of such a problem no bound is known


def test_switches_of_topology_and_of_placement_are_counted_apart() -> None:
    problem = placed()
    table = evaluate({"round": Alternating()}, problem).to_frame()
    # 0, 1, 2, 3, 0, ...: the placement changes every epoch, the topology every second one.
    assert list(table["placement_switches"]) == [19] * 3
    assert list(table["topology_switches"]) == [9] * 3
    assert list(table["switches"]) == [19] * 3
    summary = evaluate({"round": Alternating()}, problem).summary[0]
    assert summary.placement_switches_per_100_epochs == 95
    assert summary.topology_switches_per_100_epochs == 45


def test_the_parts_of_an_episode_sum_to_its_cost_and_no_cost_is_below_the_bound() -> None:
    table = evaluate({"round": Alternating()}, placed(waits=0.25)).to_frame()
    parts = ["dispatch_s", "compute_s", "reconfiguration_s", "migration_s"]
    np.testing.assert_allclose(table[parts].sum(axis=1), table["cost"])
    assert (table["migration_s"] > 0).all()
    assert (table["ratio_to_bound"] > 1).all()


def test_step_times_of_who_never_switches_are_those_of_the_table() -> None:
    problem = placed()
    epoch, choice = np.arange(60).reshape(3, 20), np.zeros((3, 20), dtype=np.int64)
    seconds, weight = step_times(problem, epoch, choice)
    expected = np.quantile(problem.steps[:, :, 0], [0.5, 0.95, 0.99], method="inverted_cdf")
    np.testing.assert_allclose(percentiles(seconds, weight), expected)
    np.testing.assert_allclose(weight.sum(), 60 * 12)


def test_what_steps_take_sums_to_what_the_epochs_cost() -> None:
    problem = placed(waits=0.25)
    run = evaluate({"round": Alternating()}, problem).runs["round", 0]
    np.testing.assert_allclose((run.seconds * run.weight).sum(axis=1), run.cost, rtol=0.02)
    # One step of an epoch waits for a switch: the slowest by far where switches are dear.
    dear = evaluate({"round": Alternating()}, placed(waits=50.0)).runs["round", 0]
    times = percentiles(dear.seconds, dear.weight, (0.5, 0.9, 0.99))
    assert times[1] < 3 < 50 < times[2]


def test_percentiles_of_no_steps_are_not_numbers() -> None:
    row = evaluate({"greedy": Greedy(LAYOUT)}, TEST).summary[0]
    assert np.isnan([row.step_p50_s, row.step_p95_s, row.step_p99_s]).all()


def test_regret_closed_is_0_for_the_best_online_rule_and_1_for_the_clairvoyant() -> None:
    summary = {row.agent: row for row in evaluate(POLICIES, TEST).summary}
    online = min(("hysteresis", "forecast"), key=lambda name: summary[name].cost)
    for row in summary.values():
        assert (row.best_online, row.best_blind) == (online, "hysteresis")
    assert summary[online].regret_closed.value == pytest.approx(0.0)
    assert summary[online].difference_to_best_online.value == 0.0
    assert summary["hysteresis"].regret_closed_blind.value == pytest.approx(0.0)
    assert summary["clairvoyant"].regret_closed.value == pytest.approx(1.0)
    assert summary["clairvoyant"].regret_closed_blind.value == pytest.approx(1.0)
    assert summary["clairvoyant"].difference_to_best_blind.high < 0
    assert summary["greedy"].regret_closed.value < 0.0
    assert summary["greedy"].difference_to_best_online.low > 0


def test_regret_closed_is_not_given_where_there_is_nothing_to_gain() -> None:
    flat = phase_problem(epochs=120, episode_length=30, penalty=0.0, noise=0.0)
    found = evaluate({name: baseline(name, flat, flat) for name in NAMES}, flat)
    assert all(np.isnan(row.regret_closed.value) for row in found.summary)
    assert found.summary_frame()["regret_closed"].isna().all()


def test_without_an_online_rule_there_is_none_to_compare_with() -> None:
    row = evaluate({"clairvoyant": POLICIES["clairvoyant"]}, TEST).summary[0]
    assert (row.best_online, row.best_blind) == ("", "")
    assert row.difference_to_best_online is UNKNOWN


def test_intervals_hold_their_estimate_and_repeat_with_the_seed() -> None:
    first, again, other = (evaluate(POLICIES, TEST, seed=seed) for seed in (1, 1, 2))
    assert repr(first.summary) == repr(again.summary)
    assert repr(first.summary) != repr(other.summary)
    for row in first.summary:
        for estimate in (row.ratio_to_clairvoyant, row.difference_to_never_switch):
            assert estimate.low <= estimate.value <= estimate.high


def test_what_is_said_of_an_agent_does_not_depend_on_who_is_beside_it() -> None:
    both = {name: POLICIES[name] for name in ("rotor", "hysteresis")}
    turned = dict(reversed(both.items()))
    found = [
        {row.agent: repr(row) for row in evaluate(given, TEST).summary} for given in (both, turned)
    ]
    assert found[0] == found[1]


def test_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    values = np.array([9.0, 1.0, 2.0, 3.0, 4.0, -50.0, 5.0, 800.0])
    assert interquartile_mean(values) == (2.0 + 3.0 + 4.0 + 5.0) / 4


def test_intervals_widen_with_the_spread_between_seeds() -> None:
    random = np.random.default_rng(0)
    within = random.standard_normal((6, 40))
    between = within + np.array([[-3.0], [-2.0], [-1.0], [1.0], [2.0], [3.0]])
    index = sample_index(6, 40, 500, np.random.default_rng(0), shared=False)
    narrow, wide = (iqm_estimate(values, index) for values in (within, between))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


@pytest.mark.parametrize("shared", [False, True])
def test_samples_draw_from_all_seeds_and_episodes(shared: bool) -> None:
    values = np.arange(12.0).reshape(3, 4)
    drawn = values[sample_index(3, 4, 200, np.random.default_rng(0), shared)]
    assert drawn.shape == (200, 3, 4)
    assert set(drawn.ravel()) == set(values.ravel())
    columns = drawn % 4
    assert (columns == columns[:, :1]).all() == shared


def test_a_share_leaves_out_samples_in_which_there_is_nothing_to_share() -> None:
    whole = np.array([[0.0, 0.0, 0.0, 1.0]])
    index = sample_index(1, 4, 200, np.random.default_rng(0), shared=False)
    found = share_estimate(0.5 * whole, whole, index)
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
    assert share_estimate(whole, 0.0 * whole, index) is UNKNOWN


def test_the_timeline_tells_every_choice_and_its_cost_by_part() -> None:
    found = evaluate(POLICIES, TEST)
    table = found.timeline_frame()
    assert len(table) == len(POLICIES) * 300
    parts = table[["dispatch_s", "compute_s", "combine_s", "reconfiguration_s"]].sum(axis=1)
    np.testing.assert_allclose(parts, table["cost"])
    whole = table.groupby(["agent", "episode"])["cost"].sum()
    episodes = found.to_frame().set_index(["agent", "episode"])["cost"]
    np.testing.assert_allclose(whole.loc[episodes.index], episodes)
    assert (table["configuration"] == np.array(TEST.names)[table["choice"]]).all()
    assert set(found.timeline_frame(2)["episode"]) == {0, 1}


def test_the_timeline_names_topology_and_placement() -> None:
    table = evaluate({"round": Alternating()}, placed()).timeline_frame(1)
    assert (table["configuration"] == table["topology"] + "/" + table["placement"]).all()
    assert list(table["configuration"][:4]) == ["a/p", "a/q", "b/p", "b/q"]


def test_every_table_of_a_hypothetical_problem_says_so() -> None:
    problem = SwitchingProblem(
        ("torus", "fat-tree"), np.ones((8, 2)), [[0, 1], [1, 0]], hypothetical=True
    )
    found = evaluate({"greedy": Greedy(ObservationLayout.of(problem))}, problem)
    for table in (found.to_frame(), found.summary_frame(), found.timeline_frame()):
        assert (table["switching"] == "hypothetical").all()


def test_policies_that_see_different_things_are_not_compared() -> None:
    mixed = {name: Greedy(ObservationLayout.of(TEST, name)) for name in ("before", "after")}
    with pytest.raises(InputError, match="alike"):
        evaluate(mixed, TEST)
    for policies, test in (({}, TEST), (POLICIES, {}), ({"none": {}}, TEST)):
        with pytest.raises(InputError, match="at least one"):
            evaluate(policies, test)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ((np.full(10, 4), None), "0..3"),
        ((np.full(10, -1), None), "0..3"),
        ((np.zeros(9, dtype=np.int64), None), "10 integers"),
        ((np.zeros((10, 1), dtype=np.int64), None), "10 integers"),
        ((np.full(10, 0.5), None), "float64"),
        ((np.full(10, np.nan), None), "float64"),
        (([[1], [1, 2]], None), "array of actions"),
        ((None, None), "10 integers"),
        (np.zeros(10, dtype=np.int64), "(actions, state)"),
        (None, "(actions, state)"),
    ],
)
def test_an_agent_that_returns_no_action_is_refused_by_name(returned: Any, says: str) -> None:
    with pytest.raises(InputError) as caught:
        evaluate({"mine": {3: Returning(returned)}}, TEST)
    assert str(caught.value).startswith("agent mine, seed 3: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stable_baselines_evaluates_every_policy_alike() -> None:
    from stable_baselines3.common.evaluation import evaluate_policy

    from topomoe.envs.sb3 import SB3VecEnv

    short = replace(TEST, cost=TEST.cost[:30], components={}, features=TEST.features[:30])
    found = evaluate(
        {"greedy": POLICIES["greedy"], "never-switch": POLICIES["never-switch"]}, short
    )
    for name in ("greedy", "never-switch"):
        env = SB3VecEnv(2, short)
        rewards, lengths = evaluate_policy(
            POLICIES[name],  # type: ignore[arg-type]
            env,
            n_eval_episodes=2,
            warn=False,
            return_episode_rewards=True,
        )
        cost = found.runs[name, 0].cost[0]
        np.testing.assert_allclose(-np.array(rewards) * short.scale, cost, rtol=1e-5)
        assert lengths == [30, 30]
