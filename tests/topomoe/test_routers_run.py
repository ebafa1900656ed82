"""A run of the router bench: what it writes, and that killing it changes nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from topomoe import load_trace
from topomoe.commands.router_tasks import tasks_of
from topomoe.commands.routers import RoutersInput, prepare_routers, run_routers
from topomoe.commands.routers_settings import PARTS, RoutersSettings, quick_settings
from topomoe.moe import assignment, routers
from topomoe.plots import router_figures
from topomoe.run_folder import RunFolder
from topomoe.settings import leaves, merge, to_dict
from topomoe.stats import gini
from topomoe.topologies.errors import InputError

Call = Callable[..., tuple[int | str | None, str, str]]
TINY = {
    "hidden": "16",
    "heads": "2",
    "expert_hidden": "8",
    "layers": "2",
    "experts": "4",
    "steps": "4",
    "warmup_steps": "1",
    "curve_points": "2",
    "checkpoint_steps": "2",
    "context": "16",
    "batch_sequences": "4",
    "validation_sequences": "4",
    "domains": "prose,code",
    "domain_bytes": "200000",
    "tokenizer": "bytes",
    "seeds": "1",
    "requests": "8",
    "capacity_factors": "1.25",
    "tune_rates": "1e-3,4e-3",
    "tune_weights": "0.1",
    "tune_updates": "1e-2",
    "tune_steps": "2",
    "sweep_experts": "4,8",
    "sweep_top_k": "1",
    "sweep_factors": "0.5,4",
    "sweep_steps": "2",
    "timed_steps": "1",
    "size_experts": "4,8",
    "size_steps": "2",
    "losses": "none,gini",
    "loss_weights": "0.1",
    "loss_steps": "2",
    "assignments": "original,balanced",
    "assignment_routers": "softk",
    "assignment_factor": "1.25",
    "adapter_variants": "routed,full",
    "adapter_ranks": "2",
    "adapter_steps": "2",
    "grid": "2x2",
    "placements": "eplb",
    "batches": "3",
    "batch_tokens": "64",
}
WORDS = [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", value)]
FEW = {"routers": "softk,hash", "parts": "tuning,pareto,losses,profile"}


class Killed(Exception):
    """What a test stops a run with."""


def settings_of(**changes: str) -> RoutersSettings:
    return merge(RoutersSettings, None, {**TINY, "parts": ",".join(PARTS), **changes})


def run(
    settings: RoutersSettings,
    given: RoutersInput,
    path: Path,
    processes: int = 1,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
    resume: bool = False,
) -> RunFolder:
    folder = RunFolder.start(path, "routers", to_dict(settings), resume, facts=given.facts())
    run_routers(settings, given, folder, processes, progress)
    return folder


def same_files(one: Path, other: Path) -> None:
    """Assert that two runs wrote the same files, and the same bytes but for the times."""
    names = [
        sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
        for path in (one, other)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        if name != "timing.csv":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def given() -> RoutersInput:
    return prepare_routers(settings_of())


@pytest.fixture(scope="module")
def whole(given: RoutersInput, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(settings_of(), given, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def results(whole: RunFolder) -> pd.DataFrame:
    return whole.results()


@pytest.fixture(scope="module")
def few(given: RoutersInput, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(settings_of(**FEW), given, tmp_path_factory.mktemp("few") / "run")


def test_every_model_has_its_rows_of_each_record(results: pd.DataFrame) -> None:
    count = results.groupby(["part", "record"]).size().to_dict()
    models = len(routers.names())
    assert count == {
        ("tuning", "tuning"): models * 2,
        ("pareto", "curve"): models * 2,
        ("pareto", "quality"): models,
        ("pareto", "document"): models * 8,
        ("pareto", "layer"): models * 2 * 3,  # layers x (all, prose, code)
        ("pareto", "step"): models * 2,
        ("size", "quality"): models * 2,
        ("capacity", "quality"): 2 * 2,
        ("losses", "loss"): 2,
        ("assignments", "assignment"): 2,
        ("assignments", "assignment_step"): 2 * 2,
        ("adapters", "adapter"): 2,
        ("profile", "layer"): 2 * 3,
    }


def test_every_part_trains_with_what_was_best_in_the_trials(
    given: RoutersInput, results: pd.DataFrame, tmp_path: Path
) -> None:
    trials = results.query("record == 'tuning' & router == 'hash'").set_index("learning_rate")
    best = trials["loss"].idxmin()
    changes = {"parts": "pareto", "routers": "hash", "learning_rate": str(best)}
    alone = run(settings_of(**changes), given, tmp_path / "run").results()
    there = results.query("record == 'quality' & part == 'pareto' & router == 'hash'")
    found = alone[alone["record"] == "quality"]
    assert found["perplexity"].item() == there["perplexity"].item()


def test_only_expert_choice_has_another_causal_perplexity(results: pd.DataFrame) -> None:
    quality = results[results["part"] == "pareto"].query("record == 'quality'")
    differs = ~np.isclose(quality["perplexity"], quality["causal_perplexity"])
    assert set(quality["router"][differs]) == {"expert-choice"}
    documents = results[results["record"] == "document"]
    for column, perplexity in (("loss", "perplexity"), ("causal_loss", "causal_perplexity")):
        mean = documents.groupby("router")[column].mean()
        assert np.allclose(np.exp(mean), quality.set_index("router")[perplexity][mean.index])


def test_what_changes_a_model_starts_from_the_one_of_the_first_part(results: pd.DataFrame) -> None:
    quality = results[results["part"] == "pareto"].query("record == 'quality' & router == 'softk'")
    there = quality.set_index("seed")
    losses = results[results["record"] == "loss"]
    assert np.array_equal(losses["perplexity_before"], there["perplexity"][losses["seed"]])
    assert (losses["perplexity_after"] != losses["perplexity_before"]).all()
    original = results.query("record == 'assignment' & assignment == 'original'")
    assert np.array_equal(original["perplexity"], there["perplexity"][original["seed"]])
    assert np.array_equal(original["gini"], there["gini"][original["seed"]])
    step = results.query("record == 'step' & router == 'softk'").set_index(["seed", "topology"])
    changed = results.query("record == 'assignment_step' & assignment == 'original'")
    for row in changed.itertuples():
        assert row.moe_p99_s == step.loc[(row.seed, row.topology), "moe_p99_s"]


def test_adapters_train_less_than_the_whole_model(results: pd.DataFrame) -> None:
    rows = results[results["record"] == "adapter"]
    size = rows.groupby("variant")["trained_parameters"].first()
    assert size["routed"] == 2 * 4 * (2 * 16 * 2 + 16)  # layers x adapters x (2 d r + d)
    quality = results.query("record == 'quality' & part == 'pareto' & router == 'softk'")
    assert size["full"] == quality["parameters"].iloc[0]
    assert set(rows["domain"]) == {"code"}


def test_a_smaller_capacity_drops_more_of_the_same_model(results: pd.DataFrame) -> None:
    rows = results[results["part"] == "capacity"]
    drops = rows.pivot(index="experts", columns="capacity_factor", values="assignment_drop_rate")
    assert (drops[0.5] >= 0.5).all()
    assert (drops[4.0] < drops[0.5]).all()
    assert (rows.groupby("experts")["parameters"].nunique() == 1).all()


def test_layers_are_those_of_the_traces_that_are_kept(
    whole: RunFolder, results: pd.DataFrame
) -> None:
    trace = load_trace(whole.path / "traces" / "pareto-softk-c1.25-e4-k2-s0.npz")
    assert (trace.num_requests, trace.num_layers, trace.num_experts) == (8, 2, 4)
    layers = results.query("record == 'layer' & router == 'softk'")
    everything = layers[layers["domain"] == "all"]
    assert np.allclose(everything["gini"], gini(trace.load()))
    load = trace.domain_load()[trace.domain_names.index("code")]
    assert np.allclose(layers[layers["domain"] == "code"]["gini"], gini(load))
    profiled = load_trace(whole.path / "trace.npz")
    rows = results[results["part"] == "profile"].query("domain == 'all'")
    assert np.allclose(rows["gini"], gini(profiled.load()))


def test_times_are_beside_the_results_and_models_are_gone(whole: RunFolder) -> None:
    timing = pd.read_csv(whole.path / "timing.csv")
    assert set(timing["part"]) == {"tuning", "pareto", "size", "capacity"}
    trained = timing.query("part == 'pareto' & phase == 'train'")
    assert (trained["tokens"] == 4 * 4 * 16).all()
    assert (timing["wall_seconds"] > 0).all()
    assert {path.name for path in whole.path.iterdir()} == {
        "config.toml",
        "results.parquet",
        "results.csv",
        "timing.csv",
        "trace.npz",
        "traces",
    }
    facts = whole.config()["run"]["text"]
    assert len(facts["domains"]["prose"]["sha256"]) == 64


@pytest.mark.parametrize("more", [1, 2])
def test_a_run_killed_again_and_again_ends_with_the_same_bytes(
    more: int, given: RoutersInput, few: RunFolder, tmp_path: Path
) -> None:
    settings = settings_of(**FEW)
    left = kills = 0

    def progress(what: str, done: int, of: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    while True:
        left = more * (kills + 1)  # each time a little farther
        try:
            folder = run(settings, given, tmp_path / "run", progress=progress, resume=kills > 0)
            break
        except Killed:
            kills += 1
    assert kills >= 3
    same_files(folder.path, few.path)


def test_a_run_killed_by_the_system_resumes_to_the_same_bytes(
    given: RoutersInput, few: RunFolder, tmp_path: Path
) -> None:
    killed = tmp_path / "run"
    flags = [word for name, value in FEW.items() for word in (f"--{name}", value)]
    code = "from topomoe.cli import main; main()"
    words = ["routers", *WORDS, *flags, "--processes", "1", "--out", str(killed)]
    child = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE)
    end = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < end:
        if any((killed / "models").glob("*/checkpoint.safetensors")):
            break
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    _, said = child.communicate()
    assert child.returncode == -signal.SIGKILL, said.decode()
    assert not (killed / "results.parquet").exists()
    folder = run(settings_of(**FEW), given, killed, resume=True)
    same_files(folder.path, few.path)


def test_assignments_are_served_without_drops_unless_said(
    given: RoutersInput, results: pd.DataFrame, tmp_path: Path
) -> None:
    settings = settings_of(parts="tuning,assignments", assignment_factor="0")
    served = run(settings, given, tmp_path / "run").results()
    found = served[served["record"] == "assignment"]
    assert (found["assignment_drop_rate"] == 0).all()
    assert (served["dropped_share"].dropna() == 0).all()
    limited = results[results["record"] == "assignment"]
    assert (limited["assignment_drop_rate"] > 0).any()


def test_two_processes_give_the_bytes_of_one(given: RoutersInput, tmp_path: Path) -> None:
    settings = settings_of(parts="pareto,size", routers="softk,hash", size_experts="4")
    one, two = (run(settings, given, tmp_path / str(n), n) for n in (1, 2))
    same_files(one.path, two.path)


def test_another_setting_is_refused(given: RoutersInput, few: RunFolder, topomoe: Call) -> None:
    flags = [word for name, value in FEW.items() for word in (f"--{name}", value)]
    words = ["routers", *WORDS, *flags, "--resume", "--out", few.path]
    status, _, err = topomoe(*words, "--hidden", "32")
    assert status == 2
    assert "--resume" in err
    assert "hidden is 16 there and 32 here" in err
    other = replace(given, corpora=replace(given.corpora, facts={"text": "another"}))
    with pytest.raises(InputError, match="of another run"):
        run(settings_of(**FEW), other, few.path, resume=True)


def test_parts_without_pareto_train_their_own_models(
    given: RoutersInput, results: pd.DataFrame, tmp_path: Path
) -> None:
    changes = {"parts": "tuning,assignments"}
    alone = run(settings_of(**changes), given, tmp_path / "run").results()
    there = results[results["record"] == "assignment"]
    found = alone[alone["record"] == "assignment"]
    assert np.array_equal(found["perplexity"], there["perplexity"])


def test_the_command_draws_and_prints_and_resumes(
    topomoe: Call, tmp_path: Path, trace_of_mixtral: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_figures, "FIGURES", router_figures.FIGURES[:1])
    words = ["routers", *WORDS, "--out", tmp_path / "run", "--processes", "1"]
    words += ["--parts", "pareto,assignments", "--routers", "softk,topk-hard"]
    words += ["--trace", trace_of_mixtral]
    status, out, err = topomoe(*words)
    assert status == 0, err
    assert "Perplexity against step time" in out
    assert (tmp_path / "run" / "figures" / "router_pareto.png").is_file()
    assert (tmp_path / "run" / "tables" / "ranking.md").is_file()
    frame = RunFolder.open(tmp_path / "run").results()
    real = frame[frame["part"] == "real"]
    assert set(real["source"]) == {"mixtral"}
    assert len(real[real["domain"] == "all"]) == 32
    before = (tmp_path / "run" / "results.parquet").stat().st_mtime_ns
    assert topomoe(*words, "--resume")[0] == 0
    assert (tmp_path / "run" / "results.parquet").stat().st_mtime_ns == before
    assert topomoe("plot", tmp_path / "run")[0] == 0


@pytest.fixture
def trace_of_mixtral(tmp_path: Path) -> Path:
    import topomoe as tm

    tm.save_trace(tm.synthetic_trace("mixtral-8x7b", requests=4, positions=8), tmp_path / "mixtral")
    return tmp_path / "mixtral"


def test_a_pretrained_model_is_profiled_and_reassigned(
    given: RoutersInput, tmp_path: Path, pretrained_model: Callable[[Path], Path]
) -> None:
    home = pretrained_model(tmp_path / "tiny-mixtral")
    settings = settings_of(
        parts="profile,assignments", assignments="original,random", pretrained=str(home)
    )
    folder = run(settings, given, tmp_path / "run")
    frame = folder.results()
    found = frame[frame["record"] == "assignment"].set_index("assignment")
    assert list(found.index) == ["original", "random"]
    assert set(found["router"]) == {"tiny-mixtral"}
    assert 100 < found["perplexity"]["original"] < 600  # untrained: near the 256 of a guess
    assert found["perplexity"]["original"] != found["perplexity"]["random"]
    trace = load_trace(folder.path / "trace.npz")
    assert (trace.num_layers, trace.num_experts, trace.top_k) == (2, 4, 2)
    layers = frame[(frame["record"] == "layer") & (frame["domain"] == "all")]
    assert np.allclose(layers["gini"], gini(trace.load()))
    assert np.isclose(found["gini"]["original"], gini(trace.load()).mean())


def test_no_two_tasks_share_a_name() -> None:
    for settings in (RoutersSettings(parts=PARTS), quick_settings(), settings_of()):
        trials, first, second = tasks_of(settings)
        names = [task.name for task in (*trials, *first, *second)]
        assert len(set(names)) == len(names)
        trained = {task.model for task in first if task.part in ("pareto", "base")}
        assert {task.model for task in second} <= trained


def test_quick_is_smaller_and_has_every_part() -> None:
    quick, full = quick_settings(), RoutersSettings()
    assert quick.parts == full.parts
    assert quick.routers == routers.names()
    assert full.assignments == assignment.names()
    for name in ("experts", "layers", "hidden", "sweep_steps", "size_steps", "loss_steps"):
        assert getattr(quick, name) < getattr(full, name)
    assert quick.training.steps < full.training.steps


def test_every_flag_has_a_meaning() -> None:
    for name, (_, _, _, documentation) in leaves(RoutersSettings).items():
        assert documentation, name
