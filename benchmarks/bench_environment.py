"""Speed of the switching environment, beside Stable-Baselines3's DummyVecEnv in the same run.

Eight configurations (two wirings with four placements, migration charged) and ten queue features.
Actions are drawn beforehand; all sides run in this process on one core, over whole episodes, resets
included. ``DummyVecEnv`` steps as many single environments one by one, Gymnasium's
``SyncVectorEnv`` likewise. ``extra_info`` holds environment steps (copies times epochs) per second
and how many times as fast as those two it is.

Run: ``OMP_NUM_THREADS=1 pytest benchmarks/bench_environment.py --benchmark-only``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from pytest_benchmark.fixture import BenchmarkFixture
from stable_baselines3.common.vec_env import DummyVecEnv

from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.sb3 import SB3VecEnv
from topomoe.envs.switching import TopologySwitchEnv
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
