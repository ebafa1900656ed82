from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.seal import seal
from topomoe.topologies.errors import InputError

GOOD = {
    "names": ("a", "b"),
    "cost": np.ones((4, 2)),
    "switch_cost": np.array([[0.0, 1.0], [2.0, 0.0]]),
}
WRONG = {
    "names missing": {"names": (), "cost": np.ones((4, 0)), "switch_cost": np.zeros((0, 0))},
    "names twice": {"names": ("a", "a")},
    "cost of other shape": {"cost": np.ones((4, 3))},
    "cost without epochs": {"cost": np.ones((0, 2))},
    "cost NaN": {"cost": np.full((4, 2), np.nan)},
    "cost infinite": {"cost": np.full((4, 2), np.inf)},
    "cost negative": {"cost": np.full((4, 2), -1.0)},
    "cost text": {"cost": [["x", "y"]]},
    "switch_cost of other shape": {"switch_cost": np.zeros((3, 3))},
    "switch_cost diagonal": {"switch_cost": np.ones((2, 2))},
    "switch_cost negative": {"switch_cost": np.array([[0.0, -1.0], [1.0, 0.0]])},
    "components do not sum to cost": {"components": {"dispatch": np.full((4, 2), 0.4)}},
    "components of other shape": {"components": {"dispatch": np.ones((3, 2))}},
    "features of other shape": {"features": np.ones((4, 2)), "feature_names": ("x",)},
    "features unnamed": {"features": np.ones((4, 2))},
    "features NaN": {"features": np.full((4, 1), np.nan), "feature_names": ("x",)},
    "features too large": {"features": np.full((4, 1), 1e7), "feature_names": ("x",)},
    "episode_length": {"episode_length": 5},
    "start": {"start": 2},
    "scale": {"scale": -1.0},
    "scale of no cost at all": {"cost": np.zeros((4, 2))},
    "prior of other shape": {"prior": np.ones(3)},
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_refused_by_name(case: str) -> None:
    with pytest.raises(InputError, match=case.split()[0]) as caught:
        SwitchingProblem(**{**GOOD, **WRONG[case]})
    assert "\n" not in str(caught.value)


def test_arrays_are_copied_and_read_only() -> None:
    cost = np.ones((4, 2))
    problem = SwitchingProblem(**{**GOOD, "cost": cost})
    cost[0, 0] = 9.0
    assert problem.cost[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        problem.cost[0, 0] = 2.0


def test_defaults_are_one_episode_of_never_switching_from_configuration_0() -> None:
    problem = SwitchingProblem(**{**GOOD, "cost": [[1.0, 5.0], [3.0, 7.0]]})
    assert (problem.episode_length, problem.start, problem.scale) == (2, 0, 2.0)
    assert problem.prior.tolist() == [2.0, 6.0]
    assert list(problem.components) == ["other"]


def test_episodes_are_whole_and_end_to_end() -> None:
    problem = phase_problem(epochs=47, episode_length=10)
    assert problem.episodes().tolist() == [0, 10, 20, 30]


def test_calibration_takes_nothing_from_the_test_timeline() -> None:
    whole = phase_problem(epochs=400, episode_length=20, seed=3)
    training, test = whole.part(0, 300), whole.part(300, 400)
    calibrated = test.calibrated(training)
    assert calibrated.start == training.cost.mean(axis=0).argmin()
    assert calibrated.scale == training.cost[:, calibrated.start].mean()
    np.testing.assert_array_equal(calibrated.prior, training.cost.mean(axis=0))
    np.testing.assert_array_equal(calibrated.cost, test.cost)


def test_calibration_refuses_other_configurations() -> None:
    with pytest.raises(InputError, match="names"):
        phase_problem(3).calibrated(phase_problem(4))


def test_save_and_load_give_the_same_problem_and_the_same_bytes(tmp_path: Path) -> None:
    problem = phase_problem(epochs=60, episode_length=20, seed=5)
    problem.save(tmp_path / "a.npz")
    again = SwitchingProblem.load(tmp_path / "a.npz")
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert again.names == problem.names
    assert again.feature_names == problem.feature_names
    for field in ("cost", "switch_cost", "features", "prior"):
        np.testing.assert_array_equal(getattr(again, field), getattr(problem, field))
    for name, part in problem.components.items():
        np.testing.assert_array_equal(again.components[name], part)


def test_a_hypothetical_problem_says_so_in_its_file(tmp_path: Path) -> None:
    SwitchingProblem(**GOOD, hypothetical=True).save(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as stored:
        assert json.loads(str(stored["meta"]))["switching"] == "hypothetical"
    assert SwitchingProblem.load(tmp_path / "p.npz").hypothetical


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "empty", "other", "flipped"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "problem.npz"
    phase_problem(epochs=60, episode_length=20).save(path)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        np.savez(path, cost=np.ones((2, 2)))
    else:
        broken = bytearray(content)
        broken[len(content) // 3] ^= 255
        changed = {"truncated": content[:-200], "text": b"x" * 50, "empty": b""}
        path.write_bytes(changed.get(damage, bytes(broken)))
    with pytest.raises(InputError, match=r"problem\.npz") as caught:
        SwitchingProblem.load(path)
    assert "\n" not in str(caught.value)


def test_every_byte_of_a_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "problem.npz"
    phase_problem(num_configurations=2, epochs=4, episode_length=2).save(path)
    content = path.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(InputError, match="checksum"):
            SwitchingProblem.load(path)


def test_a_pickled_array_is_never_loaded_whoever_sealed_it(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, meta=np.array([{"format": "x"}], dtype=object))
    for content in (path.read_bytes(), seal(path.read_bytes())):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"p\.npz"):
            SwitchingProblem.load(path)


def test_a_problem_with_placements_and_migration_survives_its_file(tmp_path: Path) -> None:
    plain = phase_problem(num_configurations=4, epochs=12, episode_length=6)
    random = np.random.default_rng(0)
    problem = replace(
        plain,
        names=("mesh/a", "mesh/b", "torus/a", "torus/b"),
        placements=("a", "b"),
        migration=Migration(random.random((12, 2, 2)), random.random((12, 2, 2)), 0.25),
        metric=np.zeros(0),
    )
    problem.save(tmp_path / "p.npz")
    again = SwitchingProblem.load(tmp_path / "p.npz")
    assert again.migration is not None
    assert problem.migration is not None
    assert (again.topologies, again.placements) == (("mesh", "torus"), ("a", "b"))
    assert again.migration.slowdown == 0.25
    for name in ("stall", "lag"):
        stored, given = getattr(again.migration, name), getattr(problem.migration, name)
        np.testing.assert_array_equal(stored, given)
    np.testing.assert_array_equal(again.metric, problem.metric)
