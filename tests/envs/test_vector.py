from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from topomoe.envs.phases import phase_problem
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.envs.vector import TopologySwitchVectorEnv
from topomoe.topologies.errors import InputError

PROBLEM = phase_problem(epochs=90, episode_length=7, seed=4)
COPIES, STEPS = 5, 40


def actions() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(4, size=(STEPS, COPIES))


def same(first: Any, second: Any) -> None:
    """Same keys and values, however deep; what a mask leaves out is not compared."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            mask = first.get(f"_{key}")
            if isinstance(mask, np.ndarray) and not isinstance(first[key], dict):
                same(list(first[key][mask]), list(second[key][mask]))
            else:
                same(first[key], second[key])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("observe", ["before", "after"])
def test_the_copies_are_those_of_gymnasiums_own_vector_environment(observe: str) -> None:
    ours = TopologySwitchVectorEnv(COPIES, PROBLEM, observe)
    theirs = SyncVectorEnv(
        [lambda: TopologySwitchEnv(PROBLEM, observe)] * COPIES,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    assert ours.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    for one, other in zip(ours.reset(seed=9), theirs.reset(seed=9), strict=True):
        same(one, other)
    endings = 0
    for row in actions():
        mine, reference = ours.step(row), theirs.step(row)
        for one, other in zip(mine, reference, strict=True):
            same(one, other)
        endings += int(mine[2].sum())
    assert endings == COPIES * (STEPS // 7)


def test_the_sb3_adaptor_is_dummy_vec_env_over_the_single_environment() -> None:
    ours = SB3VecEnv(COPIES, PROBLEM)
    theirs = DummyVecEnv([lambda: TopologySwitchEnv(PROBLEM)] * COPIES)
    for env in (ours, theirs):
        env.seed(11)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    assert ours.reset_infos == theirs.reset_infos
    returns = np.zeros(COPIES)
    endings = 0
    for row in actions():
        observation, reward, done, infos = ours.step(row)
        expected = theirs.step(row)
        np.testing.assert_array_equal(observation, expected[0])
        np.testing.assert_array_equal(reward, expected[1])
        np.testing.assert_array_equal(done, expected[2])
        assert reward.dtype == np.float32
        assert ours.reset_infos == theirs.reset_infos
        returns += reward
        for copy in range(COPIES):
            logged = infos[copy].pop("episode", None)
            last = infos[copy].pop("terminal_observation", None)
            wanted = expected[3][copy].pop("terminal_observation", None)
            assert infos[copy] == expected[3][copy]
            assert (last is None) == (wanted is None) == (not done[copy])
            if done[copy]:
                endings += 1
                np.testing.assert_array_equal(last, wanted)
                assert logged["l"] == 7
                assert logged["r"] == pytest.approx(returns[copy], rel=1e-6)
                returns[copy] = 0.0
    assert endings > 0


def test_options_name_the_episode_of_each_copy() -> None:
    ours = SB3VecEnv(3, PROBLEM)
    ours.set_options([{"episode": 2}, {"episode": 0}, {"episode": 5}])
    ours.reset()
    assert [info["epoch"] for info in ours.reset_infos] == [14, 0, 35]
    copies = TopologySwitchVectorEnv(2, PROBLEM)
    assert copies.reset(options={"episode": 4})[1]["epoch"].tolist() == [28, 28]
    with pytest.raises(InputError, match="options"):
        copies.reset(options={"episdoe": 4})


def test_masks_are_read_as_maskable_ppo_reads_them() -> None:
    copies = SB3VecEnv(3, PROBLEM)
    assert copies.has_attr("action_masks")
    assert np.stack(copies.env_method("action_masks")).all()
    assert np.stack(copies.env_method("action_masks", indices=[1])).shape == (1, 4)


def test_bad_actions_and_bad_sizes_are_refused() -> None:
    copies = TopologySwitchVectorEnv(2, PROBLEM)
    with pytest.raises(InputError, match="reset"):
        copies.step(np.array([0, 0]))
    copies.reset(seed=0)
    with pytest.raises(InputError, match="action"):
        copies.step(np.array([0, 4]))
    with pytest.raises(InputError, match="seed"):
        copies.reset(seed=[1, 2, 3])
    with pytest.raises(InputError, match="num_envs"):
        TopologySwitchVectorEnv(0, PROBLEM)
    with pytest.raises(InputError, match="cannot set"):
        SB3VecEnv(1, PROBLEM).set_attr("problem", None)
