"""Placement files of the serving engines: what is written, what comes back, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import topomoe as tm
from topomoe.formats import placement_formats
from topomoe.model import MODELS
from topomoe.placement import (
    Placement,
    load_placement,
    logical_count,
    logical_to_physical,
    physical_to_logical,
    save_placement,
)
from topomoe.topologies.errors import InputError

SUFFIX = {"npz": ".npz", "sglang": ".json", "trtllm": ".yaml", "eplb": ".npz"}


def v3(slots: int = 288, devices: int = 32, experts: int = 256, method: str = "eplb") -> Placement:
    load = np.random.default_rng(1).lognormal(0, 0.7, (58, experts))
    return tm.place(load, devices, slots, method=method)


def small(seed: int, layers: int, experts: int, devices: int, per_device: int) -> Placement:
    load = np.random.default_rng(seed).lognormal(0, 1, (layers, experts))
    return tm.place(load, devices, devices * per_device, method="eplb")


@given(
    seed=st.integers(0, 1000),
    layers=st.integers(1, 3),
    experts=st.integers(1, 9),
    devices=st.integers(1, 5),
    more=st.integers(0, 2),
    name=st.sampled_from(placement_formats()),
)
def test_slots_survive_every_format(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    layers: int,
    experts: int,
    devices: int,
    more: int,
    name: str,
) -> None:
    placement = small(seed, layers, experts, devices, -(-experts // devices) + more)
    path = tmp_path_factory.mktemp("formats") / f"placement{SUFFIX[name]}"
    save_placement(placement, path, format=name)
    back = load_placement(path, devices=devices)
    np.testing.assert_array_equal(back.slot_expert, placement.slot_expert)
    assert (back.num_devices, back.num_experts) == (devices, experts)
    if name == "npz":
        np.testing.assert_array_equal(back.slot_share, placement.slot_share)
    else:
        replicas = np.take_along_axis(back.replicas(), back.slot_expert.astype(np.int64), axis=1)
        np.testing.assert_array_equal(back.slot_share, 1.0 / replicas)


def test_sglang_gets_one_key_and_all_layers_with_dense_rows_of_zeros(tmp_path: Path) -> None:
    placement = v3()
    path = tmp_path / "location.json"
    assert save_placement(placement, path, format="sglang", model="deepseek-v3") == ()
    stored = json.loads(path.read_text())
    assert list(stored) == ["physical_to_logical_map"]
    rows = np.array(stored["physical_to_logical_map"])
    assert rows.shape == (61, 288)
    assert not rows[:3].any()
    np.testing.assert_array_equal(rows[3:], placement.slot_expert)
    for read in (path, path.read_text()):
        for model in (None, "deepseek-v3"):
            back = load_placement(read, devices=32, model=model)
            np.testing.assert_array_equal(back.slot_expert, placement.slot_expert)


def test_a_torch_file_of_the_sglang_map_is_read(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    placement = v3()
    rows = np.concatenate([np.zeros((3, 288), dtype=np.int64), placement.slot_expert])
    torch.save({"physical_to_logical_map": torch.from_numpy(rows)}, tmp_path / "location.pt")
    back = load_placement(tmp_path / "location.pt", devices=32, model="deepseek-v3")
    np.testing.assert_array_equal(back.slot_expert, placement.slot_expert)


def test_trivial_is_the_contiguous_placement() -> None:
    back = load_placement("trivial", devices=32, model="deepseek-v3")
    assert back.num_slots == 256
    np.testing.assert_array_equal(back.slot_expert[57], np.arange(256))
    with pytest.raises(InputError, match="trivial: needs the model"):
        load_placement("trivial", devices=32)


def test_trtllm_numbers_layers_after_the_dense_ones(tmp_path: Path) -> None:
    placement = v3()
    path = tmp_path / "balancer.yaml"
    assert save_placement(placement, path, format="trtllm", model="deepseek-v3") == ()
    stored = yaml.safe_load(path.read_text())
    assert set(stored) == {"num_slots", "layer_updates_per_iter", "initial_global_assignments"}
    assert (stored["num_slots"], stored["layer_updates_per_iter"]) == (288, 0)
    assert list(stored["initial_global_assignments"]) == list(range(3, 61))
    np.testing.assert_array_equal(stored["initial_global_assignments"][7], placement.slot_expert[4])
    back = load_placement(path, devices=32, model="deepseek-v3")
    np.testing.assert_array_equal(back.slot_expert, placement.slot_expert)


def test_the_eplb_arrays_are_inverse_to_each_other(tmp_path: Path) -> None:
    placement = v3()
    save_placement(placement, tmp_path / "maps.npz", format="eplb")
    stored = dict(np.load(tmp_path / "maps.npz"))
    assert {name: array.dtype for name, array in stored.items()} == dict.fromkeys(
        ("phy2log", "log2phy", "logcnt"), np.dtype(np.int64)
    )
    assert stored["log2phy"].shape == (58, 256, stored["logcnt"].max())
    for layer in (0, 57):
        for expert in range(256):
            slots = stored["log2phy"][layer, expert]
            held = slots[slots >= 0]
            assert len(held) == stored["logcnt"][layer, expert]
            assert (stored["phy2log"][layer, held] == expert).all()


def test_helper_maps_have_vllms_width_and_count_every_slot() -> None:
    placement = v3()
    wide = logical_to_physical(placement, width=288 - 256 + 1)
    assert wide.shape == (58, 256, 33)
    assert ((wide >= 0).sum(axis=2) == logical_count(placement)).all()
    np.testing.assert_array_equal(physical_to_logical(placement), placement.slot_expert)
    with pytest.raises(InputError, match="width must be >="):
        logical_to_physical(placement, width=1)


@pytest.mark.parametrize("name", ["sglang", "trtllm", "eplb"])
def test_lost_shares_are_said(tmp_path: Path, name: str) -> None:
    weighted = v3(slots=384, devices=128, method="exact")
    notes = save_placement(weighted, tmp_path / f"p{SUFFIX[name]}", format=name)
    assert any("shares are lost" in note for note in notes)
    assert save_placement(weighted, tmp_path / "p.npz") == ()


@pytest.mark.parametrize("name", ["sglang", "trtllm"])
@pytest.mark.parametrize("model", [None, "deepseek-v3"])
def test_a_routed_shared_expert_is_replaced_by_routed_ones(
    tmp_path: Path, name: str, model: str | None
) -> None:
    load = np.random.default_rng(2).lognormal(0, 0.7, (58, 257))
    load[:, 256] = load[:, :256].sum(axis=1) / 8
    placement = tm.place(load, 128, 384, method="eplb")
    path = tmp_path / f"p{SUFFIX[name]}"
    notes = save_placement(placement, path, format=name, model=model, load=load)
    count = int((placement.slot_expert == 256).sum())
    assert any(f"shared expert apart: its {count} slots" in note for note in notes)
    back = load_placement(path, devices=128, model="deepseek-v3")
    assert back.num_experts == 256
    kept = placement.slot_expert < 256
    np.testing.assert_array_equal(back.slot_expert[kept], placement.slot_expert[kept])
    held = np.sort(back.slot_expert.reshape(58, 128, 3), axis=2)
    assert (held[..., 1:] != held[..., :-1]).all()  # no device holds an expert twice


def test_a_placement_of_no_preset_is_written_without_dense_layers_and_that_is_said(
    tmp_path: Path,
) -> None:
    placement = small(0, 4, 6, 2, 4)
    notes = save_placement(placement, tmp_path / "p.json", format="sglang")
    assert any("without dense layers" in note for note in notes)
    assert len(json.loads((tmp_path / "p.json").read_text())["physical_to_logical_map"]) == 4


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    placement = v3()
    path = tmp_path / "p.json"
    with pytest.raises(InputError, match="did you mean 'sglang'"):
        save_placement(placement, path, format="sglan")
    with pytest.raises(InputError, match="60 MoE layers of kimi-k2, got 58"):
        save_placement(placement, path, format="sglang", model="kimi-k2")
    with pytest.raises(InputError, match="load must be"):
        save_placement(placement, path, format="sglang", load=np.ones((2, 2)))
    assert not path.exists()
    save_placement(placement, path, format="sglang")
    with pytest.raises(InputError, match=r"p\.json: .*pass devices="):
        load_placement(path)
    with pytest.raises(InputError, match="slots must be a multiple of devices"):
        load_placement(path, devices=31)
    with pytest.raises(InputError, match="must have all 24 layers of gpt-oss-20b, got 61"):
        load_placement(path, devices=32, model="gpt-oss-20b")
    save_placement(placement, tmp_path / "p.npz")
    with pytest.raises(InputError, match="is for 32 devices, not 64"):
        load_placement(tmp_path / "p.npz", devices=64)
    with pytest.raises(InputError, match="60 MoE layers"):
        load_placement(tmp_path / "p.npz", model="kimi-k2")


ROW = list(range(8)) * 2
BAD_LOCATIONS: dict[str, tuple[Any, str]] = {
    "another key": ({"physical_to_logical_map": [ROW], "step": 1}, "only key"),
    "no key": ({}, "only key, got nothing"),
    "loads": ({"logical_count": [[1, 2]]}, "holds loads"),
    "a list": ([ROW], "must be a mapping, got a list"),
    "ragged": ({"physical_to_logical_map": [ROW, ROW[1:]]}, "one length, got 15 and 16"),
    "one deep": ({"physical_to_logical_map": ROW}, "2 deep"),
    "floats": ({"physical_to_logical_map": [[*ROW[:-1], 1.5]]}, "whole numbers only, got float"),
    "booleans": ({"physical_to_logical_map": [[*ROW[:-1], True]]}, "whole numbers only, got bool"),
    "text": ({"physical_to_logical_map": [[*ROW[:-1], "1"]]}, "whole numbers only, got text"),
    "negative": ({"physical_to_logical_map": [[*ROW[:-1], -1]]}, "got -1 in slot 15 of layer 0"),
    "huge": ({"physical_to_logical_map": [[*ROW[:-1], 10**30]]}, "64 bits"),
    "far": ({"physical_to_logical_map": [[*ROW[:-1], 10**12]]}, "slots must be >= experts"),
    "an expert lacks": (
        {"physical_to_logical_map": [ROW, [0, 0, *ROW[2:8]] * 2]},
        "layer 1 lacks",
    ),
    "empty": ({"physical_to_logical_map": []}, "must not be empty"),
    "empty rows": ({"physical_to_logical_map": [[], []]}, "must not be empty"),
    "nothing": ({"physical_to_logical_map": None}, "must be a tensor"),
}


@pytest.mark.parametrize("case", BAD_LOCATIONS)
def test_a_bad_location_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    value, message = BAD_LOCATIONS[case]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=message) as caught:
        load_placement(path, devices=4)
    assert "\n" not in str(caught.value)
    assert "bad.json" in str(caught.value)


BAD_BALANCERS = {
    "no slots": ("initial_global_assignments: {3: [0, 1]}", "no key num_slots"),
    "unknown key": ("num_slots: 2\nslots: 1\ninitial_global_assignments: {3: [0, 1]}", "unknown"),
    "length": ("num_slots: 4\ninitial_global_assignments: {3: [0, 1]}", "num_slots = 4 slots"),
    "gap": ("num_slots: 2\ninitial_global_assignments: {3: [0, 1], 5: [0, 1]}", "layers 3..4"),
    "text layer": ("num_slots: 2\ninitial_global_assignments: {a: [0, 1]}", "a layer must be"),
    "float": ("num_slots: 2\ninitial_global_assignments: {3: [0, 1.0]}", "whole numbers only"),
    "yes": ("num_slots: 2\ninitial_global_assignments: {3: [0, yes]}", "got bool"),
    "empty": ("num_slots: 2\ninitial_global_assignments: {}", "must not be empty"),
    "twice": ("num_slots: 2\nnum_slots: 2", "'num_slots' comes twice"),
    "layer twice": ("num_slots: 2\ninitial_global_assignments: {3: [0, 1], 3: [1, 0]}", "twice"),
    "no mapping": ("- 1\n- 2", "must be a mapping, got a list"),
    "empty file": ("", "must be a mapping, got nothing"),
    "tag": ("num_slots: !!python/object/apply:os.system ['true']", "no YAML of plain values"),
    "alias": ("a: &a [0, 1]\nb: [*a, *a]", "anchors and aliases"),
    "broken": ("num_slots: [1, 2", "no YAML"),
    "deep": ("num_slots: " + "[" * 500 + "]" * 500, "too deeply"),
    "long number": ("num_slots: " + "9" * 5000, "bad.yaml"),
    "list as key": ("? [1, 2]\n: 3", "a key must be|no YAML"),
}


@pytest.mark.parametrize("case", BAD_BALANCERS)
def test_a_bad_balancer_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    text, message = BAD_BALANCERS[case]
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_placement(path, devices=2)
    assert "\n" not in str(caught.value)
    assert "bad.yaml" in str(caught.value)


def test_trtllm_layers_must_be_the_models(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    save_placement(v3(), path, format="trtllm")
    path.write_text(path.read_text().replace("\n  60: ", "\n  61: "))
    with pytest.raises(InputError, match=r"layers 3\.\.60 of deepseek-v3"):
        load_placement(path, devices=32, model="deepseek-v3")


def test_eplb_arrays_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    save_placement(small(0, 2, 6, 2, 4), path, format="eplb")
    good = dict(np.load(path))

    def refused(match: str, **changed: Any) -> None:
        np.savez(path, **{**good, **changed})
        with pytest.raises(InputError, match=match) as caught:
            load_placement(path, devices=2)
        assert "p.npz" in str(caught.value)

    refused("logcnt must count", logcnt=good["logcnt"][:, ::-1] + 1)
    refused("log2phy must list", log2phy=good["log2phy"][:, ::-1])
    refused("log2phy must be in -1", log2phy=good["log2phy"] + 5)
    refused("log2phy must be \\[2, 6", log2phy=good["log2phy"][:1])
    refused("phy2log must be integers", phy2log=good["phy2log"] * 1.0)
    refused("phy2log must be integers", phy2log=good["phy2log"][0])
    refused("must be in 0..5, got 6", phy2log=good["phy2log"] + 1)


def test_numbers_of_a_stored_placement_that_no_placement_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    save_placement(small(0, 2, 6, 2, 4), path)
    good = dict(np.load(path))
    for name, value, match in (
        ("num_experts", np.int64(2**40), r"num_experts must be in 1\.\.8, the slots, got 1099"),
        ("num_experts", np.int64(-1), "num_experts must be in"),
        ("num_devices", np.int64(2**40), "slots must be a multiple of devices"),
        ("slot_expert", good["slot_expert"].astype(np.int64) + 2**32, r"must lie in 0\.\.5"),
        ("slot_expert", good["slot_expert"][0], "slot_expert must be"),
        ("slot_expert", np.int32(3), "num_experts must be in"),
    ):
        np.savez(path, **{**good, name: value})
        with pytest.raises(InputError, match=match) as caught:
            load_placement(path)
        assert "p.npz" in str(caught.value)


def test_every_preset_gets_as_many_rows_as_it_has_layers(tmp_path: Path) -> None:
    for name, model in MODELS.items():
        rows = np.tile(np.arange(model.num_experts), (model.num_layers, 1))
        placement = Placement(rows, np.ones(rows.shape), 1, model.num_experts)
        save_placement(placement, tmp_path / "p.json", format="sglang", model=name)
        stored = json.loads((tmp_path / "p.json").read_text())["physical_to_logical_map"]
        assert len(stored) == model.num_layers + model.num_dense_layers
