"""Policies over reconfiguration delays: exact planners, the rules of hysteresis, who is chosen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.agents.delay_sweep import NEVER, UNROUTED, sweep
from topomoe.agents.hysteresis import HORIZONS, MARGINS, WEIGHTS, Hysteresis, tune
from topomoe.agents.layer_schedule import Collectives, best_actions, best_cycle, run_actions
from topomoe.agents.rollout import rollout
from topomoe.agents.step_rules import Rules, follow
from topomoe.envs.delay_timeline import Timeline
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.phases import phase_problem

DELAYS = np.array([0.0, 0.2, 1.0, 100.0])


def random_collectives(seed: int, times: int) -> Collectives:
    """Return two wirings, one that is redrawn now and then, and a schedule, at three delays."""
    rng = np.random.default_rng(seed)
    return Collectives(
        cost=rng.uniform(0, 2, (3, times, 4)),
        exposed=np.array([0.0, 0.4, 1.1])[:, None] * rng.uniform(0, 1, times),
        redraws=np.array([False, False, True, False]) & (rng.random((times, 4)) < 0.5),
        own=np.array([False, False, False, True]),
    )


def timeline(cost: Any, window: float = 0.0, **changes: Any) -> Timeline:
    """Return B steps of P collectives under K wirings that cost [B, P, K], a schedule too slow."""
    array = np.asarray(cost, dtype=np.float64)
    steps, length, wirings = array.shape
    slow = np.full((len(DELAYS), steps, length), 1e3)
    given = {
        "names": tuple(f"wiring-{k}" for k in range(wirings)),
        "routings": ("default",) * wirings,
        "cost": array,
        "usual": array,
        "least": array,
        "window": np.full((steps, length), window),
        "rest": np.full(steps, window * length),
        "scheduled": {"rotor": slow},
        "foreseen": slow,
        "redrawn": None,
        "redraws": np.zeros(length, dtype=np.bool_),
        "bound": np.zeros((steps, length)),
    }
    return Timeline(**{**given, **changes})


@given(seed=st.integers(0, 10_000))
@settings(max_examples=25)
def test_the_optimum_over_actions_equals_brute_force(seed: int) -> None:
    collectives = random_collectives(seed, 5)
    found = run_actions(collectives, best_actions(collectives, 1), 1)[0].sum(axis=1)
    every = np.array(list(product(range(4), repeat=5)))
    for d in range(3):
        one = Collectives(
            np.repeat(collectives.cost[[d]], len(every), axis=0),
            np.repeat(collectives.exposed[[d]], len(every), axis=0),
            collectives.redraws,
            collectives.own,
        )
        assert found[d] == pytest.approx(run_actions(one, every, 1)[0].sum(axis=1).min())


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_the_best_cycle_equals_brute_force_in_its_steady_state(seed: int) -> None:
    collectives = random_collectives(seed, 4)

    def rounds(actions: Any, d: int) -> Any:
        """Return the seconds of the second of two rounds of each cycle [C, 4]."""
        twice = Collectives(
            np.broadcast_to(np.tile(collectives.cost[d], (2, 1)), (len(actions), 8, 4)),
            np.broadcast_to(np.tile(collectives.exposed[d], 2), (len(actions), 8)),
            np.tile(collectives.redraws, (2, 1)),
            collectives.own,
        )
        return run_actions(twice, np.tile(actions, 2), 0)[0][:, 4:].sum(axis=1)

    every = np.array(list(product(range(4), repeat=4)))
    found = best_cycle(collectives)
    for d in range(3):
        assert rounds(found[[d]], d)[0] == pytest.approx(rounds(every, d).min())


def test_the_rule_for_all_delays_at_once_is_hysteresis_itself() -> None:
    problem = phase_problem(epochs=60, episode_length=60, noise=0.2, seed=3, switch=0.7)
    problem = problem.calibrated(problem)
    delay = float(problem.switch_cost.max())
    newest = np.concatenate([[problem.prior], problem.cost[:-1]])
    for weight, horizon, margin in ((0.35, 5.0, 1.5), (1.0, 2.0, 1.0), (0.1, 50.0, 1.0)):
        rules = Rules(np.array([weight]), np.array([horizon]), np.array([margin]))
        policy = Hysteresis(
            ObservationLayout.of(problem, "before"),
            problem.switch_cost / problem.scale,
            problem.episode_length,
            weight,
            horizon,
            margin,
        )
        ours = follow(newest, np.array([delay]), problem.start, rules)[0, 0]
        np.testing.assert_array_equal(ours, rollout(policy, problem).choice[0])


def test_hysteresis_is_tuned_as_its_own_tuning_does() -> None:
    problem = phase_problem(epochs=80, episode_length=80, noise=0.2, seed=5, switch=1.0)
    problem = problem.calibrated(problem)
    given_line = timeline(problem.cost[:, None])
    expected = rollout(tune(problem), problem).cost.sum()
    found = sweep(given_line, given_line, DELAYS).training["hysteresis"]
    assert found.seconds[2].sum() == pytest.approx(expected)
    assert len(WEIGHTS) * len(HORIZONS) * len(MARGINS) > 1


def drifting(seed: int) -> tuple[Timeline, Timeline]:
    rng = np.random.default_rng(seed)
    phase = np.repeat(rng.integers(0, 2, 8), 4)
    cost = rng.uniform(0.8, 1.2, (32, 6, 3))
    cost[:, :, 0] += phase[:, None]
    cost[:, :, 1] += 1 - phase[:, None]
    scheduled = 0.5 + 3 * DELAYS[:, None, None] + rng.uniform(0, 0.1, (4, 32, 6))
    changes: dict[str, Any] = {
        "scheduled": {"rotor": scheduled, "birkhoff": scheduled + 0.05},
        "foreseen": scheduled,
        "redrawn": rng.uniform(0.9, 1.5, (32, 6)),
        "redraws": np.array([True, False] * 3),
        "bound": np.full((32, 6), 0.4),
    }
    return timeline(cost, 0.3, **changes), timeline(cost[::-1], 0.3, **changes)


@pytest.mark.parametrize("seed", range(3))
def test_no_policy_beats_the_clairvoyant_and_nothing_beats_the_ports(seed: int) -> None:
    result = sweep(*drifting(seed), DELAYS)
    bound = result.ratio("clairvoyant")
    for policy in result.held_out:
        assert np.all(result.ratio(policy) >= bound - 1e-12), policy
    assert np.all(result.bound.sum() <= result.held_out["clairvoyant"].seconds.sum(axis=1))
    assert np.all(np.diff(bound) >= -1e-12)


def test_what_never_switch_gains_from_routing_stands_apart() -> None:
    rng = np.random.default_rng(0)
    cost = rng.uniform(1.0, 2.0, (10, 2, 3))
    cost[:, :, 1] = 1.0
    usual = np.stack([1.5 * cost[:, :, 0], 1.6 * cost[:, :, 1], np.full((10, 2), 1.4)], axis=-1)
    line = timeline(cost, usual=usual, least=np.minimum(cost, usual), routings=("optimal",) * 3)
    result = sweep(line, line, DELAYS)
    assert (result.never, result.never_routing) == ("wiring-1", "optimal")
    np.testing.assert_array_equal(result.ratio(NEVER), 1.0)
    np.testing.assert_allclose(result.ratio(UNROUTED), 1.4)  # of the best wiring there
    assert UNROUTED not in result.best
    np.testing.assert_array_equal(result.held_out[UNROUTED].rewiring, 0.0)


def test_the_clairvoyant_takes_each_collective_s_faster_routing() -> None:
    cost, usual = np.full((4, 2, 1), 2.0), np.full((4, 2, 1), 3.0)
    usual[:, 1] = 1.0
    line = timeline(cost, usual=usual, least=np.minimum(cost, usual))
    np.testing.assert_allclose(sweep(line, line, DELAYS).ratio("clairvoyant"), 3.0 / 4.0)


@pytest.mark.parametrize("seed", range(3))
def test_held_out_steps_choose_and_tune_nothing(seed: int) -> None:
    training, held_out = drifting(seed)
    other = replace(held_out, cost=held_out.cost[:, :, ::-1], window=2 * held_out.window)
    first, second = sweep(training, held_out, DELAYS), sweep(training, other, DELAYS)
    assert (first.best, first.never) == (second.best, second.never)
    for policy, score in first.training.items():
        np.testing.assert_array_equal(score.seconds, second.training[policy].seconds)


def test_a_first_wiring_and_every_change_are_charged() -> None:
    # Wiring 1 is better after the start, but never-switch keeps wiring 0, best in training.
    training = timeline(np.tile([1.0, 2.0], (6, 1, 1)), 0.2)
    held_out = timeline(np.tile([9.0, 1.0], (6, 1, 1)), 0.2)
    best = sweep(training, held_out, DELAYS).held_out["clairvoyant"]
    np.testing.assert_allclose(best.rewiring[:3].sum(axis=1), [0.0, 0.0, 0.8])
    np.testing.assert_allclose(best.rewiring[3].sum(), 0.0)  # 99.8 s would not repay


def test_never_switch_wins_exactly_where_rewiring_cannot_pay() -> None:
    result = sweep(*drifting(0), DELAYS)
    assert result.best[0] != NEVER
    assert result.best[-1] == NEVER
    assert result.ratio(result.best[-1])[-1] == 1.0
    after = int(np.flatnonzero(result.never_wins_from() == DELAYS)[0])
    assert result.best[after - 1] != NEVER
    assert set(result.best[after:]) == {NEVER}
    np.testing.assert_array_equal(result.intervals(NEVER, 0), 1.0)


def test_a_rewiring_that_computation_hides_is_free() -> None:
    cost = np.tile([[1.0, 3.0], [3.0, 1.0]], (10, 1, 1))
    hidden = timeline(cost, window=0.2)
    result = sweep(hidden, hidden, DELAYS)
    plan = result.held_out["layer-wirings"]
    np.testing.assert_array_equal(plan.rewiring[1], 0.0)  # a delay of 0.2 s, a window of as much
    np.testing.assert_allclose(plan.seconds[1], 2 * 1.0 + 2 * 0.2)
    np.testing.assert_allclose(plan.rewiring[2, 1:], 2 * 0.8)  # of 1 s, all but the window
    np.testing.assert_allclose(plan.seconds[3], result.held_out[NEVER].seconds[3])


def test_the_best_policy_is_chosen_in_training_even_where_it_loses_later() -> None:
    kind = np.tile([[1.0, 3.0], [3.0, 1.0]], (10, 1, 1))
    reversed_ = kind[:, ::-1]
    result = sweep(timeline(kind), timeline(reversed_), DELAYS)
    assert result.best[0] == "layer-wirings"
    assert result.ratio("layer-wirings")[0] == pytest.approx(6.0 / 4.0)


def test_a_gain_of_next_to_nothing_in_training_is_never_switch() -> None:
    cost = np.tile([[1.0, 1.0005], [1.0005, 1.0]], (10, 1, 1))
    result = sweep(timeline(cost), timeline(cost), DELAYS)
    assert result.training["layer-wirings"].seconds[0].sum() < result.training[NEVER].seconds.sum()
    assert set(result.best) == {NEVER}
    assert result.never_wins_from() == DELAYS[0]


def test_who_sees_the_queue_switches_in_time() -> None:
    share = np.repeat([0.1, 0.9, 0.1, 0.9], 6)
    cost = np.stack([1.0 + share, 2.0 - share], axis=-1)[:, None]
    line = timeline(cost, queue=share)
    result = sweep(line, line, DELAYS)
    np.testing.assert_allclose(result.ratio("queue")[:2], result.ratio("clairvoyant")[:2])
    assert result.ratio("queue")[0] < result.ratio("hysteresis")[0]
    assert "layer-wirings" not in result.held_out  # one collective a step has no order to plan


def test_intervals_hold_the_ratio_and_widen_with_blocks() -> None:
    first, second = drifting(1)
    result = sweep(first, second, DELAYS)
    low, high = result.intervals("greedy", 0).T
    assert np.all((low <= result.ratio("greedy")) & (result.ratio("greedy") <= high))
    assert np.all(low < high)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Solved routings go into a folder of the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOPOMOE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


SMALL = (
    "--model mixtral-8x7b --grid 2x4 --synthetic-requests 8 --layers 2 --steps 2 --pool 2 "
    "--epochs 16 --phase-epochs 4 --prefill-tokens 256 --decode-tokens 128 --training-tokens 256 "
    "--row-tokens 64 --points-per-decade 1 --clusters 2 --methods b-matching"
)


@pytest.fixture(scope="module")
def run(topomoe: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a small finished sweep, and what it printed."""
    folder = tmp_path_factory.mktemp("delays") / "run"
    status, out, err = topomoe("delays", *SMALL.split(), "--out", folder)
    assert status == 0, err
    return folder, out


def test_the_command_prints_and_writes_what_was_chosen(run: tuple[Path, str]) -> None:
    folder, printed = run
    frame = pd.read_csv(folder / "results.csv")
    assert list(dict.fromkeys(frame["workload"])) == ["prefill", "decode", "training", "cluster"]
    chosen = frame[frame["chosen"]]
    assert (chosen.groupby("workload").size() == frame["delay_s"].nunique()).all()
    at = chosen[(chosen["workload"] == "prefill") & (chosen["delay_s"] == 1e-8)].iloc[0]
    assert f"{at['policy']} {at['ratio_to_never_switch']:.3f}" in printed
    ports = frame[frame["policy"] == "port-bound"].set_index(["workload", "delay_s"])
    best = frame[frame["policy"] == "clairvoyant"].set_index(["workload", "delay_s"])
    column = "ratio_to_never_switch"
    assert (ports[column] <= best[column] + 1e-9).all()
    assert (frame.loc[frame["policy"] == NEVER, column] == 1.0).all()
    for _, own in best[column].groupby("workload"):
        assert own.is_monotonic_increasing
    # Under default routing never-switch may have started on another wiring.
    policies = frame[~frame["policy"].isin(["port-bound", UNROUTED])]
    for policy, rows in policies.groupby("policy"):
        lines = rows.set_index(["workload", "delay_s"])[column]
        assert (best[column].reindex(lines.index) <= lines + 1e-12).all(), policy
    unrouted = frame.loc[frame["policy"] == UNROUTED, "training_ratio_to_never_switch"]
    assert (unrouted >= 1.0).all()


def test_a_run_repeats_to_the_byte(run: tuple[Path, str], topomoe: Any, tmp_path: Path) -> None:
    config = run[0] / "config.toml"
    assert topomoe("delays", "--config", config, "--out", tmp_path / "again")[0] == 0
    for name in (
        "config.toml",
        "results.parquet",
        "results.csv",
        "tables/reconfiguration_delay.md",
        "tables/reconfiguration_delay.tex",
        "figures/reconfiguration_delay.png",
        "figures/reconfiguration_delay.pdf",
    ):
        assert (run[0] / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_damaged_run_is_not_drawn(run: tuple[Path, str], topomoe: Any, tmp_path: Path) -> None:
    shutil.copytree(run[0], tmp_path / "copy")
    path = tmp_path / "copy" / "results.parquet"
    pd.read_parquet(path).drop(columns="chosen").to_parquet(path, index=False)
    status, _, err = topomoe("plot", tmp_path / "copy")
    assert status == 2
    assert "lacks column chosen" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--workloads decode,decade", "workload"),
        ("--wirings torus,torrus", "torrus"),
        ("--methods c-matching", "circuit method"),
        ("--steps 1", "steps"),
        ("--base-share 1", "base_share"),
        ("--clusters 0", "clusters"),
        ("--origins rows", "origins"),
        ("--wiring-routing shortest", "wiring routing"),
        ("--optimal-wirings -1", "optimal_wirings"),
        ("--ports 2 --wirings mesh", "degree=2"),
        ("--slots 7", "slots"),
        ("--trace no/such/folder", "no/such/folder"),
        ("--grid 2y4", "grid"),
    ],
)
def test_bad_input_is_named_in_one_line_and_nothing_is_written(
    words: str, named: str, topomoe: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    status, _, err = topomoe("delays", *SMALL.split(), *words.split(), "--out", out)
    assert status == 2, err
    assert len(err.strip().splitlines()) == 1
    assert named in err
    assert not out.exists()
