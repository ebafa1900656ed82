"""Traces that are found by name, and traces of fewer layers than the model they stand for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import topomoe as tm
from topomoe import bundled_traces
from topomoe.commands.placements import prepare_placements
from topomoe.envs.delay_sweep import prepare_sweep
from topomoe.envs.delay_sweep_settings import DelaySweepSettings
from topomoe.envs.scenario import build_problems
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.inputs import load_or_make
from topomoe.place_settings import PlacementsSettings
from topomoe.study import prepare
from topomoe.study_settings import StudySettings
from topomoe.topologies.errors import InputError
from topomoe.trace import bundled, load_trace, save_trace

BUNDLED = "small-64x6"
TINY = tm.synthetic_trace("mixtral-8x7b", requests=4, positions=8)


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of bundled traces with a tiny one, and another as the working folder."""
    folder, here = tmp_path / "traces", tmp_path / "here"
    here.mkdir()
    save_trace(TINY, folder / "tiny-8x2.npz")
    (folder / "tiny-8x2.toml").write_text(
        'command = "topomoe routers"\nseed = 3\ncommit = "0123456789abcdef"\n'
    )
    monkeypatch.setattr(bundled_traces, "FOLDER", folder)
    monkeypatch.chdir(here)
    return folder


def test_a_bundled_trace_is_found_by_name(shipped: Path) -> None:
    assert bundled() == ("tiny-8x2",)
    trace = load_trace("tiny-8x2")
    np.testing.assert_array_equal(trace.experts, TINY.experts)
    assert trace.notes == (
        "tiny-8x2: comes with topomoe, made by topomoe routers (seed 3, commit 0123456789ab)",
    )
    np.testing.assert_array_equal(load_trace(Path("tiny-8x2")).experts, TINY.experts)
    (shipped / "tiny-8x2.toml").unlink()
    assert load_trace("tiny-8x2").notes == ("tiny-8x2: comes with topomoe",)


def test_a_path_goes_before_a_name(shipped: Path) -> None:
    save_trace(replace(TINY, num_experts=99), "tiny-8x2")
    assert load_trace("tiny-8x2").num_experts == 99


def test_an_unknown_name_is_refused_with_the_nearest(shipped: Path) -> None:
    line = (
        "tiny-8x3: no such file or folder, nor a bundled trace of that name; "
        "did you mean 'tiny-8x2'? (one of: tiny-8x2)"
    )
    with pytest.raises(InputError, match=f"^{re.escape(line)}$"):
        load_trace("tiny-8x3")
    with pytest.raises(InputError, match=r"^folder/tiny-8x2: no such file or folder$"):
        load_trace("folder/tiny-8x2")
    with pytest.raises(InputError, match="cannot be read"):
        load_trace("x" * 5000)


Call = Callable[..., tuple[int | str | None, str, str]]


def test_the_command_reads_names_and_writes_one_file(shipped: Path, topomoe: Call) -> None:
    status, out, err = topomoe("trace", "tiny-8x2", "--out", "copy.npz")
    assert status == 0
    assert "8 experts" in out
    assert "comes with topomoe" in err
    assert Path("copy.npz").read_bytes() == (shipped / "tiny-8x2.npz").read_bytes()
    assert topomoe("trace", "copy.npz")[0] == 0
    assert (
        topomoe("trace", "--synthetic", "mixtral-8x7b", "--requests", 4, "--out", "s.npz")[0] == 0
    )
    assert load_trace("s.npz").num_requests == 4
    status, _, err = topomoe("trace", "tiny")
    assert status == 2
    assert "did you mean 'tiny-8x2'" in err


NOTE = "mixtral-8x7b: the trace has 2 of the model's 32 MoE layers: only those are priced"


@pytest.fixture
def two_layers(shipped: Path) -> str:
    """The name of a bundled trace of 2 layers that are otherwise Mixtral's."""
    made = tm.synthetic_trace("mixtral-8x7b", requests=48, positions=40).filter(layers=(3, 9))
    save_trace(made, shipped / "two.npz")
    return "two"


def test_commands_take_a_name_and_price_the_layers_it_has(two_layers: str, topomoe: Call) -> None:
    common = ("--trace", two_layers, "--model", "mixtral-8x7b", "--grid", "4x4")
    for words in (
        ("place", *common, "--method", "exact"),
        ("simulate", *common, "--batches", 2, "--batch-tokens", 256),
    ):
        status, _, err = topomoe(*words)
        assert status == 0, err
        assert err.count(NOTE) == 1
        assert err.count("comes with topomoe") == 1
    status, _, err = topomoe("simulate", "--trace", two_layers, "--grid", "4x4")
    assert status == 2
    assert "no model preset has 2 MoE layers" in err


def test_a_trace_of_fewer_layers_is_priced_as_a_model_of_those(two_layers: str) -> None:
    """Study, placements and delays take the model's shape with the trace's layers."""
    given = {"trace": two_layers, "model": "mixtral-8x7b", "grid": "4x4"}
    study = prepare(StudySettings(**given))
    placements = prepare_placements(PlacementsSettings(**given))
    sweep = prepare_sweep(DelaySweepSettings(**given))
    for found in (study, placements, sweep):
        assert found.model == replace(tm.MODELS["mixtral-8x7b"], num_layers=2)
        assert found.notes.count(NOTE) == 1


@pytest.mark.parametrize("layers", [1, 2])
def test_a_scenario_stands_for_the_layers_of_its_trace(two_layers: str, layers: int) -> None:
    """Where one of two layers is kept it stands for both, and for no layer beyond them."""
    problems = build_problems(
        ScenarioSettings(
            trace=two_layers,
            model="mixtral-8x7b",
            grid="4x4",
            topologies=("mesh", "torus"),
            layouts=("decode all",),
            layers=layers,
            pool=2,
            draws=2,
            epochs=60,
            test_epochs=40,
            episode_length=20,
            decode_tokens=32,
            domain_weight=0.0,
        )
    )
    assert problems.notes.count(NOTE) == 1
    assert problems.training.cluster.layer_scale == 2 / layers


def test_a_step_of_fewer_layers_is_their_part_of_the_whole() -> None:
    """Routing, attention and dense layers add up over layers: half of them take half the time."""
    trace = tm.synthetic_trace("mixtral-8x7b", requests=8, positions=20).filter(layers=(3, 9))
    placement = tm.place(trace, devices=4, slots=8, method="exact")
    topology = tm.topologies.make("torus", grid=(2, 2))
    model = tm.MODELS["mixtral-8x7b"]
    two, four = (
        tm.simulate(
            each, topology, replace(placement, slot_expert=np.tile(placement.slot_expert, (n, 1)),
            slot_share=np.tile(placement.slot_share, (n, 1))),
            replace(model, num_layers=2 * n, vocabulary=0), batch_tokens=64, batches=2,
        ).times.other
        for n, each in ((1, trace), (2, replace(trace, experts=np.tile(trace.experts, (2, 1, 1)))))
    )  # fmt: skip
    np.testing.assert_allclose(four, 2 * two)


def test_more_layers_than_the_model_are_said_too(tmp_path: Path) -> None:
    made = tm.synthetic_trace("mixtral-8x7b", requests=4, positions=20)
    save_trace(replace(made, experts=np.tile(made.experts, (2, 1, 1))), tmp_path / "long.npz")
    model, trace = load_or_make(str(tmp_path / "long.npz"), "mixtral-8x7b", 0, 0)
    assert model.num_layers == 64
    assert trace.notes == (
        "mixtral-8x7b: the trace has 64 MoE layers, the model 32: all 64 are priced",
    )


def test_tokens_with_different_numbers_of_experts_may_have_any_model(tmp_path: Path) -> None:
    """What tokens usually have takes the place of the model's top-k."""
    made = tm.synthetic_trace("mixtral-8x7b", requests=4, positions=20)
    wide = np.pad(made.experts, ((0, 0), (0, 0), (0, 2)), constant_values=-1)
    wide[:, 1:] = np.arange(4)
    wide[:, 1::5] = -1
    save_trace(replace(made, experts=wide), tmp_path / "x.npz")
    model, trace = load_or_make(str(tmp_path / "x.npz"), "mixtral-8x7b", 0, 0)
    assert (model.top_k, trace.top_k) == (3, 4)
    average = f"{trace.pairs_per_token:.3g}"
    assert trace.notes == (f"tokens have {average} experts on average, at most 4",)
    with pytest.raises(InputError, match="32 MoE layers, 8 experts and top-3"):
        load_or_make(str(tmp_path / "x.npz"), "", 0, 0)


def test_the_trace_that_ships_is_what_it_is_said_to_be() -> None:
    folder = Path(str(files("topomoe").joinpath("traces")))
    if not (folder / f"{BUNDLED}.npz").is_file():
        pytest.skip(f"no bundled trace {BUNDLED}")
    trace = load_trace(BUNDLED)
    assert BUNDLED in bundled()
    assert (trace.num_experts, trace.top_k, len(trace.domain_names)) == (64, 6, 3)
    assert trace.num_layers >= 6
    assert np.bincount(trace.request_domain, minlength=3).min() >= 2
    assert 1e6 <= (folder / f"{BUNDLED}.npz").stat().st_size <= 3e6
    facts = tomllib.loads((folder / f"{BUNDLED}.toml").read_text(encoding="utf-8"))
    assert {"command", "seed", "commit"} <= facts.keys()
    assert facts["command"].startswith("topomoe ")
    assert isinstance(facts["seed"], int)
    assert re.fullmatch(r"[0-9a-f]{7,40}", facts["commit"])
