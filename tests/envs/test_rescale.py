"""Problems narrowed, and problems whose switches take longer: exactly what building them gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from topomoe.agents.clairvoyant import plan
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.rescale import FAST, SLOW, calibrated, full_migration, migrating, rewiring
from topomoe.envs.scenario import Problems, build_problems
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.envs.subset import restrict
from topomoe.envs.transition import transition_cost
from topomoe.topologies.errors import InputError

SMALL: dict[str, Any] = {
    "model": "mixtral-8x7b",
    "grid": "4x4",
    "topologies": ("mesh", "torus"),
    "layers": 2,
    "pool": 2,
    "draws": 2,
    "epochs": 60,
    "test_epochs": 40,
    "episode_length": 20,
    "epoch_steps": 16,
    "decode_tokens": 32,
    "prefill_tokens": 32,
    "synthetic_requests": 40,
}
SETTINGS = ScenarioSettings(layouts=("decode all", "prefill 2x4 + decode 8"), **SMALL)


@pytest.fixture(scope="module")
def built() -> dict[float, Problems]:
    scales = (FAST, SLOW, 0.02, 0.3)
    return {s: build_problems(replace(SETTINGS, migration_scale=s)) for s in scales}


def every_transition(problem: SwitchingProblem) -> np.ndarray:
    return transition_cost(problem, np.arange(problem.num_epochs))


@pytest.mark.parametrize("scale", [0.02, 0.3])
def test_a_rescaled_migration_costs_what_building_it_does(
    built: dict[float, Problems], scale: float
) -> None:
    fast, slow, expected = built[FAST], built[SLOW], built[scale].training.switching
    found = migrating(fast.training, slow.training, SETTINGS.migration_share, scale)
    found = found.calibrated(found)
    np.testing.assert_allclose(every_transition(found), every_transition(expected), rtol=1e-5)
    np.testing.assert_allclose(found.metric, expected.metric, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found.steps, expected.steps, rtol=1e-4)
    assert found.migration is not None
    assert 0 < found.migration.lag.mean() < 1  # or the share served by the old is not tried


def test_a_full_migration_is_the_mean_lag_where_none_outlasts_an_epoch(
    built: dict[float, Problems],
) -> None:
    lag = built[0.02].training.switching.migration.lag  # type: ignore[union-attr]
    assert lag.max() < 1
    apart = ~np.eye(lag.shape[1], dtype=np.bool_)
    assert full_migration(built[FAST]) * 0.02 == pytest.approx(lag[:, apart].mean(), rel=1e-5)


def test_rewiring_changes_what_rewiring_costs_and_nothing_else(
    built: dict[float, Problems],
) -> None:
    problem = built[0.3].training.switching
    slower = rewiring(problem, 7.0)
    moved = problem.topology_of(np.arange(problem.num_configurations))
    apart = moved[:, None] != moved
    assert np.array_equal(slower.switch_cost == 7.0, apart)
    extra = every_transition(slower) - every_transition(problem)
    expected = np.where(apart, 7.0 - problem.switch_cost, 0.0)
    np.testing.assert_allclose(extra, np.broadcast_to(expected, extra.shape), atol=1e-9)


def test_calibration_takes_everything_from_training(built: dict[float, Problems]) -> None:
    given = built[0.3]
    training = rewiring(given.training.switching, 1.0)
    _, validation, tests = calibrated(
        training, given.validation.switching, {0: given.tests[0].switching}
    )
    for problem in (validation, tests[0]):
        assert problem.start == training.calibrated(training).start
        assert np.array_equal(problem.prior, training.cost.mean(axis=0))


def test_a_narrowed_problem_charges_what_the_whole_one_does(built: dict[float, Problems]) -> None:
    whole = built[0.3].training.switching
    narrow = restrict(whole, ["torus"], ["annealed", "recent", "mix"])
    at = [whole.names.index(name) for name in narrow.names]
    assert narrow.names == ("torus/mix", "torus/annealed", "torus/recent")
    expected = every_transition(whole)[:, at][:, :, at]
    np.testing.assert_allclose(every_transition(narrow), expected)
    np.testing.assert_array_equal(narrow.steps, whole.steps[..., at])
    np.testing.assert_array_equal(narrow.metric, whole.metric[np.ix_(at, at)])


def test_fewer_configurations_never_help(built: dict[float, Problems]) -> None:
    whole = built[0.3].training.switching
    topology, placement = whole.names[whole.start].split("/")
    starts = whole.episodes()
    best = plan(whole, starts)[1]
    for narrow in (restrict(whole, [topology]), restrict(whole, None, [placement])):
        assert narrow.names[narrow.start] == whole.names[whole.start]
        assert (plan(narrow, starts)[1] >= best - 1e-9).all()
    alone = restrict(whole, [topology], [placement])
    stays = whole.cost[starts[0] : starts[0] + whole.episode_length, whole.start].sum()
    if placement != "recent":  # which costs its keeper where it is made anew
        assert plan(alone, starts[:1])[1][0] == pytest.approx(stays)


def test_a_problem_of_topologies_alone_can_be_narrowed_too() -> None:
    problem = SwitchingProblem(("a", "b", "c"), [[3.0, 1.0, 2.0]], 1.0 - np.eye(3))
    narrow = restrict(problem, ["c", "b"])
    assert (narrow.names, narrow.start) == (("b", "c"), 0)


def test_what_is_not_there_cannot_be_kept(built: dict[float, Problems]) -> None:
    problem = built[0.3].training.switching
    with pytest.raises(InputError, match="unknown topology 'tours'; did you mean 'torus'"):
        restrict(problem, ["tours"])
    with pytest.raises(InputError, match="unknown placement 'mx'"):
        restrict(problem, None, ["mx"])
