from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from topomoe.envs.cluster_picture import cluster_picture
from topomoe.envs.grid_picture import MARGIN, PITCH, grid_picture
from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.step_price import step_loads
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.envs.tiny_cluster import tiny_problem
from topomoe.envs.vector import TopologySwitchVectorEnv
from topomoe.topologies import make
from topomoe.topologies.errors import InputError

PROBLEM = phase_problem(epochs=200, episode_length=15, seed=1)
HYPOTHETICAL = SwitchingProblem(
    ("torus", "fat-tree"), np.ones((8, 2)), [[0.0, 1.0], [1.0, 0.0]], hypothetical=True
)
MOVING = replace(
    PROBLEM,
    names=("mesh/a", "mesh/b", "torus/a", "torus/b"),
    placements=("a", "b"),
    migration=Migration([[0.0, 1.0], [2.0, 0.0]], [[0.0, 0.5], [1.0, 0.0]], slowdown=0.25),
    demand=np.random.default_rng(0).random((200, 2)),
    demand_names=("x", "y"),
    metric=np.zeros(0),
)
PROBLEMS = {"plain": PROBLEM, "migration": MOVING}
ID = "topomoe/TopologySwitch-v0"


@pytest.mark.parametrize("observe", ["before", "after"])
@pytest.mark.parametrize("queue", [True, False])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_gymnasium_finds_nothing_to_warn_of(kind: str, observe: str, queue: bool) -> None:
    env = gymnasium.make(ID, problem=PROBLEMS[kind], observe=observe, queue=queue)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@pytest.mark.parametrize("kind", PROBLEMS)
def test_stable_baselines3_finds_nothing_to_warn_of(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env_sb3(TopologySwitchEnv(PROBLEMS[kind]), warn=True)


def test_without_a_problem_a_small_one_is_built_in() -> None:
    env = gymnasium.make(ID, render_mode="ansi")
    copies = gymnasium.make_vec(ID, num_envs=2, vectorization_mode="vector_entry_point")
    shape = (copies.reset(seed=0)[0].shape[1],)
    assert env.reset(seed=0)[0].shape == shape == copies.single_observation_space.shape
    info = env.step(1)[4]
    parts = ("dispatch", "compute", "combine", "other", "reconfiguration", "migration")
    assert sum(info[part] for part in parts) == pytest.approx(info["cost"])


@pytest.mark.parametrize("mode", [None, "vector_entry_point"])
def test_the_vector_entry_point_makes_copies(mode: str | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        copies = gymnasium.make_vec(ID, num_envs=3, vectorization_mode=mode, problem=PROBLEM)
    assert isinstance(copies, TopologySwitchVectorEnv)
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


def test_info_says_what_moving_experts_cost_and_between_which_placements() -> None:
    env = TopologySwitchEnv(MOVING)
    started = env.reset(options={"episode": 2})[1]
    named = {"configuration": "mesh/a", "topology": "mesh", "placement": "a"}
    assert started == {"epoch": 30, **named, "switching": "reachable"}
    _, reward, _, _, info = env.step(3)
    assert (info["topology"], info["placement"]) == ("torus", "b")
    network = MOVING.components["dispatch"][30, 2] + MOVING.components["combine"][30, 2]
    assert info["migration"] == pytest.approx(1.0 + 0.5 * 0.25 * network)
    assert info["compute"] == pytest.approx(MOVING.components["compute"][30, 2:].mean())
    parts = ("dispatch", "compute", "combine", "reconfiguration", "migration")
    assert sum(info[part] for part in parts) == pytest.approx(info["cost"])
    assert reward == pytest.approx(-info["cost"] / MOVING.scale)
    assert "other" not in info


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
    assert "migration 0 s" in line
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


def test_the_picture_of_a_scenario_is_its_grid_under_what_was_chosen() -> None:
    scenario = tiny_problem()
    env = TopologySwitchEnv(scenario, render_mode="rgb_array")
    assert env.problem is scenario.switching
    env.reset(options={"episode": 1})
    images = [env.render()]
    for action in (0, 1, len(scenario.cluster.placements)):
        env.reset(options={"episode": 1})
        env.step(action)
        images.append(env.render())
    shape = (4 * PITCH + MARGIN, 4 * PITCH + MARGIN, 3)
    for image in images:
        assert isinstance(image, np.ndarray)
        assert (image.shape, image.dtype) == (shape, np.uint8)
    assert len({image.tobytes() for image in images if image is not None}) >= 3


def test_the_cluster_picture_is_the_grid_picture_of_what_its_steps_put_on_it() -> None:
    scenario = tiny_problem()
    network = make("torus", grid=(4, 4), latency=0.0)
    count = scenario.cluster.pull.shape[-1]
    links = np.full((4, count, 2), -1, dtype=np.int32)
    links[:, : network.num_links] = network.links
    optical = np.zeros((4, count), dtype=np.bool_)
    optical[1, 5] = True
    cluster = replace(scenario.cluster, links=links, optical=optical)
    slots = cluster.slot_expert[2, 0]
    loads = step_loads(cluster, scenario.pool, 3, 1, slots)
    busy = loads.link_seconds.sum(axis=(0, 1))
    np.testing.assert_array_equal(
        cluster_picture(cluster, scenario.pool, np.array([3], np.int32), 1, slots),
        grid_picture(
            (4, 4),
            loads.device_tokens.sum(axis=0),
            np.delete(links[1], 5, axis=0),
            np.delete(busy, 5),
            links[1, 5:6],
            busy[5:6],
        ),
    )


def test_an_unknown_render_mode_is_refused() -> None:
    with pytest.raises(InputError, match="render_mode"):
        TopologySwitchEnv(PROBLEM, render_mode="human")


def test_one_environment_and_making_copies_load_no_learning_library_and_no_compiler() -> None:
    code = (
        "import sys; from topomoe.envs import *; p = phase_problem(epochs=9, episode_length=3); "
        "e = TopologySwitchEnv(p); e.reset(seed=0); e.step(1); TopologySwitchVectorEnv(2, p); "
        "names = ('torch', 'stable_baselines3', 'pandas', 'scipy', 'numba'); "
        "print([m for m in names if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
