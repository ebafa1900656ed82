"""The study: what its table holds, what is held out, and how a killed run ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import topomoe as tm
from topomoe.inputs import least_exact_slots
from topomoe.network import bottleneck
from topomoe.patterns import PATTERNS
from topomoe.placement import certificate
from topomoe.run_folder import RunFolder
from topomoe.settings import to_dict
from topomoe.study import StudyInput, prepare, run_study
from topomoe.study_rows import COLUMNS, PATTERN_BYTES_PER_PAIR
from topomoe.study_settings import StudySettings
from topomoe.topologies import InputError
from topomoe.workload import WorkloadSettings

TINY = StudySettings(
    model="mixtral-8x7b",
    grid="2x4",
    slots=16,
    topologies=("torus", "leaf-spine", "optical"),
    placements=("contiguous", "exact"),
    replica_routings=("weighted", "least-loaded"),
    layers=(0, 9, 31),
    levels=(0.0, 0.8),
    resamples=2,
    pattern_draws=3,
    synthetic_requests=12,
    workload=WorkloadSettings(batches=4, batch_tokens=128),
)
UNITS = 4  # placements x replica routings
PARTS = ["dispatch_s", "compute_s", "combine_s", "backward_s"]
KEYS = ["topology", "routing", "placement", "replica_routing"]


def run(
    settings: StudySettings,
    path: Path,
    given: StudyInput | None = None,
    resume: bool = False,
    **options: Any,
) -> RunFolder:
    given = given or prepare(settings)
    folder = RunFolder.start(path, "study", to_dict(settings), resume, notes=given.notes)
    run_study(settings, given, folder, **options)
    return folder


def files(folder: RunFolder) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in sorted(folder.path.iterdir()) if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(TINY, tmp_path_factory.mktemp("study") / "run")


@pytest.fixture(scope="module")
def table(finished: RunFolder) -> pd.DataFrame:
    return finished.results()


def rows(table: pd.DataFrame, record: str) -> pd.DataFrame:
    return table[table["record"] == record]


# What the table holds.


def test_every_record_has_the_rows_it_should(table: pd.DataFrame) -> None:
    given = prepare(TINY)
    # Other routings run with the last placement and its first replica routing only.
    simulated = UNITS * 3 + len(given.others)
    links = sum(n.topology.num_links for n in given.networks) * UNITS
    links += sum(n.topology.num_links for n in given.others)
    wanted = {
        "step": simulated * 4,
        "layer": simulated * 3,
        "summary": simulated,
        "link": links,
        "device": UNITS * 8,
        "placement": UNITS * 3,
        "expert": 3 * 8,
        "pattern": len(PATTERNS) * 2 * 3 * 3,
        "cost": 3,
    }
    assert table["record"].value_counts().to_dict() == wanted
    assert list(table.columns) == list(COLUMNS)
    assert len(given.others) > 0
    other = rows(table, "summary").merge(
        pd.DataFrame(
            [(n.name, n.routing_name) for n in given.others], columns=["topology", "routing"]
        )
    )
    assert set(other["placement"]) == {"exact"}
    assert set(other["replica_routing"]) == {"weighted"}


def test_summaries_are_the_statistics_of_the_steps(table: pd.DataFrame) -> None:
    steps = rows(table, "step").groupby(KEYS)
    summary = rows(table, "summary").set_index(KEYS)
    same = [*PARTS, "other_s", "moe_s", "step_s", "network_bound_s", "tokens"]
    for column in [*same, "max_over_mean", "remote_bytes", "cross_row_bytes"]:
        mean = steps[column].mean().reindex(summary.index)
        np.testing.assert_allclose(summary[column], mean, rtol=1e-9, err_msg=column)
    for time in ("moe", "step"):
        for q in (50, 95, 99):
            quantile = steps[f"{time}_s"].quantile(q / 100).reindex(summary.index)
            np.testing.assert_allclose(summary[f"{time}_p{q}_s"], quantile, rtol=1e-9)
    assert (summary["step_low_s"] <= summary["step_high_s"]).all()
    assert (summary["network_bound_s"] <= summary["dispatch_s"] + summary["combine_s"]).all()


def test_layers_and_steps_hold_the_same_seconds(table: pd.DataFrame) -> None:
    steps, layers = rows(table, "step"), rows(table, "layer")
    np.testing.assert_allclose(steps[PARTS].sum(axis=1), steps["moe_s"], rtol=1e-9)
    np.testing.assert_allclose(steps["moe_s"] + steps["other_s"], steps["step_s"], rtol=1e-9)
    by_layer = layers.groupby(KEYS)[PARTS].sum()
    by_step = steps.groupby(KEYS)[PARTS].mean()
    np.testing.assert_allclose(by_layer.reindex(by_step.index), by_step, rtol=1e-9)


def test_every_network_sees_the_same_dispatch(table: pd.DataFrame) -> None:
    group = ["placement", "replica_routing", "batch"]
    for column in ("compute_s", "other_s", "remote_bytes", "max_over_mean"):
        assert (rows(table, "step").groupby(group)[column].nunique() == 1).all()
    assert (rows(table, "step").groupby(group)["dispatch_s"].nunique() > 1).all()


def test_placement_rows_hold_balance_and_its_proven_bound(table: pd.DataFrame) -> None:
    given = prepare(TINY)
    placement = tm.place(given.train, 8, 16, method="exact", grid=(2, 4))
    mine = rows(table, "placement").query("placement == 'exact' and replica_routing == 'weighted'")
    train, test = given.train.load(), given.test.load()
    np.testing.assert_allclose(mine["max_over_mean"], 1 / placement.balancedness(test))
    np.testing.assert_allclose(mine["train_max_over_mean"], 1 / placement.balancedness(train))
    bound = certificate(placement, train).bound / (train.sum(axis=1) / 8)
    np.testing.assert_allclose(mine["bound_max_over_mean"], bound)
    every = rows(table, "placement")
    assert (every["train_max_over_mean"] >= every["bound_max_over_mean"] * (1 - 1e-9)).all()
    assert (mine["train_max_over_mean"] <= 1 + 1e-9).all()  # 16 slots >= 8 + 8 - 1


def test_expert_rows_are_the_held_out_shares(table: pd.DataFrame) -> None:
    load = prepare(TINY).test.load()
    share = rows(table, "expert").pivot(index="layer", columns="index", values="share")
    np.testing.assert_allclose(share, load / load.sum(axis=1, keepdims=True), rtol=1e-12)


def test_link_and_device_rows_add_up_to_what_is_sent_and_computed(table: pd.DataFrame) -> None:
    loads = rows(table, "device").groupby(["placement", "replica_routing"])["load_pairs"].sum()
    np.testing.assert_allclose(loads, 128 * 2)
    links = rows(table, "link").query("topology == 'leaf-spine' and source < 8")
    summary = rows(table, "summary").query("topology == 'leaf-spine'").set_index(KEYS)
    out_of_devices = links.groupby(KEYS)["load_bytes"].sum().reindex(summary.index)
    np.testing.assert_allclose(out_of_devices, summary["remote_bytes"] / 3, rtol=1e-5)


def test_at_level_zero_all_patterns_are_uniform(table: pd.DataFrame) -> None:
    at_zero = rows(table, "pattern").query("level == 0")
    uniform = PATTERN_BYTES_PER_PAIR * (1 - np.eye(8))
    for network in prepare(TINY).networks:
        mine = at_zero[at_zero["topology"] == network.name]
        assert len(mine) == len(PATTERNS) * 3
        assert mine["time_s"].nunique() == 1
        wanted = bottleneck(network.topology, network.parts[0], uniform, mtu=4096)
        assert mine["time_s"].iloc[0] == pytest.approx(wanted, rel=1e-6)
    hot = rows(table, "pattern").query("level == .8 and pattern == 'hotspot'")["time_s"]
    assert hot.min() > at_zero["time_s"].min()


# What is held out.


def test_placements_are_made_on_training_requests_alone(
    tmp_path: Path, table: pd.DataFrame
) -> None:
    """Other held-out requests: other times, but the same balance in training and the same bound."""
    given = prepare(TINY)
    assert not set(given.train.request_ids) & set(given.test.request_ids)
    other = replace(given, test=replace(given.test, experts=(given.test.experts + 1) % 8))
    changed = run(TINY, tmp_path / "run", other).results()
    for column in ("train_max_over_mean", "bound_max_over_mean"):
        np.testing.assert_array_equal(
            rows(changed, "placement")[column], rows(table, "placement")[column]
        )
    assert (
        rows(changed, "placement")["max_over_mean"] != rows(table, "placement")["max_over_mean"]
    ).any()
    assert (rows(changed, "summary")["moe_s"] != rows(table, "summary")["moe_s"]).all()


# Resuming.


class Killed(Exception):
    """What stops a run in these tests."""


@pytest.mark.parametrize("units", range(UNITS + 1))
def test_a_killed_run_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, finished: RunFolder, units: int
) -> None:
    """Killed after any number of finished units, the last time among the traffic patterns."""
    seen: list[str] = []

    def until_killed(what: str, done: int, of: int) -> None:
        if what not in seen:
            seen.append(what)
        if len(seen) > units and done == min(2, of):
            raise Killed

    with pytest.raises(Killed):
        run(TINY, tmp_path / "run", progress=until_killed)
    assert len(list((tmp_path / "run" / ".parts").glob("*.parquet"))) == units
    assert not (tmp_path / "run" / "results.parquet").exists()

    after: list[str] = []
    resumed = run(
        TINY, tmp_path / "run", resume=True, progress=lambda what, done, of: after.append(what)
    )
    assert len(set(after)) == UNITS - units + 1
    assert files(resumed) == files(finished)
    assert {"results.parquet", "results.csv", "config.toml"} <= set(files(resumed))
    assert not (tmp_path / "run" / ".parts").exists()


def test_a_finished_run_resumes_to_the_same_bytes(tmp_path: Path, finished: RunFolder) -> None:
    run(TINY, tmp_path / "run")
    assert files(run(TINY, tmp_path / "run", resume=True)) == files(finished)


def test_the_csv_holds_what_the_parquet_file_holds(
    finished: RunFolder, table: pd.DataFrame
) -> None:
    read = pd.read_csv(finished.path / "results.csv")
    assert list(read.columns) == list(table.columns)
    for column in ("step_s", "time_s", "load_bytes", "layer"):
        np.testing.assert_allclose(
            read[column].to_numpy(dtype=float), table[column].to_numpy(dtype=float), rtol=1e-14
        )


# The run folder.


def start(path: Path, settings: StudySettings = TINY, **options: bool) -> RunFolder:
    return RunFolder.start(path, "study", to_dict(settings), **options)


def test_a_folder_with_a_run_is_left_alone_unless_told(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    config = (folder.path / "config.toml").read_bytes()
    with pytest.raises(InputError, match=r"already holds a run; --resume .* --overwrite"):
        start(tmp_path / "run")
    assert (folder.path / "config.toml").read_bytes() == config
    assert start(tmp_path / "run", resume=True).path == folder.path


def test_resuming_needs_the_same_settings(tmp_path: Path) -> None:
    start(tmp_path / "run")
    with pytest.raises(InputError, match=r"is of another run: seed is 0 there and 1 here"):
        start(tmp_path / "run", replace(TINY, seed=1), resume=True)
    assert start(tmp_path / "new", resume=True).config()["run"]["kind"] == "study"


def test_overwriting_removes_a_run_and_nothing_else(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    for name in ("results.parquet", "results.csv", "report.html", "notes.txt"):
        (folder.path / name).write_text("old")
    for name in (".parts", "figures", "tables", "seed-0", "mine"):
        (folder.path / name).mkdir()
        (folder.path / name / "file").write_text("old")
    start(tmp_path / "run", replace(TINY, seed=1), overwrite=True)
    left = sorted(path.name for path in folder.path.iterdir())
    assert left == ["config.toml", "mine", "notes.txt"]
    assert folder.config()["seed"] == 1


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not empty and holds no run"):
        start(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match=r"thesis.txt is a file, not a folder"):
        start(tmp_path / "thesis.txt")


def test_an_unfinished_run_cannot_be_opened(tmp_path: Path, finished: RunFolder) -> None:
    start(tmp_path / "run")
    with pytest.raises(InputError, match=r"not a finished run, results.parquet is missing"):
        RunFolder.open(tmp_path / "run")
    assert RunFolder.open(finished.path).config()["grid"] == "2x4"
    (tmp_path / "run" / "results.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(InputError, match="cannot read the table"):
        RunFolder.open(tmp_path / "run").results()


def test_the_config_names_every_setting_and_version(finished: RunFolder) -> None:
    config = finished.config()
    assert config["workload"]["batch_tokens"] == 128
    assert config["versions"]["topomoe"] == tm.__version__
    assert {"python", "numpy", "numba"} <= set(config["versions"])
    assert config["run"]["notes"] == list(prepare(TINY).notes)


# Edge lists, and what does not fit.


def test_an_edge_list_takes_part_at_the_same_budget(tmp_path: Path) -> None:
    path = tmp_path / "ring.edges"
    path.write_text("\n".join(f"{a} {(a + 1) % 8}" for a in range(8)))
    settings = replace(TINY, topologies=(str(path), "torus"), placements=("exact",))
    given = prepare(settings)
    for network in given.networks:
        assert network.topology.injection.max() == pytest.approx(50e9, rel=1e-12)
    table = run(settings, tmp_path / "run", given).results()
    summary = rows(table, "summary").query("replica_routing == 'weighted'")
    ring = summary[summary["topology"] == str(path)]
    torus = summary[summary["topology"] == "torus"]
    assert ring["dispatch_s"].min() > torus["dispatch_s"].max()
    alone = replace(settings, topologies=(str(path),))
    again = rows(run(alone, tmp_path / "alone").results(), "summary")
    np.testing.assert_array_equal(
        again.query("replica_routing == 'weighted'")["cross_row_bytes"].to_numpy()[:1],
        ring["cross_row_bytes"].to_numpy()[:1],
    )
    assert (again["cross_row_bytes"] > 0).all()


@pytest.mark.parametrize(("experts", "devices"), [(256, 128), (8, 8), (64, 16), (256, 100), (8, 1)])
def test_the_least_exact_slots_are_one_short_of_experts_and_devices(
    experts: int, devices: int
) -> None:
    slots = least_exact_slots(experts, devices)
    assert slots % devices == 0
    assert slots >= max(experts + devices - 1, 2 * devices)
    assert slots - devices < max(experts + devices - 1, 2 * devices)


def test_exact_balance_is_reached_with_these_slots() -> None:
    given = prepare(replace(TINY, slots=0))
    placement = tm.place(given.train, 8, given.slots, method="exact")
    np.testing.assert_allclose(placement.balancedness(given.train.load()), 1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"topologies": ("tours",)}, "unknown topology 'tours'; did you mean 'torus'"),
        ({"topologies": ("none.csv",)}, "none.csv: cannot read the edge list"),
        ({"routings": ("ecpm",)}, "unknown routing 'ecpm'; did you mean 'ecmp'"),
        ({"normalise": "iso-costs"}, "unknown normalisation 'iso-costs'"),
        ({"prices": "none.toml"}, "none.toml: cannot read"),
        ({"failures": ("links:x",)}, "failures"),
        ({"failures": ("device:99",)}, "devices of .* are 0..7, got 99"),
        ({"failure_draws": 0}, "failure_draws must be >= 1, got 0"),
        ({"node_limit": 9}, "token_groups must be in 1..8, got 9"),
        ({"grid": "2x0"}, "grid must have rows >= 1 and columns >= 1, got 2x0"),
        ({"model": "mixtral"}, "unknown model 'mixtral'"),
        ({"layers": (32,)}, r"layers must be in 0\.\.31"),
        ({"domains": ("chess",)}, "unknown domain 'chess'"),
        ({"synthetic_requests": 1}, "trace must hold at least 2 requests"),
        ({"trace": "no/such/folder"}, "no/such/folder"),
    ],
)
def test_what_cannot_be_prepared_is_refused_before_anything_is_written(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        prepare(replace(TINY, **changed))
    assert "\n" not in str(caught.value)


def test_an_edge_list_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    path.write_text("0,1\n1,2\n2,0\n")
    with pytest.raises(InputError, match=r"small.csv has 3 devices, the grid 2x4"):
        prepare(replace(TINY, topologies=(str(path),)))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("topologies", (), "topologies must name at least one"),
        ("placements", ("exact", "exact"), "placements must not name anything twice"),
        ("slots", -1, "slots must be >= 0, got -1"),
        ("pattern_draws", 0, "pattern_draws must be >= 1, got 0"),
        ("test_fraction", 1.0, r"test_fraction must be in \(0, 1\), got 1"),
        ("levels", (0.0, 1.5), r"levels must be in 0\.\.1"),
        ("levels", (float("nan"),), r"levels must be in 0\.\.1"),
    ],
)
def test_settings_name_the_field(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **{field: value})
