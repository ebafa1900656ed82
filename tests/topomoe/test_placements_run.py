"""``topomoe placements``: its table, files, figures, and that the same seed repeats it."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import topomoe as tm
from topomoe.place_settings import PARTS
from topomoe.placement import certificate
from topomoe.plots import placement_figures
from topomoe.run_folder import RunFolder
from topomoe.tables_placement import placement_tables
from topomoe.workload import as_served

Call = Callable[..., tuple[int | str | None, str, str]]
METHODS = ("contiguous", "eplb", "exact", "rebalance")
WORDS = (
    "placements --grid 2x4 --slots 16 --batches 3 --batch-tokens 256 --tokens 256,1024 "
    "--device-tokens 8,32 --batch-layers 2 --sweeps 20 --generations 5 "
    f"--methods {','.join(METHODS)}"
)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("placements") / "traces"
    made = tm.synthetic_trace("mixtral-8x7b", requests=12, positions=24, seed=1)
    tm.save_trace(made.filter(layers=[0, 1, 2, 3]), folder)
    return folder


@pytest.fixture(scope="module")
def finished(
    traces: Path, tmp_path_factory: pytest.TempPathFactory, topomoe: Call
) -> tuple[RunFolder, str]:
    """A run of all parts, and what it printed."""
    folder = tmp_path_factory.mktemp("run") / "all"
    words = f"{WORDS} --trace {traces} --model mixtral-8x7b --out {folder}"
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    return RunFolder(folder), out


def rows(folder: RunFolder, record: str) -> pd.DataFrame:
    results = folder.results()
    return results[results["record"] == record].dropna(axis=1, how="all")


def test_a_run_holds_config_results_timing_tables_and_a_figure_for_each_part(
    finished: tuple[RunFolder, str],
) -> None:
    folder, out = finished
    assert {path.name for path in folder.path.iterdir()} == {
        "config.toml",
        "results.parquet",
        "results.csv",
        "timing.csv",
        "tables",
        "figures",
    }
    config = tomllib.loads((folder.path / "config.toml").read_text())
    assert config["run"]["kind"] == "placements"
    assert config["run"]["train_requests"] + config["run"]["test_requests"] == 12
    for part in PARTS:
        assert len(rows(folder, part)), part
    for figure in placement_figures.FIGURES:
        for ending in ("png", "pdf"):
            assert (folder.path / "figures" / f"{figure.NAME}.{ending}").is_file()
    for table in placement_tables(folder):
        assert table.title in out
        for ending in ("md", "tex"):
            assert (folder.path / "tables" / f"{table.name}.{ending}").is_file()
    timing = pd.read_csv(folder.path / "timing.csv")
    assert tuple(timing["method"]) == METHODS
    assert (timing["cpu_ms"] >= 0).all()


def test_methods_are_scored_by_what_the_library_says_of_them(
    finished: tuple[RunFolder, str], traces: Path
) -> None:
    whole = tm.load_trace(traces, model="mixtral-8x7b")
    train, test = (as_served(part, "decode") for part in whole.split(0.5, 0))
    incumbent = tm.place(
        train.select(np.arange(train.num_requests // 2)), 8, 16, method="eplb", grid=(2, 4)
    )
    method = rows(finished[0], "method")
    for name in ("contiguous", "eplb", "exact"):
        placement = tm.place(train, 8, 16, method=name, grid=(2, 4))
        for _, row in method[method["method"] == name].iterrows():
            balance = placement.balancedness(test.load())
            assert row["test_balancedness_mean"] == pytest.approx(balance.mean())
            assert row["test_balancedness_worst"] == pytest.approx(balance.min())
            gap = certificate(placement, train.load()).gap
            assert row["train_gap_mean"] == pytest.approx(gap.mean(), abs=1e-12)
            moved = int(placement.migration_slots(incumbent).sum())
            size = tm.MODELS["mixtral-8x7b"].expert_weight_bytes
            assert row["migration_bytes"] == moved * size
    layers = rows(finished[0], "layer")
    assert (layers["train_bound_max_over_mean"] <= layers["train_max_over_mean"] + 1e-9).all()


def test_a_token_reaches_at_most_the_other_rows_and_bytes_follow_the_rows(
    finished: tuple[RunFolder, str],
) -> None:
    method = rows(finished[0], "method")
    assert method["rows_per_token"].between(0, 1).all()  # two rows
    assert (method["cross_row_bytes"] <= method["remote_bytes"]).all()
    # Every row that a token reaches gets at least one copy, there and back.
    model = tm.MODELS["mixtral-8x7b"]
    least = method["rows_per_token"] * (model.dispatch_bytes + model.combine_bytes)
    assert (method["cross_row_bytes"] >= 0.98 * least).all()
    local = method.pivot(index="method", columns="replica_routing", values="cross_row_bytes")
    assert (local["local-first"] <= 1.001 * local["weighted"]).all()


def test_steps_have_a_median_below_their_99th_percentile_on_every_topology(
    finished: tuple[RunFolder, str],
) -> None:
    step = rows(finished[0], "step")
    assert len(step) == len(METHODS) * 2 * 2
    assert set(step["topology"]) == {"torus", "leaf-spine"}
    assert (step["moe_p50_s"] > 0).all()
    assert (step["moe_p50_s"] <= step["moe_p99_s"]).all()
    parts = step["dispatch_s"] + step["compute_s"] + step["combine_s"]
    np.testing.assert_allclose(step["moe_s"], parts)


def test_the_same_seed_gives_the_same_results(
    topomoe: Call, traces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement_figures, "FIGURES", ())
    for name in ("a", "b"):
        words = f"{WORDS} --trace {traces} --model mixtral-8x7b --parts method,compute,batch"
        status, _, err = topomoe(*shlex.split(f"{words} --out {tmp_path / name}"))
        assert status == 0, err
    first, second = (tmp_path / name / "results.parquet" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


def test_plot_draws_the_same_bytes_again(finished: tuple[RunFolder, str], topomoe: Call) -> None:
    folder, _ = finished
    before = {path: path.read_bytes() for path in (folder.path / "figures").iterdir()}
    for path in before:
        path.unlink()
    status, out, err = topomoe("plot", folder.path)
    assert status == 0, err
    assert {path: path.read_bytes() for path in before} == before
    assert all(str(path) in out for path in before)
