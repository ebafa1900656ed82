"""From a trace and a fabric to a switching problem: what is held out, adds up, and is free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import topomoe as tm
from topomoe.agents.baselines import baseline
from topomoe.agents.clairvoyant import plan
from topomoe.agents.hysteresis import tune
from topomoe.agents.rollout import rollout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.scenario import (
    MOSTLY,
    PARTS,
    build_configurations,
    build_problems,
    default_problem,
    prefill_share,
)
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.topologies import InputError

TINY = ScenarioSettings(
    model="mixtral-8x7b",
    grid="4x4",
    configurations=("mesh", "torus", "rows"),
    delay="rotor",
    prefill_tokens=256,
    decode_tokens=512,
    layers=2,
    pool=6,
    epochs=60,
    episode_length=20,
    epoch_steps=4,
    synthetic_requests=12,
)


@pytest.fixture(scope="module")
def problems() -> tuple[SwitchingProblem, SwitchingProblem]:
    return build_problems(TINY)


def assert_same_bytes(first: SwitchingProblem, second: SwitchingProblem) -> None:
    for field in ("cost", "switch_cost", "features", "prior"):
        assert getattr(first, field).tobytes() == getattr(second, field).tobytes(), field
    for name in PARTS:
        assert first.components[name].tobytes() == second.components[name].tobytes()
    assert (first.scale, first.start) == (second.scale, second.start)


# What a problem holds.


def test_costs_are_positive_and_their_parts_sum_to_them(
    problems: tuple[SwitchingProblem, SwitchingProblem],
) -> None:
    for problem in problems:
        assert problem.cost.shape == (60, 3)
        assert tuple(problem.components) == PARTS
        assert all((part > 0).all() for part in problem.components.values())
        np.testing.assert_allclose(sum(problem.components.values()), problem.cost, rtol=1e-12)
        assert problem.names == TINY.configurations
        assert problem.episode_length == 20
        assert not problem.hypothetical
        np.testing.assert_array_equal(problem.switch_cost, 10e-6 * ~np.eye(3, dtype=bool))


def test_only_communication_depends_on_the_wiring(
    problems: tuple[SwitchingProblem, SwitchingProblem],
) -> None:
    for problem in problems:
        for part in ("compute", "other"):
            np.testing.assert_array_equal(np.ptp(problem.components[part], axis=1), 0)
        for part in ("dispatch", "combine"):
            assert (np.ptp(problem.components[part], axis=1) > 0).all()


def test_the_queue_feature_is_the_share_of_prefill_steps(
    problems: tuple[SwitchingProblem, SwitchingProblem],
) -> None:
    for problem in problems:
        assert problem.feature_names == ("prefill_share",)
        share = problem.features[:, 0]
        assert ((share >= 0) & (share <= 1)).all()
        np.testing.assert_array_equal(4 * share, np.rint(4 * share))
        assert len(np.unique(share)) > 2


def test_both_sides_start_where_training_is_best(
    problems: tuple[SwitchingProblem, SwitchingProblem],
) -> None:
    training, test = problems
    best = int(training.cost.mean(axis=0).argmin())
    assert training.start == test.start == best
    assert training.scale == test.scale == pytest.approx(training.cost.mean(axis=0)[best])
    np.testing.assert_array_equal(training.prior, test.prior)


def test_phases_last_as_long_as_they_should() -> None:
    settings = replace(TINY, epochs=20_000, phase_epochs=10.0)
    share = prefill_share(settings, np.random.default_rng(0))
    mostly = share > 0.5
    flips = int((mostly[1:] != mostly[:-1]).sum())
    assert flips == pytest.approx(2000, rel=0.1)
    assert share[mostly].mean() == pytest.approx(MOSTLY, abs=0.02)
    assert share[~mostly].mean() == pytest.approx(1 - MOSTLY, abs=0.02)
    assert mostly.mean() == pytest.approx(0.5, abs=0.06)


# Seeds.


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    problems: tuple[SwitchingProblem, SwitchingProblem],
) -> None:
    for problem, again in zip(problems, build_problems(TINY), strict=True):
        assert_same_bytes(problem, again)
    other = build_problems(replace(TINY, seed=1))
    assert problems[0].cost.tobytes() != other[0].cost.tobytes()
    assert problems[0].features.tobytes() != problems[1].features.tobytes()


# What is held out.


def saved(trace: tm.RoutingTrace, folder: Path) -> ScenarioSettings:
    tm.save_trace(trace, folder)
    return replace(TINY, trace=str(folder), layers=0, pool=3)


def changed_half(trace: tm.RoutingTrace, side: int, how: str) -> tm.RoutingTrace:
    """Return the trace with one half of its split changed, the other half as it is.

    ``reversed``: a request's tokens in the opposite order, which leaves all loads as they are.
    ``shifted``: every expert id one higher.
    """
    ids = set(trace.split(0.5, TINY.seed)[side].request_ids)
    experts = trace.experts.copy()
    for q, name in enumerate(trace.request_ids):
        span = slice(trace.request_start[q], trace.request_start[q + 1])
        if name in ids:
            part = experts[:, span]
            experts[:, span] = part[:, ::-1] if how == "reversed" else (part + 1) % 8
    return replace(trace, experts=experts)


def test_training_and_held_out_steps_share_no_request(tmp_path: Path) -> None:
    """Held-out tokens change nothing of training; training tokens act through loads alone."""
    made = tm.synthetic_trace("mixtral-8x7b", requests=12, positions=24).filter(layers=(0, 31))
    tm.save_trace(made, tmp_path / "first")
    trace = tm.load_trace(tmp_path / "first", model="mixtral-8x7b")
    train, test = trace.split(0.5, TINY.seed)
    assert not set(train.request_ids) & set(test.request_ids)
    before = build_problems(saved(trace, tmp_path / "before"))
    held_out = build_problems(saved(changed_half(trace, 1, "shifted"), tmp_path / "held-out"))
    assert_same_bytes(before[0], held_out[0])
    assert before[1].cost.tobytes() != held_out[1].cost.tobytes()
    loads_alike = build_problems(saved(changed_half(trace, 0, "reversed"), tmp_path / "reversed"))
    assert before[0].cost.tobytes() != loads_alike[0].cost.tobytes()
    assert before[1].cost.tobytes() == loads_alike[1].cost.tobytes()
    moved = build_problems(saved(changed_half(trace, 0, "shifted"), tmp_path / "moved"))
    assert before[1].cost.tobytes() != moved[1].cost.tobytes()  # placed by training loads


# Libraries.


def test_wirings_are_of_one_fabric_and_fabrics_of_one_budget() -> None:
    wirings = build_configurations(TINY, (4, 4))
    for wiring in wirings:
        assert wiring.parameters["kind"] == "optical"
        base = ~wiring.optical
        np.testing.assert_array_equal(
            wiring.capacity[base], wirings[0].capacity[~wirings[0].optical]
        )
    fabrics = replace(TINY, library="fabrics", configurations=("torus", "fat-tree"))
    for fabric in build_configurations(fabrics, (4, 4)):
        assert fabric.injection.max() == pytest.approx(50e9, rel=1e-12)


def test_fabrics_that_no_switch_turns_into_each_other_are_marked_hypothetical() -> None:
    fabrics = replace(TINY, library="fabrics", configurations=("torus", "fat-tree", "mesh"))
    for problem in build_problems(fabrics):
        assert problem.hypothetical
        assert problem.switching == "hypothetical"
        np.testing.assert_array_equal(problem.switch_cost, 10e-6 * ~np.eye(3, dtype=bool))


def test_half_the_bandwidth_only_slows_communication() -> None:
    fast, slow = (
        build_problems(replace(TINY, bandwidth=bandwidth))[1].components for bandwidth in (2e9, 1e9)
    )
    assert (slow["dispatch"] > 1.5 * fast["dispatch"]).all()
    assert (slow["dispatch"] <= 2 * fast["dispatch"]).all()
    np.testing.assert_array_equal(slow["compute"], fast["compute"])


# Whether it pays to switch.


def test_nobody_switches_where_it_takes_seconds() -> None:
    """A negative control: a NIC's bring-up outlasts every episode's gain."""
    training, test = build_problems(replace(TINY, delay="nic-bring-up"))
    spread = np.ptp(test.cost, axis=1).sum()
    assert (test.switch_cost[~np.eye(3, dtype=bool)] > spread).all()
    choice, total = plan(test)
    assert (choice == test.start).all()
    never = rollout(baseline("never-switch", training, test), test)
    np.testing.assert_allclose(total, never.cost.sum(axis=1))
    hysteresis = rollout(tune(training), test)
    assert not hysteresis.switched.any()
    np.testing.assert_array_equal(hysteresis.cost, never.cost)


def test_the_clairvoyant_switches_where_it_is_free_and_the_best_changes() -> None:
    """Slow links, so that what the wirings differ by outlasts a switch of nanoseconds."""
    settings = replace(
        TINY, delay="plzt", bandwidth=1e9, configurations=("rows", "columns", "torus")
    )
    _, test = build_problems(settings)
    assert len(np.unique(test.cost.argmin(axis=1))) > 1
    choice, total = plan(test)
    assert (np.diff(choice, axis=1) != 0).any()
    best = test.cost.min(axis=1).reshape(3, 20).sum(axis=1)
    np.testing.assert_allclose(total, best, rtol=1e-4)


# The environments' built-in problem.


def test_the_default_problem_runs_in_an_environment_and_in_several() -> None:
    problem = default_problem()
    assert default_problem() is problem
    env = gymnasium.make("topomoe/TopologySwitch-v0")
    assert env.unwrapped.problem is problem  # type: ignore[attr-defined]
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    steps, done = 0, False
    while not done:
        observation, reward, terminated, truncated, _ = env.step(steps % 3)
        assert env.observation_space.contains(observation)
        assert np.isfinite(reward)
        done = terminated or truncated
        steps += 1
    assert steps == problem.episode_length
    copies = gymnasium.make_vec("topomoe/TopologySwitch-v0", num_envs=4)
    observations, _ = copies.reset(seed=0)
    assert observations.shape[0] == 4
    _, rewards, *_ = copies.step(np.array([0, 1, 2, 0]))
    assert np.isfinite(rewards).all()


# Errors.


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("library", "wiring", "unknown library 'wiring'; did you mean 'wirings'"),
        ("delay", "mem", "unknown reconfiguration delay 'mem'; did you mean 'mems'"),
        ("configurations", (), "configurations must name one or more different"),
        ("configurations", ("mesh", "mesh"), "configurations must name one or more different"),
        ("pool", 0, "pool must be >= 1, got 0"),
        ("epochs", 10, "episode_length must be <= epochs, got 20 and 10"),
        ("layers", -1, "layers must be >= 0, got -1"),
        ("phase_epochs", 0.5, "phase_epochs must be >= 1, got 0.5"),
        ("phase_epochs", float("nan"), "phase_epochs must be >= 1, got nan"),
        ("base_share", 1.0, r"base_share must be in \(0, 1\), got 1"),
    ],
)
def test_settings_name_the_field(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **{field: value})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grid": "4by4"}, "grid must be rows x columns such as 16x8, got '4by4'"),
        ({"configurations": ("mesh", "tours")}, "unknown wiring 'tours'; did you mean 'torus'"),
        ({"library": "fabrics", "configurations": ("tours",)}, "unknown topology 'tours'"),
        ({"model": "mixtral"}, "unknown model 'mixtral'"),
        ({"trace": "no/such/folder"}, "no/such/folder"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_problems(replace(TINY, **changed))
    assert "\n" not in str(caught.value)
