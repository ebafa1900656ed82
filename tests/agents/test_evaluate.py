from __future__ import annotations

import numpy as np
import pytest

from topomoe.agents.baselines import BASELINES, baseline
from topomoe.agents.bootstrap import interquartile_mean
from topomoe.agents.evaluate import evaluate
from topomoe.agents.greedy import Greedy
from topomoe.agents.policy import Policy
from topomoe.agents.random_choice import RandomChoice
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

WHOLE = phase_problem(epochs=900, episode_length=30, noise=0.15, seed=1)
TRAINING = WHOLE.part(0, 600)
TEST = WHOLE.part(600, 900).calibrated(TRAINING)
POLICIES: dict[str, Policy] = {name: baseline(name, TRAINING, TEST) for name in BASELINES}


def test_there_is_a_row_for_every_agent_seed_and_episode() -> None:
    layout = ObservationLayout.of(TEST)
    found = evaluate(
        {
            "greedy": Greedy(layout),
            "random": {7: RandomChoice(layout, 7), 8: RandomChoice(layout, 8)},
        },
        TEST,
    )
    keys = [(row.agent, row.seed, row.episode) for row in found.rows]
    agents = [("greedy", 0), ("random", 7), ("random", 8)]
    assert keys == [(*agent, episode) for agent in agents for episode in range(10)]
    assert [(row.agent, row.seeds, row.episodes) for row in found.summary] == [
        ("greedy", 1, 10),
        ("random", 2, 10),
    ]


def test_ratios_are_to_the_bound_and_to_staying() -> None:
    found = evaluate(POLICIES, TEST)
    rows = {(row.agent, row.episode): row for row in found.rows}
    for (agent, episode), row in rows.items():
        assert row.ratio_to_clairvoyant >= 1 - 1e-12
        never = rows["never-switch", episode]
        assert row.ratio_to_never_switch == pytest.approx(row.cost_s / never.cost_s)
        if agent == "never-switch":
            assert (row.switches, row.reconfiguration_s, row.ratio_to_never_switch) == (0, 0.0, 1.0)
        assert row.reconfiguration_s == pytest.approx(0.5 * row.switches)


def test_regret_closed_is_0_for_the_best_online_policy_and_1_for_the_clairvoyant() -> None:
    summary = {row.agent: row for row in evaluate(POLICIES, TEST).summary}
    assert summary["hysteresis"].regret_closed == pytest.approx(0.0)
    assert summary["clairvoyant"].regret_closed == pytest.approx(1.0)
    regret = summary["greedy"].regret_closed
    assert regret is not None
    assert regret < 0.0


def test_regret_closed_is_not_given_where_there_is_nothing_to_gain() -> None:
    flat = phase_problem(epochs=120, episode_length=30, penalty=0.0, noise=0.0)
    found = evaluate({name: baseline(name, flat, flat) for name in BASELINES}, flat)
    assert all(row.regret_closed is None for row in found.summary)


def test_intervals_hold_their_estimate_and_repeat_with_the_seed() -> None:
    first, again, other = (evaluate(POLICIES, TEST, seed=seed) for seed in (1, 1, 2))
    assert first.summary == again.summary
    assert first.summary != other.summary
    for row in first.summary:
        low, high = row.ratio_to_clairvoyant_low, row.ratio_to_clairvoyant_high
        assert low <= row.ratio_to_clairvoyant <= high


def test_interquartile_mean_leaves_out_a_quarter_at_each_end() -> None:
    values = np.array([9.0, 1.0, 2.0, 3.0, 4.0, -50.0, 5.0, 800.0])
    assert interquartile_mean(values) == (2.0 + 3.0 + 4.0 + 5.0) / 4


def test_the_timeline_tells_every_choice_and_its_cost_by_part() -> None:
    found = evaluate(POLICIES, TEST)
    table = found.timeline_frame()
    assert len(table) == len(POLICIES) * 300
    parts = table[["dispatch_s", "compute_s", "combine_s", "reconfiguration_s"]].sum(axis=1)
    np.testing.assert_allclose(parts, table["cost_s"])
    whole = table.groupby(["agent", "episode"])["cost_s"].sum()
    for row in found.rows:
        assert whole[row.agent, row.episode] == pytest.approx(row.cost_s)
    assert (table["configuration"] == np.array(TEST.names)[table["choice"]]).all()


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
    with pytest.raises(InputError, match="at least one"):
        evaluate({}, TEST)
