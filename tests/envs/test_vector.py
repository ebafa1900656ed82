from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.envs.vector import TopologySwitchVectorEnv
from topomoe.topologies.errors import InputError

PROBLEM = phase_problem(epochs=90, episode_length=7, seed=4)
MOVING = replace(
    PROBLEM,
    names=("mesh/a", "mesh/b", "torus/a", "torus/b"),
    placements=("a", "b"),
    migration=Migration(*np.random.default_rng(5).random((2, 90, 2, 2)), 0.3),
    demand=np.random.default_rng(6).normal(size=(90, 3)),
    demand_names=("x", "y", "z"),
    metric=np.zeros(0),
)
DEAR = replace(PROBLEM, scale=1e-4, prior=PROBLEM.prior)  # relative costs beyond the limit
PROBLEMS = {"plain": PROBLEM, "migration": MOVING, "dear": DEAR}
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
@pytest.mark.parametrize("queue", [True, False])
@pytest.mark.parametrize("kind", PROBLEMS)
def test_the_copies_are_those_of_gymnasiums_own_vector_environment(
    kind: str, observe: str, queue: bool
) -> None:
    problem = PROBLEMS[kind]
    ours = TopologySwitchVectorEnv(COPIES, problem, observe, queue)
    theirs = SyncVectorEnv(
        [lambda: TopologySwitchEnv(problem, observe, queue)] * COPIES,
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


@pytest.mark.parametrize("kind", ["plain", "migration"])
def test_the_sb3_adaptor_is_dummy_vec_env_over_the_single_environment(kind: str) -> None:
    problem = PROBLEMS[kind]
    ours = SB3VecEnv(COPIES, problem, infos="full")
    theirs = DummyVecEnv([lambda: TopologySwitchEnv(problem)] * COPIES)
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
        for number in range(COPIES):
            logged = infos[number].pop("episode", None)
            last = infos[number].pop("terminal_observation", None)
            wanted = expected[3][number].pop("terminal_observation", None)
            assert infos[number] == expected[3][number]
            assert (last is None) == (wanted is None) == (not done[number])
            if done[number]:
                endings += 1
                np.testing.assert_array_equal(last, wanted)
                assert logged["l"] == 7
                assert logged["r"] == pytest.approx(returns[number], rel=1e-6)
                returns[number] = 0.0
    assert endings > 0


def test_lean_infos_tell_only_of_episodes_that_ended_and_nothing_else_differs() -> None:
    lean, full = SB3VecEnv(COPIES, MOVING), SB3VecEnv(COPIES, MOVING, infos="full")
    for env in (lean, full):
        env.seed(3)
    np.testing.assert_array_equal(lean.reset(), full.reset())
    endings = 0
    for row in actions():
        mine, wanted = lean.step(row), full.step(row)
        for one, other in zip(mine[:3], wanted[:3], strict=True):
            np.testing.assert_array_equal(one, other)
        assert lean.reset_infos == full.reset_infos
        np.testing.assert_array_equal(lean.epochs, [info["epoch"] for info in wanted[3]])
        for done, one, other in zip(mine[2], mine[3], wanted[3], strict=True):
            endings += done
            assert one.keys() == (other.keys() if done else set())
            if done:
                last = one.pop("terminal_observation")
                np.testing.assert_array_equal(last, other.pop("terminal_observation"))
                assert one == other
                assert (one["episode"]["l"], one["TimeLimit.truncated"]) == (7, False)
            else:
                with pytest.raises(TypeError):
                    one["epoch"] = 0
    assert endings > 0


def test_the_adaptor_takes_any_vector_environment_that_resets_in_the_same_step() -> None:
    wrapped, made = SB3VecEnv.of(TopologySwitchVectorEnv(3, PROBLEM)), SB3VecEnv(3, PROBLEM)
    for env in (wrapped, made):
        env.seed(1)
    np.testing.assert_array_equal(wrapped.reset(), made.reset())
    for one, other in zip(wrapped.step(np.ones(3, int)), made.step(np.ones(3, int)), strict=True):
        same(list(one), list(other))
    with pytest.raises(InputError, match="reset in the step"):
        SB3VecEnv.of(SyncVectorEnv([lambda: TopologySwitchEnv(PROBLEM)]))


class Cut(TopologySwitchVectorEnv):
    """Episodes that are cut off where they would end."""

    def step(self, actions: Any) -> Any:
        observation, reward, ended, _, infos = super().step(actions)
        return observation, reward, np.zeros_like(ended), ended, infos


def test_an_episode_that_was_cut_off_says_so() -> None:
    env = SB3VecEnv.of(Cut(2, PROBLEM))
    env.seed(1)
    env.reset()
    for _ in range(7):
        _, _, done, infos = env.step(np.zeros(2, dtype=np.int64))
    assert done.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True, True]


def test_steps_given_out_stay_as_they_were() -> None:
    copies = TopologySwitchVectorEnv(COPIES, MOVING)
    given: list[Any] = list(copies.reset(seed=2))
    for row in actions()[:3]:
        given += copies.step(row)
    before = copy.deepcopy(given)
    for row in actions():
        copies.step(row)
    for one, other in zip(given, before, strict=True):
        same(one, other)


@pytest.mark.parametrize("done", [0, 3, 7, 16])
def test_copies_continue_from_a_state_as_if_nothing_had_happened(done: int) -> None:
    rows = actions()
    first = SB3VecEnv(COPIES, MOVING)
    first.seed(8)
    first.reset()
    for row in rows[:done]:
        first.step(row)
    with io.BytesIO() as file:
        np.savez(file, allow_pickle=False, **first.state_dict())
        file.seek(0)
        with np.load(file, allow_pickle=False) as stored:
            state = dict(stored)
    second = SB3VecEnv(COPIES, MOVING)
    second.load_state_dict(state)
    for name, array in first.state_dict().items():
        np.testing.assert_array_equal(second.state_dict()[name], array)
    for row in rows[done:]:
        for one, other in zip(first.step(row)[:3], second.step(row)[:3], strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(first.epochs, second.epochs)
    mine, wanted = second.state_dict(), first.state_dict()
    assert all(np.array_equal(mine[name], wanted[name]) for name in wanted)


def test_a_state_of_other_copies_is_refused_by_name() -> None:
    copies = SB3VecEnv(3, PROBLEM)
    with pytest.raises(InputError, match="reset"):
        copies.state_dict()
    copies.seed(0)
    copies.reset()
    state = copies.state_dict()
    wrong: dict[str, Any] = {
        "start": np.array([0, 0, 84]),
        "done": np.array([0, -1, 0]),
        "configuration": np.array([0, 4, 0]),
        "average": np.full((3, 4), np.nan),
        "generators": np.zeros((3, 6), dtype=np.uint64),
        "returns": np.zeros(2),
        "observation": np.zeros((3, 4), dtype=np.float32),
    }
    for name, array in wrong.items():
        with pytest.raises(InputError, match=name):
            copies.load_state_dict({**state, name: array})
        with pytest.raises(InputError, match=name):
            copies.load_state_dict({key: one for key, one in state.items() if key != name})
    with pytest.raises(InputError, match="hold"):
        copies.load_state_dict({**state, "more": np.zeros(3)})
    copies.load_state_dict(state)


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
    with pytest.raises(InputError, match="'lean'"):
        SB3VecEnv(1, PROBLEM, infos="leen")
    with pytest.raises(InputError, match="cannot set"):
        SB3VecEnv(1, PROBLEM).set_attr("problem", None)
