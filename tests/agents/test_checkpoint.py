from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from topomoe.agents.checkpoint import CHECKPOINT
from topomoe.agents.rl import train
from topomoe.agents.settings import DQNSettings, PPOSettings
from topomoe.envs.migration import Migration
from topomoe.envs.phases import phase_problem
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # what is forked must have one thread
FILES = ("agent.json", "learning_curve.csv", "policy.safetensors")

# One process imports the libraries, and forks a child for each training that is killed.
RUNNER = """
import dataclasses, json, os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import test_checkpoint as case
from topomoe.agents.rl import train

algorithm, kills, home = sys.argv[2], int(sys.argv[3]), sys.argv[4]

def run(folder, **changes):
    settings = dataclasses.replace(case.SHORT[algorithm], **changes)
    train(algorithm, case.TRAINING, settings, 5, validation=case.VALIDATION, folder=folder,
          resume=True, log=False)

def start(folder):
    child = os.fork()
    if child == 0:
        try:
            run(folder)
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    return child

def finish(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

run(f"{home}/warm-up", **{"dqn_timesteps" if algorithm == "dqn" else "timesteps": 1})
began = time.monotonic()
run(f"{home}/unbroken")
whole = time.monotonic() - began
moments, killed, resumed, number = random.Random(7), 0, 0, 0
while killed < kills or not resumed:
    folder = f"{home}/broken-{number}"
    number += 1
    while True:
        child = start(folder)
        if killed >= kills and resumed:
            finish(child)
            break
        time.sleep(moments.uniform(0.05, 0.7) * whole)
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        resumed += os.path.exists(f"{folder}/checkpoint.safetensors")
print(json.dumps({"killed": killed, "resumed": resumed, "folders": number}))
"""


def _moving_problem() -> SwitchingProblem:
    plain = phase_problem(num_configurations=4, epochs=600, episode_length=20, seed=2)
    return SwitchingProblem(
        names=("a/x", "a/y", "b/x", "b/y"),
        cost=plain.cost,
        switch_cost=plain.switch_cost,
        components=plain.components,
        features=plain.features,
        feature_names=plain.feature_names,
        episode_length=20,
        placements=("x", "y"),
        migration=Migration([[0, 0.2], [0.1, 0]], [[0, 0.5], [0.4, 0]], 0.3),  # type: ignore[arg-type]
    )


WHOLE = _moving_problem()
TRAINING, VALIDATION = WHOLE.part(0, 400), WHOLE.part(400, 600)
SHORT = {
    "ppo": PPOSettings(
        timesteps=12_288, copies=32, rollout=16, batch_size=256, hidden=(16,), checkpoint_every=1
    ),
    "maskable-ppo": PPOSettings(
        timesteps=4_096, copies=32, rollout=16, batch_size=256, hidden=(16,), checkpoint_every=2
    ),
    "dqn": DQNSettings(
        dqn_timesteps=8_192,
        dqn_copies=16,
        dqn_rollout=8,
        dqn_learning_starts=1024,
        dqn_buffer=4096,
        dqn_gradient_steps=4,
        dqn_batch_size=64,
        dqn_hidden=(16,),
        dqn_checkpoint_every=8,
    ),
}


@pytest.mark.parametrize(("algorithm", "kills"), [("ppo", 10), ("dqn", 4), ("maskable-ppo", 2)])
def test_a_training_killed_at_any_moment_and_resumed_ends_with_the_same_bytes(
    algorithm: str, kills: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", RUNNER, str(Path(__file__).parent), algorithm, str(kills)]
    run = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, check=False, env=ONE_THREAD
    )
    assert run.returncode == 0, run.stdout + run.stderr
    done = json.loads(run.stdout.splitlines()[-1])
    assert done["killed"] >= kills
    assert done["resumed"] > 0
    for number in range(done["folders"]):
        folder = tmp_path / f"broken-{number}"
        assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
        for file in FILES:
            assert (folder / file).read_bytes() == (tmp_path / "unbroken" / file).read_bytes()


class _Stop(Exception):
    pass


def _interrupted(
    folder: Path, after: int = 4096, algorithm: str = "ppo", log: bool = False
) -> Path:
    """Train until ``after`` timesteps and stop there, as a kill would."""

    def stop(done: int, total: int) -> None:
        if done >= after:
            raise _Stop

    with pytest.raises(_Stop):
        train(algorithm, TRAINING, SHORT[algorithm], 5, stop, VALIDATION, folder=folder, log=log)
    return folder / CHECKPOINT


def _resume(folder: Path, **changes: object) -> None:
    given = {"settings": SHORT["ppo"], "seed": 5, "validation": VALIDATION, "log": False}
    train("ppo", TRAINING, folder=folder, resume=True, **(given | changes))  # type: ignore[arg-type]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    _interrupted(tmp_path)
    other = PPOSettings(**{**SHORT["ppo"].__dict__, "gamma": 0.5})
    for change in ({"seed": 6}, {"settings": other}, {"validation": None}, {"queue": False}):
        with pytest.raises(InputError, match="another") as caught:
            _resume(tmp_path, **change)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "another file", "a part gone"])
def test_a_damaged_checkpoint_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    path = _interrupted(tmp_path)
    content = path.read_bytes()
    arrays = load(content)
    arrays.pop("last.observation")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    path.write_bytes(
        {
            "truncated": content[:-100],
            "garbage": b"\x80\x04cos\nsystem\n" * 9,
            "empty": b"",
            "another file": save({"x": np.zeros(3)}),
            "a part gone": save(arrays, header),
        }[damage]
    )
    with pytest.raises(InputError, match=r"checkpoint\.safetensors") as caught:
        _resume(tmp_path)
    assert "\n" not in str(caught.value)


def test_without_resume_a_training_starts_anew_and_gives_the_same(tmp_path: Path) -> None:
    _interrupted(tmp_path / "a")
    train("ppo", TRAINING, SHORT["ppo"], 5, None, VALIDATION, folder=tmp_path / "a", log=False)
    train("ppo", TRAINING, SHORT["ppo"], 5, None, VALIDATION, folder=tmp_path / "b", log=False)
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    train("maskable-ppo", TRAINING, SHORT["maskable-ppo"], 5, folder=tmp_path, log=False)
    (tmp_path / ".agent.json.77.part").write_text("half")

    def never(done: int, total: int) -> None:
        raise AssertionError("trained again")

    train("maskable-ppo", TRAINING, SHORT["maskable-ppo"], 5, never, folder=tmp_path, resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_the_log_of_a_resumed_training_has_every_step_once(tmp_path: Path) -> None:
    _interrupted(tmp_path, after=6144, log=True)
    _resume(tmp_path, log=True)
    lines = (tmp_path / "progress.csv").read_text().splitlines()
    steps = [
        int(line.split(",")[lines[0].split(",").index("time/total_timesteps")])
        for line in lines[1:]
    ]
    assert steps == list(range(512, 12_288 + 1, 512))
    assert len({len(line.split(",")) for line in lines}) == 1
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
