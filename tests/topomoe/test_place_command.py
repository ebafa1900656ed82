"""``topomoe place`` as typed: certificate, files, picture, and what moving costs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import topomoe as tm
from topomoe.commands.grid_text import device_grid, text_grids
from topomoe.placement import certificate, load_placement

Call = Callable[..., tuple[int | str | None, str, str]]
LAYERS, EXPERTS = 3, 16


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a synthetic trace of eight requests of Mixtral's shape."""
    folder = tmp_path_factory.mktemp("place") / "traces"
    tm.save_trace(tm.synthetic_trace("mixtral-8x7b", requests=8, positions=24, seed=1), folder)
    return folder


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Loads of six steps, three layers, sixteen experts."""
    path = tmp_path_factory.mktemp("loads") / "loads.npy"
    rng = np.random.default_rng(0)
    base = rng.lognormal(0, 0.7, (LAYERS, EXPERTS))
    np.save(path, np.rint(1000 * base * rng.lognormal(0, 0.2, (6, LAYERS, EXPERTS))))
    return path


def run(topomoe: Call, words: str) -> str:
    status, out, err = topomoe(*shlex.split(words))
    assert status == 0, err
    return out


def cells(out: str, placement: str, load: str) -> list[str]:
    """Return the numbers of one line of the certificate."""
    line = next(
        row for row in out.splitlines() if row.startswith(f"│ {placement} ") and load in row
    )
    return re.findall(r"-?\d+\.?\d*", line.split("│", 3)[3])


def test_every_placement_prints_bound_achieved_and_gap_on_both_loads(
    topomoe: Call, traces: Path
) -> None:
    trace = tm.load_trace(traces)
    train, test = trace.split(0.5, 0)
    for method in ("contiguous", "eplb", "exact"):
        out = run(topomoe, f"place --trace {traces} --grid 2x2 --slots 12 --method {method}")
        placement = tm.place(train, 4, 12, method=method, grid=(2, 2))
        for part, label in ((train, "training (4 requests)"), (test, "held out (4 requests)")):
            load = part.load()
            proof = certificate(placement, load)
            mean = load.sum(axis=1) / 4
            balance = placement.balancedness(load)
            assert cells(out, method, label) == [
                f"{balance.mean():.4f}",
                f"{balance.min():.4f}",
                f"{(proof.bound / mean).mean():.4f}",
                f"{(proof.achieved / mean).mean():.4f}",
                f"{(proof.achieved / mean).max():.4f}",
                str((proof.achieved / mean).argmax()),
                f"{100 * proof.gap.mean():.2f}",
                f"{100 * proof.gap.max():.2f}",
            ]


def test_recorded_loads_hold_out_the_later_steps(topomoe: Call, loads: Path) -> None:
    out = run(topomoe, f"place --load {loads} --devices 4 --slots 20 --test-fraction 0.34")
    steps = np.load(loads)
    placement = tm.place(steps[:4].sum(axis=0), 4, 20)
    held_out = placement.balancedness(steps[4:].sum(axis=0))
    assert cells(out, "exact", "training (4 steps)")[0] == "1.0000"
    assert cells(out, "exact", "held out (2 steps)")[:2] == [
        f"{held_out.mean():.4f}",
        f"{held_out.min():.4f}",
    ]


def test_a_single_step_is_not_split(topomoe: Call, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.arange(1, 17.0).reshape(2, 8))
    status, out, err = topomoe(
        *shlex.split(f"place --load {tmp_path / 'one.npy'} --devices 4 --slots 12")
    )
    assert status == 0, err
    assert "held out" not in out
    assert "one step only, none is held out" in err
    assert "training load" in out  # what the grids show


def test_the_same_seed_gives_the_same_placement_file_and_picture(
    topomoe: Call, traces: Path, tmp_path: Path
) -> None:
    words = f"place --trace {traces} --grid 2x4 --slots 16 --method random --seed 3"
    for name in ("a", "b"):
        out = run(topomoe, f"{words} --out {tmp_path / name}.npz")
        assert f"placement: {tmp_path / name}.npz" in out
        assert f"figure: {tmp_path / name}.png" in out
    for ending in ("npz", "png"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    run(topomoe, f"{words.replace('--seed 3', '--seed 4')} --out {tmp_path / 'c.npz'}")
    assert (tmp_path / "a.npz").read_bytes() != (tmp_path / "c.npz").read_bytes()


def test_the_picture_goes_where_it_is_told(topomoe: Call, traces: Path, tmp_path: Path) -> None:
    words = f"place --trace {traces} --grid 2x4 --slots 16"
    run(topomoe, f"{words} --out {tmp_path / 'p.npz'} --figure none")
    assert {path.name for path in tmp_path.iterdir()} == {"p.npz"}
    run(topomoe, f"{words} --figure {tmp_path / 'q.pdf'}")
    assert {path.name for path in tmp_path.iterdir()} == {"p.npz", "q.pdf"}
    assert (tmp_path / "q.pdf").read_bytes()[:5] == b"%PDF-"


@pytest.mark.parametrize(
    ("format", "ending"), [("npz", "npz"), ("sglang", "json"), ("trtllm", "yaml"), ("eplb", "npz")]
)
def test_what_a_format_writes_is_read_back_as_the_previous_placement(
    format: str, ending: str, topomoe: Call, loads: Path, tmp_path: Path
) -> None:
    file = tmp_path / f"placement.{ending}"
    words = f"place --load {loads} --devices 4 --slots 20 --method eplb"
    run(topomoe, f"{words} --format {format} --out {file} --figure none")
    again = load_placement(file, devices=4)
    made = tm.place(np.load(loads)[:3].sum(axis=0), 4, 20, method="eplb")
    np.testing.assert_array_equal(again.slot_expert, made.slot_expert)
    out = run(topomoe, f"{words} --previous {file}")
    assert re.search(r"│ 0 of 60 +│", out)  # nothing moves
    assert f"before: {file.name}" in out


def test_moving_from_the_previous_placement_is_counted_in_copies_and_bytes(
    topomoe: Call, traces: Path, tmp_path: Path
) -> None:
    words = f"place --trace {traces} --grid 2x2 --slots 12"
    run(topomoe, f"{words} --method contiguous --out {tmp_path / 'old.npz'}")
    out = run(topomoe, f"{words} --method exact --previous {tmp_path / 'old.npz'}")
    old = load_placement(tmp_path / "old.npz")
    train, _ = tm.load_trace(traces).split(0.5, 0)
    moved = tm.place(train, 4, 12, grid=(2, 2)).migration_slots(old)
    size = tm.MODELS["mixtral-8x7b"].expert_weight_bytes
    assert f"{moved.sum()} of {32 * 12}" in out
    assert f"{moved.sum() * size * 1e-9:.2f}" in out
    assert f"{moved.sum(axis=0).max() * size * 1e-9:.3f}" in out


def test_options_reach_the_method_and_a_config_file_sets_them(
    topomoe: Call, loads: Path, tmp_path: Path
) -> None:
    words = f"place --load {loads} --devices 4 --slots 20 --method anneal --figure none"
    few, config = tmp_path / "few.npz", tmp_path / "config.npz"
    run(topomoe, f"{words} --sweeps 1 --out {few}")
    toml = tmp_path / "place.toml"
    toml.write_text(
        f'load = "{loads}"\ndevices = 4\nslots = 20\nmethod = "anneal"\nfigure = "none"\n'
        "[options]\nsweeps = 1\n"
    )
    run(topomoe, f"place --config {toml} --out {config}")
    assert few.read_bytes() == config.read_bytes()


def test_a_routed_shared_expert_is_placed_as_one_more(topomoe: Call, tmp_path: Path) -> None:
    load = np.random.default_rng(0).lognormal(0, 0.7, (2, 58, 256))
    np.save(tmp_path / "v3.npy", load)
    words = f"place --load {tmp_path / 'v3.npy'} --devices 128 --slots 512 --method eplb"
    run(topomoe, f"{words} --shared-expert routed --out {tmp_path / 'p.npz'} --figure none")
    placement = load_placement(tmp_path / "p.npz")
    assert placement.num_experts == 257
    # It serves every token, an eighth of all pairs: about 1/9 of the slots are its own.
    assert 40 < placement.replicas()[:, 256].mean() < 75


def test_grids_as_text_have_a_number_or_a_shade_a_device() -> None:
    load = np.arange(1.0, 9) / 4.5
    lines = text_grids({"before": load, "after": np.ones(8)}, (2, 4))
    assert lines[0].split() == ["before", "after"]
    assert lines[1].split() == ["0.22", "0.44", "0.67", "0.89"] + ["1.00"] * 4
    assert len(lines) == 3
    shaded = text_grids({"one": np.linspace(0.5, 2, 40)}, (2, 20))
    assert shaded[1][0] == " " or shaded[1] == ""
    assert shaded[2].endswith("@")
    assert "from 0.50 to 2.00" in shaded[-1]


def test_a_large_grid_is_folded_to_sixteen_rows_without_losing_the_hottest_device() -> None:
    load = np.ones(64 * 4)
    load[63 * 4 + 2] = 9.0
    lines = text_grids({"one": load}, (64, 4))
    assert len(lines) == 1 + 16 + 1
    assert "9.00" in lines[16]
    assert "largest" in lines[-1]


def test_devices_without_a_grid_are_drawn_on_the_most_square_one() -> None:
    assert device_grid(12, None) == (4, 3)
    assert device_grid(7, None) == (7, 1)
    assert device_grid(12, (2, 6)) == (2, 6)


def test_what_cannot_be_written_is_refused_before_anything_is(
    topomoe: Call, loads: Path, tmp_path: Path
) -> None:
    made, folder = tmp_path / "made" / "p.npz", tmp_path / "folder.png"
    folder.mkdir()
    words = f"--load {loads} --grid 2x2 --slots 20 --method eplb"
    for flags in (f"--out {made} --figure {folder}", f"--out {folder} --figure none"):
        status, out, err = topomoe("place", *shlex.split(f"{words} {flags}"))
        assert (status, out) == (2, "")
        assert f"{folder}: cannot be written (is a folder)" in err
    assert not made.parent.exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--devices 100000", "devices must be <= 65536, got 100000"),
        ("--grid 2x2 --slots 20 --phase decode", "phase is for a trace"),
    ],
)
def test_flags_that_do_not_fit_recorded_loads_are_refused(
    topomoe: Call, loads: Path, flags: str, message: str
) -> None:
    status, _, err = topomoe("place", "--load", str(loads), *flags.split())
    assert (status, err.count("\n")) == (2, 1)
    assert message in err


def test_slots_are_those_of_the_previous_placement_unless_given(
    topomoe: Call, loads: Path, tmp_path: Path
) -> None:
    served, moved = tmp_path / "served.npz", tmp_path / "moved.npz"
    words = f"place --load {loads} --grid 2x2 --figure none"
    run(topomoe, f"{words} --slots 28 --method eplb --out {served}")
    run(topomoe, f"{words} --previous {served} --method rebalance --out {moved}")
    assert load_placement(moved).num_slots == 28
    run(topomoe, f"{words} --previous {served} --slots 24 --out {moved}")
    assert load_placement(moved).num_slots == 24


def test_inline_json_is_named_and_not_repeated(topomoe: Call) -> None:
    load = json.dumps({"logical_count": [list(range(1, 9))] * 2})
    served = json.dumps({"physical_to_logical_map": [[*range(8), 0, 1, 2, 3]] * 2})
    words = ("place", "--grid", "2x2", "--slots", "12", "--load", load, "--previous", served)
    status, out, err = topomoe(*words)
    assert status == 0, err
    assert "expert load: one step only" in err
    assert "Moving from expert location" in out
    assert "{" not in out + err


def test_a_named_model_holds_for_the_previous_placement(topomoe: Call, tmp_path: Path) -> None:
    trace = tm.synthetic_trace("deepseek-v2-lite", requests=4, positions=8)
    tm.save_trace(trace, tmp_path / "t")
    rows = [list(range(64))] * trace.num_layers  # without the dense layer, which SGLang needs
    (tmp_path / "short.json").write_text(json.dumps({"physical_to_logical_map": rows}))
    words = f"--trace {tmp_path}/t --grid 2x2 --previous {tmp_path}/short.json"
    status, _, err = topomoe(
        "place", *words.split(), "--model", "deepseek-v2-lite", "--figure", "none"
    )
    assert (status, err.count("\n")) == (2, 1)
    assert "must have all 27 layers of deepseek-v2-lite, got 26" in err


def test_the_certificate_says_what_a_format_without_shares_keeps(
    topomoe: Call, loads: Path, tmp_path: Path
) -> None:
    words = f"place --load {loads} --grid 2x2 --slots 20 --figure none --out {tmp_path}/p.json"
    out = run(topomoe, f"{words} --method exact --format sglang")
    read = load_placement(tmp_path / "p.json", devices=4)
    load = np.load(loads)[:3].sum(axis=0)
    mean = float(cells(out, "exact as sglang", "training")[0])
    assert mean == pytest.approx(read.balancedness(load).mean(), abs=5e-5)
    assert mean < float(cells(out, "exact", "training")[0])
    assert "as sglang" not in run(topomoe, f"{words} --method eplb --format sglang")


def test_locality_with_a_routed_shared_expert_is_refused(topomoe: Call, tmp_path: Path) -> None:
    tm.save_trace(tm.synthetic_trace("deepseek-v3", requests=4, positions=4), tmp_path)
    status, _, err = topomoe(
        "place", "--trace", str(tmp_path), "--shared-expert", "routed", "--method", "locality"
    )
    assert (status, err.count("\n")) == (2, 1)
    assert "has no routed shared expert" in err
