"""topomoe train and evaluate: what they write, that runs repeat and resume to the same bytes."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from topomoe import cli

Call = Callable[..., tuple[int | str | None, str, str]]

SCENARIO = (
    "--model mixtral-8x7b --grid 2x4 --topologies mesh,torus --layouts 'decode 8' --layers 2 "
    "--pool 4 --draws 2 --epochs 300 --test-epochs 60 --episode-length 20 --decode-tokens 64 "
    "--prefill-tokens 64 --placements mix,domains --synthetic-requests 24"
)
PPO = "--timesteps 2048 --copies 16 --batch-size 128 --hidden 8 --candidates 2"
VALUES = "--features linear --ridge 0.1 --horizons 8 --margins 1"
AGENTS = "never-switch,static-best,random,greedy,hysteresis,clairvoyant"
# The command line without figures, which draw the same table whatever made it.
NO_FIGURES = """
import sys
from topomoe import cli
cli.draw = lambda folder: []
cli.main()
"""


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", **changes}


def process(words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh interpreter, without figures."""
    return subprocess.run(
        [sys.executable, "-c", NO_FIGURES, *shlex.split(words)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(**changes),
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all that must be the same in runs that are the same."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        timed = path.name in ("timing.csv", "progress.csv") or "tensorboard" in name
        if path.is_file() and not timed and not name.startswith("figures"):
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip figures where a test is about the results."""
    monkeypatch.setattr(cli, "draw", lambda folder: [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, topomoe: Call) -> Path:
    """A run folder of topomoe train of two seeds, with figures."""
    folder = tmp_path_factory.mktemp("trained") / "ppo"
    words = f"train {SCENARIO} {PPO} --seeds 2 --processes 1 --out {folder}"
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    assert f"agent: {folder} (reachable configurations)" in out
    assert "training CPU s" in out
    return folder


def test_a_training_keeps_its_agents_their_curves_and_what_made_them(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.toml",
        "results.parquet",
        "results.csv",
        "seed-0",
        "seed-1",
        "figures",
    }
    agent = {"agent.json", "policy.safetensors", "learning_curve.csv", "timing.csv"}
    assert agent <= {path.name for path in (trained / "seed-1").iterdir()}
    config = tomllib.loads((trained / "config.toml").read_text())
    assert config["run"]["kind"] == "train"
    assert len(config["run"]["training_sha256"]) == 64
    assert config["problem"]["epochs"] == 300
    assert config["learner"]["timesteps"] == 2048
    assert "torch" in config["versions"]
    results = pd.read_parquet(trained / "results.parquet")
    assert set(results["record"]) == {"curve", "validation"}
    assert set(results["seed"]) == {0, 1}
    validated = results[results["record"] == "validation"]
    assert (validated["ratio_to_clairvoyant"] >= 1 - 1e-12).all()


@pytest.mark.usefixtures("no_figures")
def test_seeds_in_processes_of_their_own_train_to_the_same_bytes(
    trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "apart"
    done = process(
        f"train {SCENARIO} {PPO} --seeds 2 --processes 2 --out {folder}", PYTHONHASHSEED="7"
    )
    assert done.returncode == 0, done.stderr
    assert contents(folder) == contents(trained)


@pytest.mark.usefixtures("no_figures")
def test_a_training_that_lost_its_results_takes_up_the_agents_that_are_there(
    topomoe: Call, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(trained, folder)
    (folder / "results.parquet").unlink()
    kept = (folder / "seed-0" / "policy.safetensors").stat().st_mtime_ns
    words = f"train {SCENARIO} {PPO} --seeds 2 --out {folder} --resume"
    assert topomoe(*shlex.split(words))[0] == 0
    assert (folder / "seed-0" / "policy.safetensors").stat().st_mtime_ns == kept
    assert contents(folder) == contents(trained)


LONGER = f"train {SCENARIO} {PPO.replace('2048', '8192')} --checkpoint-every 2 --processes 1"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a training that has checkpoints, never killed."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = process(f"{LONGER} --out {folder}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("checkpoints", [1, 3])
def test_a_killed_training_resumes_to_the_same_bytes(
    topomoe: Call, uninterrupted: Path, tmp_path: Path, checkpoints: int
) -> None:
    killed = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-c", NO_FIGURES, *shlex.split(f"{LONGER} --out {killed}")],
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    checkpoint = killed / "seed-0" / "checkpoint.safetensors"
    seen: set[int] = set()
    end = time.monotonic() + 120
    while len(seen) < checkpoints and child.poll() is None and time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            seen.add(checkpoint.stat().st_mtime_ns)
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert checkpoint.is_file()
    assert not (killed / "results.parquet").exists()
    status, _, err = topomoe(*shlex.split(f"{LONGER} --out {killed}"))
    assert status == 2
    assert "--resume continues it" in err
    assert topomoe(*shlex.split(f"{LONGER} --out {killed} --resume"))[0] == 0
    assert contents(killed) == contents(uninterrupted)


@pytest.mark.usefixtures("no_figures")
def test_processes_of_a_killed_training_do_not_stay_behind(tmp_path: Path) -> None:
    long = PPO.replace("2048", "50000000")
    words = f"train {SCENARIO} {long} --seeds 2 --processes 2 --out {tmp_path / 'run'}"
    child = subprocess.Popen(
        [sys.executable, "-c", NO_FIGURES, *shlex.split(words)],
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    if not children.parent.exists():
        child.kill()
        pytest.skip("no /proc to see processes in")
    started: set[Path] = set()
    end = time.monotonic() + 120
    while len(started) < 2 and child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
        pids = [Path(f"/proc/{pid}") for pid in children.read_text().split()]
        started = {pid for pid in pids if b"spawn_main" in (pid / "cmdline").read_bytes()}
    child.kill()
    child.wait()
    assert len(started) == 2
    while any(pid.exists() for pid in started) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(pid.exists() for pid in started)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, topomoe: Call, trained: Path) -> Path:
    """A run folder of topomoe evaluate over three held-out timelines, with figures."""
    folder = tmp_path_factory.mktemp("compared") / "run"
    words = f"evaluate --agents {AGENTS},{trained} --seeds 3 --out {folder}"
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    assert f"note: {trained} holds 2 trained seeds for 3 timelines: they take turns\n" in err
    assert out.startswith("default: held-out episodes, reachable configurations, best online rule")
    for agent in (*AGENTS.split(","), str(trained)):
        assert agent in out
    return folder


def test_an_evaluation_has_a_row_for_every_agent_seed_and_episode(
    compared: Path, trained: Path
) -> None:
    results = pd.read_parquet(compared / "results.parquet")
    assert set(results["record"]) == {"episode", "summary", "timeline", "traffic", "curve"}
    episodes = results[results["record"] == "episode"]
    names = [*AGENTS.split(","), str(trained)]
    assert list(dict.fromkeys(episodes["agent"])) == names
    assert set(episodes["scenario"]) == {"default"}
    keys = episodes[["agent", "seed", "episode"]].drop_duplicates()
    assert len(keys) == len(episodes) == len(names) * 3 * 3
    assert (episodes["ratio_to_clairvoyant"] >= 1 - 1e-12).all()
    assert (episodes["ratio_to_bound"] >= 1 - 1e-12).all()
    parts = ["dispatch_s", "compute_s", "combine_s", "other_s", "reconfiguration_s", "migration_s"]
    np.testing.assert_allclose(episodes[parts].sum(axis=1), episodes["cost"])
    assert (episodes["step_p50_s"] <= episodes["step_p99_s"]).all()
    summary = results[results["record"] == "summary"].set_index("agent")
    assert summary.loc["never-switch", "ratio_to_never_switch"] == 1.0
    assert summary.loc["never-switch", "switches_per_100_epochs"] == 0.0
    assert list(pd.read_csv(compared / "results.csv").columns) == list(results.columns)
    times = pd.read_csv(compared / "timing.csv").set_index("agent")
    assert list(times.index) == names
    assert (times["decision_us"] > 0).all()
    assert times.loc[str(trained), "training_cpu_s"] > 0


def test_the_scenario_of_an_evaluation_is_that_of_the_trained_folder(
    compared: Path, trained: Path
) -> None:
    written = [tomllib.loads((run / "config.toml").read_text()) for run in (compared, trained)]
    assert written[0]["run"]["scenarios"]["default"] == written[1]["problem"]


def test_plot_redraws_an_evaluation(compared: Path, topomoe: Call) -> None:
    drawn = sorted((compared / "figures").iterdir())
    assert drawn
    for path in drawn:
        path.unlink()
    status, out, _ = topomoe("plot", compared)
    assert status == 0
    assert sorted(Path(line) for line in out.split()) == drawn
    assert sorted((compared / "figures").iterdir()) == drawn


def test_an_evaluation_has_the_same_bytes_whatever_the_hash_seed(
    compared: Path, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    words = f"evaluate --agents {AGENTS},{trained} --seeds 3 --out {folder}"
    done = process(words, PYTHONHASHSEED="11")
    assert done.returncode == 0, done.stderr
    assert contents(folder) == contents(compared)


@pytest.mark.usefixtures("no_figures")
def test_an_evaluation_runs_again_from_its_config(
    compared: Path, topomoe: Call, tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    assert topomoe("evaluate", "--config", compared / "config.toml", "--out", folder)[0] == 0
    assert contents(folder) == contents(compared)


@pytest.mark.usefixtures("no_figures")
def test_a_timeline_of_a_seed_does_not_depend_on_how_many_there_are(
    topomoe: Call, compared: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    words = f"evaluate --agents greedy,never-switch --seeds 1 {SCENARIO} --out {folder}"
    status, _, err = topomoe(*shlex.split(words))
    assert status == 0, err
    one, three = (pd.read_parquet(run / "results.parquet") for run in (folder, compared))

    def costs(results: pd.DataFrame) -> list[float]:
        own = results["agent"].eq("greedy") & results["record"].eq("episode")
        return list(results.loc[own & results["seed"].eq(0), "cost"])

    assert costs(one) == costs(three)


@pytest.mark.usefixtures("no_figures")
def test_an_agent_is_left_out_of_scenarios_it_does_not_fit(
    topomoe: Call, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "two"
    words = f"--agents never-switch,greedy,{trained} --seeds 1 --scenario default,hard"
    status, out, err = topomoe(*shlex.split(f"evaluate {words} {SCENARIO} --out {folder}"))
    assert status == 0, err
    assert f"note: left out: {trained} on scenario hard: the agent was trained on another" in err
    assert "\nhard: held-out episodes" in out
    results = pd.read_parquet(folder / "results.parquet")
    rows = results[results["record"] == "summary"]
    assert list(rows["scenario"]) == ["default"] * 3 + ["hard"] * 2


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("agent", ["fitted-q", "hindsight"])
def test_learners_from_full_information_are_trained_and_evaluated(
    topomoe: Call, tmp_path: Path, agent: str
) -> None:
    folder, compared = tmp_path / agent, tmp_path / "compared"
    status, _, err = topomoe(
        *shlex.split(f"train --agent {agent} {SCENARIO} {VALUES} --out {folder}")
    )
    assert status == 0, err
    words = f"evaluate --agents {folder},hysteresis --seeds 1 --out {compared}"
    status, _, err = topomoe(*shlex.split(words))
    assert status == 0, err
    again = tmp_path / "again"
    assert process(f"train --agent {agent} {SCENARIO} {VALUES} --out {again}").returncode == 0
    assert contents(again) == contents(folder)


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize(
    "words",
    [
        f"--agent maskable-ppo {PPO}",
        f"--agent ppo {PPO} --warm-start hindsight",
        "--agent dqn --dqn-timesteps 1024 --dqn-copies 16 --dqn-learning-starts 128 "
        "--dqn-batch-size 32 --dqn-hidden 8 --no-queue",
    ],
)
def test_every_learner_by_reinforcement_trains_from_the_command_line(
    topomoe: Call, tmp_path: Path, words: str
) -> None:
    folder = tmp_path / "run"
    status, _, err = topomoe(*shlex.split(f"train {words} {SCENARIO} --out {folder}"))
    assert status == 0, err
    validated = pd.read_parquet(folder / "results.parquet").query("record == 'validation'")
    assert len(validated) == 3


@pytest.mark.usefixtures("no_figures")
def test_switching_between_fabrics_is_marked_hypothetical_wherever_it_is_shown(
    topomoe: Call, tmp_path: Path
) -> None:
    fabrics = f"{SCENARIO} --library fabrics --topologies mesh,fat-tree"
    folder, compared = tmp_path / "fabrics", tmp_path / "compared"
    status, out, err = topomoe(*shlex.split(f"train {fabrics} {PPO} --out {folder}"))
    assert status == 0, err
    assert "(hypothetical configurations)" in out
    words = f"evaluate --agents rotor,{folder} --seeds 1 --out {compared}"
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    assert out.startswith("default: held-out episodes, hypothetical configurations")
    for run in (folder, compared):
        results = pd.read_parquet(run / "results.parquet")
        assert set(results["switching"]) == {"hypothetical"}
    config = tomllib.loads((compared / "config.toml").read_text())
    assert config["run"]["scenarios"]["default"]["library"] == "fabrics"


@pytest.mark.usefixtures("no_figures")
def test_an_agent_is_evaluated_on_another_scenario_of_the_same_configurations(
    topomoe: Call, trained: Path, tmp_path: Path
) -> None:
    words = f"evaluate --agents greedy,{trained} --seeds 1 --phase-epochs 5 --draws 3"
    status, _, err = topomoe(*shlex.split(f"{words} --out {tmp_path / 'other'}"))
    assert status == 0, err
    changed = "which differs from default in phase_epochs, draws"
    assert f"note: {trained} was trained on scenario default, {changed}\n" in err


@pytest.mark.usefixtures("no_figures")
def test_what_a_killed_training_was_writing_is_no_foreign_file(
    topomoe: Call, trained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".config.toml.77.part").write_text("[run]")
    words = f"train {SCENARIO} {PPO} --seeds 2 --processes 1 --out {folder} --resume"
    status, _, err = topomoe(*shlex.split(words))
    assert status == 0, err
    assert contents(folder) == contents(trained)
