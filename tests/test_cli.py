"""The commands on small inputs: what they print and write, and that runs repeat and resume."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import topomoe as tm
from topomoe import cli

Call = Callable[..., tuple[int | str | None, str, str]]
COMMANDS = (
    "study",
    "simulate",
    "network",
    "place",
    "placements",
    "trace",
    "train",
    "evaluate",
    "delays",
    "decisions",
    "routers",
    "plot",
    "report",
)
HEAVY = ("scipy", "networkx", "torch", "matplotlib", "numba", "pandas", "pyarrow")

STEPS = (
    "--model mixtral-8x7b --grid 2x4 --slots 16 --batches 4 --batch-tokens 128 "
    "--synthetic-requests 8"
)
STUDY = f"{STEPS} --resamples 2 --pattern-draws 3"
# The command line without figures and report, which draw the same table whatever made it.
NO_FIGURES = """
import sys
from topomoe import cli
cli.redraw = lambda folder: None
cli.main()
"""


def process(code: str, words: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh interpreter with these words as its command line."""
    return subprocess.run(
        [sys.executable, "-c", code, *shlex.split(words)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip figures and reports where a test is about the results."""
    monkeypatch.setattr(cli, "redraw", lambda folder: None)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory, topomoe: Call) -> Path:
    """A folder of traces that topomoe trace wrote."""
    folder = tmp_path_factory.mktemp("traces") / "mixtral"
    words = f"trace --synthetic mixtral-8x7b --requests 8 --positions 24 --seed 1 --out {folder}"
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    assert "8 requests" in out
    assert f"trace: {folder}" in out
    return folder


def test_help_and_import_load_nothing_heavy() -> None:
    code = f"""
import sys
from topomoe import cli
try:
    cli.main()
except SystemExit as exit:
    print("status", exit.code)
print("loaded", [name for name in {HEAVY!r} if name in sys.modules])
"""
    done = process(code, "--help")
    assert "status 0" in done.stdout, done.stderr
    assert "loaded []" in done.stdout
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\s", done.stdout, re.MULTILINE), command


def test_no_command_prints_the_help(topomoe: Call) -> None:
    assert topomoe() == topomoe("--help")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example_of_known_flags(command: str, topomoe: Call) -> None:
    status, out, err = topomoe(command, "--help")
    assert (status, err) == (0, "")
    example = re.search(rf"^\s*topomoe {command} (.+)$", out, re.MULTILINE)
    assert example, out
    for flag in re.findall(r"--[a-z-]+", example[1]):
        assert re.search(rf"^\s+{flag}\b", out, re.MULTILINE), flag


def test_the_exit_status_of_the_process_is_that_of_the_outcome(tmp_path: Path) -> None:
    code = "from topomoe.cli import main; main()"
    bad = process(code, f"study --grid 16 --out {tmp_path / 'out'}")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr == "topomoe: grid must be rows x columns such as 16x8, got '16'\n"
    good = process(code, "trace --synthetic mixtral-8x7b --requests 2 --positions 8")
    assert good.returncode == 0, good.stderr
    assert "\x1b" not in good.stdout  # plain text where the output is not a terminal


def test_a_failure_is_status_1_and_one_line(topomoe: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("on\ntwo lines")

    monkeypatch.setattr(cli, "merge", broken)
    monkeypatch.delenv("TOPOMOE_DEBUG", raising=False)
    status, _, err = topomoe("study")
    assert status == 1
    assert err == "topomoe: RuntimeError: on two lines (TOPOMOE_DEBUG=1 shows where)\n"
    monkeypatch.setenv("TOPOMOE_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["topomoe", "study"])
    with pytest.raises(RuntimeError):
        cli.main()


def test_study_writes_config_results_figures_tables_and_report(
    topomoe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "study"
    chosen = "--topologies leaf-spine,torus,optical --placements contiguous,exact"
    status, out, err = topomoe(*shlex.split(f"study {STUDY} {chosen} --out {folder}"))
    assert status == 0, err
    assert f"report: {folder / 'report.html'}" in out
    assert err == "note: synthetic: drawn with seed 0, not captured from a model\n"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.toml",
        "results.parquet",
        "results.csv",
        "figures",
        "tables",
        "report.html",
    }
    results = pd.read_parquet(folder / "results.parquet")
    summary = results[results["record"] == "summary"]
    assert set(summary["topology"]) == {"leaf-spine", "torus", "optical"}
    assert set(summary["placement"]) == {"contiguous", "exact"}
    assert (summary["network_bound_s"] <= summary["dispatch_s"] + summary["combine_s"]).all()
    assert len(pd.read_csv(folder / "results.csv")) == len(results)
    for ending, place in (("png", "figures"), ("pdf", "figures"), ("md", "tables")):
        assert list((folder / place).glob(f"*.{ending}")), ending
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["run"]["kind"] == "study"
    assert config["workload"]["batches"] == 4
    assert config["seed"] == 0
    assert config["versions"]["numpy"] == np.__version__

    written = [*(folder / "tables").iterdir(), folder / "report.html"]
    before = {path: path.read_bytes() for path in written}
    for path in before:
        path.unlink()
    monkeypatch.setattr(cli, "draw", lambda folder: [])  # figures again: seconds
    assert topomoe("report", folder)[0] == 0
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.usefixtures("no_figures")
def test_study_reads_a_trace_and_its_own_config(
    topomoe: Call, traces: Path, tmp_path: Path
) -> None:
    few = f"{STUDY} --model '' --topologies mesh,torus --placements exact"
    first, second = tmp_path / "first", tmp_path / "second"
    assert topomoe(*shlex.split(f"study {few} --trace {traces} --out {first}"))[0] == 0
    words = f"study --config {first / 'config.toml'} --out {second}"
    assert topomoe(*shlex.split(words))[0] == 0
    for name in ("config.toml", "results.parquet", "results.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    # Again, with one thing changed, in place of the first.
    stranger = first / "notes.txt"
    stranger.write_text("mine")
    words = f"study --config {first / 'config.toml'} --seed 1 --out {first} --overwrite"
    assert topomoe(*shlex.split(words))[0] == 0
    assert tomllib.loads((first / "config.toml").read_text())["seed"] == 1
    assert (first / "results.csv").read_bytes() != (second / "results.csv").read_bytes()
    assert stranger.read_text() == "mine"


@pytest.mark.usefixtures("no_figures")
def test_resuming_a_finished_study_leaves_its_results(topomoe: Call, tmp_path: Path) -> None:
    words = f"study {STUDY} --topologies mesh --placements contiguous --out {tmp_path / 'run'}"
    assert topomoe(*shlex.split(words))[0] == 0
    before = (tmp_path / "run" / "results.parquet").stat()
    assert topomoe(*shlex.split(f"{words} --resume"))[0] == 0
    after = (tmp_path / "run" / "results.parquet").stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)


@pytest.mark.usefixtures("no_figures")
def test_a_killed_study_resumes_to_the_same_bytes(
    topomoe: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "study --model mixtral-8x7b --grid 2x4 --slots 16 --synthetic-requests 8 --batches 128 "
        "--batch-tokens 2048 --resamples 0 --pattern-draws 2 --topologies torus,leaf-spine "
        "--placements contiguous,random,eplb,exact"
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    child = subprocess.Popen(
        [sys.executable, "-c", NO_FIGURES, *words.split(), "--out", str(killed)],
        stderr=subprocess.DEVNULL,
    )
    first = killed / ".parts" / "00-00.parquet"
    end = time.monotonic() + 100
    while not first.exists() and child.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert first.is_file()
    assert not (killed / ".parts" / "03-00.parquet").exists()
    assert not (killed / "results.parquet").exists()
    status, _, err = topomoe(*words.split(), "--out", killed)
    assert status == 2
    assert "--resume continues it" in err
    placed: list[str] = []

    def place(*arguments: Any, method: str, **others: Any) -> tm.Placement:
        placed.append(method)
        return tm.place(*arguments, method=method, **others)

    monkeypatch.setattr("topomoe.study.place", place)
    assert topomoe(*words.split(), "--out", killed, "--resume")[0] == 0
    assert "contiguous" not in placed  # that part was done
    assert "exact" in placed
    assert not (killed / ".parts").exists()
    assert topomoe(*words.split(), "--out", whole)[0] == 0
    for name in ("config.toml", "results.parquet", "results.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    assert {path.name for path in killed.iterdir()} == {path.name for path in whole.iterdir()}


def test_results_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    words = f"study {STUDY} --topologies torus,optical --placements eplb,exact"
    for seed in ("1", "2"):
        done = process(NO_FIGURES, f"{words} --out {tmp_path / seed}", PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
    for name in ("config.toml", "results.parquet", "results.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_simulate_prices_groups_and_writes_what_it_prints(topomoe: Call, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = f"simulate {STEPS} --slots 8 --groups 2 --group-layout scattered --out {folder}"
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    assert f"results: {folder / 'results.parquet'}" in out
    results = pd.read_parquet(folder / "results.parquet")
    assert list(results["group"]) == [0, 1]
    assert (results["step ms"] > results["MoE ms"]).all()
    for value in results["step ms"]:
        assert f"{value:.3f}" in out
    assert {path.name for path in folder.iterdir()} == {
        "config.toml",
        "results.parquet",
        "results.csv",
    }
    again = topomoe(*shlex.split(words.replace(f" --out {folder}", "")))
    assert again[1] == out.replace(f"results: {folder / 'results.parquet'}\n", "")


def test_simulate_takes_the_placement_that_place_wrote(
    topomoe: Call, traces: Path, tmp_path: Path
) -> None:
    file = tmp_path / "deep" / "placement.npz"
    words = f"place --trace {traces} --devices 8 --slots 16 --phase decode --out {file}"
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    assert f"placement: {file}" in out
    assert "held out" in out
    steps = f"simulate {STEPS} --model '' --trace {traces} --placement"
    from_file = topomoe(*shlex.split(f"{steps} {file}"))
    by_name = topomoe(*shlex.split(f"{steps} exact"))
    assert from_file[0] == 0, from_file[2]
    assert from_file == by_name


def test_a_trace_is_written_as_it_was_drawn(traces: Path, topomoe: Call) -> None:
    drawn = tm.synthetic_trace("mixtral-8x7b", requests=8, positions=24, seed=1)
    loaded = tm.load_trace(traces)
    assert np.array_equal(loaded.experts, drawn.experts)
    assert loaded.request_ids == drawn.request_ids
    status, out, _ = topomoe("trace", traces)
    assert status == 0
    assert all(name in out for name in drawn.domain_names)
