from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.topologies.errors import InputError

PROBLEM = phase_problem(epochs=200, episode_length=15, seed=1)
HYPOTHETICAL = SwitchingProblem(
    ("torus", "fat-tree"), np.ones((8, 2)), [[0.0, 1.0], [1.0, 0.0]], hypothetical=True
)
ID = "tests/TopologySwitch-v0"


@pytest.fixture
def registered() -> Iterator[str]:
    gymnasium.register(
        ID,
        entry_point="topomoe.envs.switching:TopologySwitchEnv",
        vector_entry_point="topomoe.envs.vector:TopologySwitchVectorEnv",
    )
    yield ID
    gymnasium.registry.pop(ID)


@pytest.mark.parametrize("observe", ["before", "after"])
@pytest.mark.parametrize("queue", [True, False])
def test_gymnasium_finds_nothing_to_warn_of(registered: str, observe: str, queue: bool) -> None:
    env = gymnasium.make(registered, problem=PROBLEM, observe=observe, queue=queue)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


def test_stable_baselines3_finds_nothing_to_warn_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env_sb3(TopologySwitchEnv(PROBLEM), warn=True)


def test_the_vector_entry_point_makes_copies(registered: str) -> None:
    copies = gymnasium.make_vec(registered, num_envs=3, problem=PROBLEM)
    assert copies.reset(seed=0)[0].shape == (3, copies.single_observation_space.shape[0])


def test_the_same_seed_gives_the_same_episode_and_others_differ() -> None:
    env = TopologySwitchEnv(PROBLEM)
    epochs = [env.reset(seed=seed)[1]["epoch"] for seed in (1, 1, 2, 3, 4)]
    assert epochs[0] == epochs[1]
    assert len(set(epochs)) > 2


def test_an_episode_can_be_asked_for() -> None:
    env = TopologySwitchEnv(PROBLEM)
    assert env.reset(options={"episode": 3})[1]["epoch"] == 45
    for options in ({"episode": 13}, {"episode": -1}, {"episode": "x"}, {"epsiode": 1}):
        with pytest.raises(InputError, match="options"):
            env.reset(options=options)


def test_info_names_the_cost_by_part_and_an_episode_terminates_after_its_length() -> None:
    env = TopologySwitchEnv(PROBLEM)
    env.reset(seed=0)
    for epoch in range(15):
        _, reward, terminated, truncated, info = env.step(epoch % 2)
        parts = sum(info[part] for part in ("dispatch", "compute", "combine", "reconfiguration"))
        assert parts == pytest.approx(info["cost"])
        assert reward == pytest.approx(-info["cost"] / PROBLEM.scale)
        assert info["configuration"] == PROBLEM.names[epoch % 2]
        assert info["switched"] is (epoch > 0)
        assert (terminated, truncated) == (epoch == 14, False)


@pytest.mark.parametrize("action", [-1, 4])
def test_an_action_out_of_range_is_refused(action: int) -> None:
    env = TopologySwitchEnv(PROBLEM)
    env.reset(seed=0)
    with pytest.raises(InputError, match=r"0\.\.3"):
        env.step(action)


def test_step_before_reset_is_refused() -> None:
    with pytest.raises(InputError, match="reset"):
        TopologySwitchEnv(PROBLEM).step(0)


def test_all_actions_are_allowed() -> None:
    assert TopologySwitchEnv(PROBLEM).action_masks().tolist() == [True] * 4


def test_a_stored_problem_is_given_by_its_path(tmp_path: Path) -> None:
    PROBLEM.save(tmp_path / "p.npz")
    first = TopologySwitchEnv(PROBLEM).reset(seed=3)[0]
    second = TopologySwitchEnv(str(tmp_path / "p.npz")).reset(seed=3)[0]
    np.testing.assert_array_equal(first, second)


def test_the_text_rendering_is_one_line_a_step() -> None:
    env = TopologySwitchEnv(PROBLEM, render_mode="ansi")
    env.reset(seed=0)
    env.step(2)
    line = env.render()
    assert isinstance(line, str)
    assert "wiring 2" in line
    assert "reconfiguration 0.5 s" in line
    assert "\n" not in line
    assert "hypothetical" not in line


def test_everything_said_of_a_hypothetical_problem_says_hypothetical() -> None:
    env = TopologySwitchEnv(HYPOTHETICAL, render_mode="ansi")
    _, info = env.reset(seed=0)
    assert info["switching"] == "hypothetical"
    assert "hypothetical" in str(env.render())
    assert env.step(1)[4]["switching"] == "hypothetical"
    assert "hypothetical" in str(env.render())


def test_the_picture_marks_the_choices_and_leaves_the_future_grey() -> None:
    env = TopologySwitchEnv(PROBLEM, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(2)
    image = env.render()
    assert isinstance(image, np.ndarray)
    assert (image.shape, image.dtype) == ((32, 120, 3), np.uint8)
    assert image[20, 4].tolist() == [230, 85, 13]
    assert (image[:, 8:] == 225).all()


def test_an_unknown_render_mode_is_refused() -> None:
    with pytest.raises(InputError, match="render_mode"):
        TopologySwitchEnv(PROBLEM, render_mode="human")


def test_importing_the_environments_loads_no_learning_library() -> None:
    code = (
        "import sys, topomoe.envs; "
        "print([m for m in ('torch', 'stable_baselines3', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
