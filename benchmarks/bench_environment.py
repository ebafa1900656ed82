"""Speed of the environments, beside Stable-Baselines3's DummyVecEnv in the same run.

Eight configurations (two wirings with four placements, migration charged) and ten queue features.
Actions are drawn beforehand; all sides run in this process on one core, over whole episodes, resets
included. ``DummyVecEnv`` steps as many single environments one by one, Gymnasium's
``SyncVectorEnv`` likewise. ``extra_info`` holds environment steps (copies times epochs) per second
and how many times as fast as those two it is.

Where placements move freely the clusters are the built-in one (16 devices) and the ``default``
scenario's (64 devices); actions are drawn evenly from the choices not masked, before each step and
off the clock, and rates are of this process's CPU time. ``cold``: the first 12 800 steps,
little being worked out yet of what is kept about the library; ``warm``: after ten times as many.

Run: ``OMP_NUM_THREADS=1 pytest benchmarks/bench_environment.py --benchmark-only``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pytest_benchmark.fixture import BenchmarkFixture
from stable_baselines3.common.vec_env import DummyVecEnv

from topomoe.envs.cluster import CoDesignProblem
from topomoe.envs.codesign_env import CoDesignEnv
from topomoe.envs.codesign_source import resolve_codesign
from topomoe.envs.codesign_vector import CoDesignVectorEnv, PlacementVectorEnv
from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.placement_env import PlacementEnv
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.envs.switching import TopologySwitchEnv
from topomoe.envs.tiny_cluster import tiny_problem
from topomoe.envs.vector import TopologySwitchVectorEnv

COUNT, FEATURES, LENGTH = 8, 10, 50
SIZES = (16, 128, 1024, 4096)
PEER_COPIES = 64  # their time a copy does not depend on how many there are


@lru_cache(maxsize=1)
def problem() -> SwitchingProblem:
    """Return the problem that is stepped."""
    plain = phase_problem(num_configurations=COUNT, epochs=5000, episode_length=LENGTH)
    random = np.random.default_rng(0)
    moves = random.random((2, 1, 4, 4)) * (1.0 - np.eye(4))
    return replace(
        plain,
        names=tuple(f"{topology}/{placement}" for topology in "ab" for placement in "pqrs"),
        placements=tuple("pqrs"),
        migration=Migration(*moves, 0.25),
        features=random.random((5000, FEATURES)),
        feature_names=tuple(f"feature {i}" for i in range(FEATURES)),
        metric=np.zeros(0),
    )


def run(env: Any, actions: Any) -> Callable[[], None]:
    """Return what steps a vector environment through a row of actions an epoch."""
    env.reset()

    def steps() -> None:
        for row in actions:
            env.step(row)

    return steps


def drawn(copies: int) -> Any:
    """Return the actions of two episodes, a row an epoch."""
    return np.random.default_rng(0).integers(COUNT, size=(2 * LENGTH, copies))


def best_rate(steps: Callable[[], None], copies: int, repeats: int = 3) -> float:
    """Return environment steps per second in the fastest of several runs."""
    steps()
    spent = []
    for _ in range(repeats):
        begin = time.perf_counter()
        steps()
        spent.append(time.perf_counter() - begin)
    return 2 * LENGTH * copies / min(spent)


@lru_cache(maxsize=2)
def cluster(name: str) -> CoDesignProblem:
    """Return the built-in problem, or a scenario's."""
    return tiny_problem() if name == "built-in" else resolve_codesign(scenario=name)


def free_rate(env: Any, copies: int, epochs: int) -> float:
    """Return environment steps per CPU-second over choices drawn from those there are."""
    random = np.random.default_rng(0)
    spent = 0.0
    for _ in range(epochs):
        if isinstance(env, DummyVecEnv):
            masks = np.stack(env.env_method("action_masks"))
            counts = env.action_space
        else:
            masks, counts = env.action_masks(), env.single_action_space
        sizes = counts.nvec.tolist() if hasattr(counts, "nvec") else [int(counts.n)]
        drawn = random.random(masks.shape) * masks
        ends = np.cumsum([0, *sizes])
        both = [drawn[:, a:b].argmax(axis=1) for a, b in pairwise(ends.tolist())]
        action = np.stack(both, axis=1) if len(both) > 1 else both[0]
        begin = time.process_time()
        env.step(action)
        spent += time.process_time() - begin
    return epochs * copies / spent


@lru_cache(maxsize=1)
def peers() -> dict[str, float]:
    """Return steps per second of single environments stepped one by one."""
    single = [lambda: TopologySwitchEnv(problem())] * PEER_COPIES
    made = {
        "DummyVecEnv": DummyVecEnv(single),
        "SyncVectorEnv": SyncVectorEnv(single, autoreset_mode=AutoresetMode.SAME_STEP),
    }
    actions = drawn(PEER_COPIES)
    return {name: best_rate(run(env, actions), PEER_COPIES) for name, env in made.items()}


def report(benchmark: BenchmarkFixture, env: Any, copies: int) -> None:
    """Time whole episodes and set the rate beside the peers'."""
    benchmark.pedantic(run(env, drawn(copies)), rounds=7, warmup_rounds=2)
    rate = 2 * LENGTH * copies / benchmark.stats.stats.min
    benchmark.extra_info["steps/s"] = round(rate)
    for name, slower in peers().items():
        benchmark.extra_info[f"{name} steps/s"] = round(slower)
        benchmark.extra_info[f"times as fast as {name}"] = round(rate / slower, 1)


@pytest.mark.parametrize("copies", SIZES)
def test_copies_on_arrays(benchmark: BenchmarkFixture, copies: int) -> None:
    """``TopologySwitchVectorEnv``, with all of Gymnasium's infos."""
    report(benchmark, TopologySwitchVectorEnv(copies, problem()), copies)


@pytest.mark.parametrize("copies", SIZES)
@pytest.mark.parametrize("infos", ["lean", "full"])
def test_the_sb3_adaptor(benchmark: BenchmarkFixture, copies: int, infos: str) -> None:
    """``SB3VecEnv``; ``full``: a dictionary for every copy and step, as DummyVecEnv makes."""
    if infos == "full" and copies > 1024:
        pytest.skip("full infos cost the same a copy")
    report(benchmark, SB3VecEnv(copies, problem(), infos=infos), copies)


def test_one_environment(benchmark: BenchmarkFixture) -> None:
    """``TopologySwitchEnv`` by itself, as an evaluation steps it."""
    env = TopologySwitchEnv(problem())
    actions = drawn(1)[:LENGTH, 0].tolist()

    def episode() -> None:
        env.reset()
        for action in actions:
            env.step(action)

    benchmark(episode)
    benchmark.extra_info["steps/s"] = round(LENGTH / benchmark.stats.stats.min)


@pytest.mark.parametrize("copies", [64, 256, 1024])
@pytest.mark.parametrize("scenario", ["built-in", "default"])
@pytest.mark.parametrize("made", [CoDesignVectorEnv, PlacementVectorEnv])
def test_placements_that_move_freely(
    benchmark: BenchmarkFixture, made: Any, scenario: str, copies: int
) -> None:
    """``CoDesignVectorEnv`` and ``PlacementVectorEnv``, with all of Gymnasium's infos."""
    env = made(copies, cluster(scenario))
    env.reset(seed=0)
    loaded = made(2, cluster(scenario))  # what is compiled is loaded off the clock
    loaded.reset(seed=0)
    free_rate(loaded, 2, 5)
    epochs = max(1, 12_800 // copies)
    benchmark.extra_info["cold steps/s"] = round(free_rate(env, copies, epochs))
    free_rate(env, copies, 10 * epochs)
    rates: list[float] = []
    benchmark.pedantic(lambda: rates.append(free_rate(env, copies, epochs)), rounds=3)
    benchmark.extra_info["warm steps/s"] = round(max(rates))
    if copies == PEER_COPIES:
        single = CoDesignEnv if made is CoDesignVectorEnv else PlacementEnv
        theirs = DummyVecEnv([lambda: single(cluster(scenario))] * copies)
        theirs.reset()
        free_rate(theirs, copies, 5)
        slower = free_rate(theirs, copies, 20)
        benchmark.extra_info["DummyVecEnv steps/s"] = round(slower)
        benchmark.extra_info["times as fast as DummyVecEnv"] = round(max(rates) / slower, 1)
