"""Files that hold counts of experts: every kind is read to the same loads, bad ones refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import topomoe as tm
from topomoe.formats import load_expert_loads
from topomoe.topologies.errors import InputError

LAYERS, EXPERTS, STEPS = 4, 6, 3


def counts(seed: int = 0, dense: int = 1, steps: int = STEPS) -> np.ndarray:
    """Return counts [steps, dense + LAYERS, EXPERTS], zero in the dense layers."""
    made = np.random.default_rng(seed).integers(1, 50, (steps, dense + LAYERS, EXPERTS))
    made[:, :dense] = 0
    return made


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".json", ".csv", "inline", ".pt"])
def test_the_same_counts_come_from_every_plain_file(tmp_path: Path, suffix: str) -> None:
    given = counts()[0]
    path: Path | str = tmp_path / f"load{suffix}"
    if suffix == ".npy":
        np.save(path, given)
    elif suffix == ".npz":
        np.savez(path, load=given, other=np.ones(3))
    elif suffix == ".csv":
        np.savetxt(path, given, fmt="%d", delimiter=", ", header="experts 0..5")
    elif suffix == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({"logical_count": torch.from_numpy(given), "rank": 0}, path)
    else:
        text = json.dumps({"logical_count": given.tolist(), "more": "allowed"})
        if suffix == "inline":
            path = text
        else:
            Path(path).write_text(text)
    loads = load_expert_loads(path)
    np.testing.assert_array_equal(loads.load, given[None, 1:])
    assert loads.load.dtype == np.float64
    assert any("dropped layers without load (dense): 0" in note for note in loads.notes)


@pytest.mark.parametrize("steps", [1, 3])
def test_sglangs_logical_count_keeps_its_steps(tmp_path: Path, steps: int) -> None:
    given = counts(steps=steps)
    (tmp_path / "a.json").write_text(json.dumps({"logical_count": given.tolist()}))
    loads = load_expert_loads(tmp_path / "a.json")
    np.testing.assert_array_equal(loads.load, given[:, 1:])
    np.testing.assert_array_equal(loads.total, given[:, 1:].sum(axis=0))


def test_a_stat_dump_gives_its_buffered_steps(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    given = counts()
    buffer = np.concatenate([given, np.zeros_like(given)]).astype(np.int32)
    dump = {
        "rank": 0,
        "logical_count": torch.from_numpy(buffer),
        "average_utilization_rate_over_window": None,
    }
    path = tmp_path / "expert_distribution_recorder_1732300000.25.pt"
    torch.save(dump, path)
    for read in (path, tmp_path):
        loads = load_expert_loads(read)
        np.testing.assert_array_equal(loads.load, given[:, 1:])
        assert any("3 of 6 steps without load" in note for note in loads.notes)


def test_per_pass_dumps_are_mapped_to_logical_experts_and_summed_over_ranks(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    slots = 8
    to_logical = np.stack([rng.permutation(np.arange(slots) % EXPERTS) for _ in range(LAYERS + 1)])
    expected = np.zeros((STEPS, LAYERS + 1, EXPERTS))
    for rank in range(2):
        records = []
        for step in range(STEPS):
            physical = rng.integers(0, 9, (LAYERS + 1, slots)).astype(np.int32)
            physical[0] = 0
            for layer, slot in np.ndindex(physical.shape):
                expected[step, layer, to_logical[layer, slot]] += physical[layer, slot]
            records.append(
                {
                    "forward_pass_id": 40 + step,
                    "rank": rank,
                    "gatherer_key": "primary",
                    "global_physical_count": torch.from_numpy(physical),
                }
            )
        torch.save(
            {"records": records, "last_physical_to_logical_map": torch.from_numpy(to_logical)},
            tmp_path / f"expert_distribution_recorder_17.{rank}_{rank}.pt",
        )
    loads = load_expert_loads(tmp_path)
    np.testing.assert_array_equal(loads.load, expected[:, 1:])
    with pytest.raises(InputError, match="holds counts, no tokens: no trace"):
        tm.load_trace(tmp_path)


def test_trtllm_statistics_are_summed_over_ranks(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    (tmp_path / "meta_info.json").write_text('{"num_experts": 6, "num_experts_per_token": 2}')
    expected = np.zeros((STEPS, LAYERS, EXPERTS))
    for rank in range(11):
        given = counts(rank, dense=0)
        expected += given
        arrays = {
            f"{100 + step}_{3 + layer}": given[step, layer].astype(np.int32)
            for step in range(STEPS)
            for layer in range(LAYERS)
        }
        save_file(arrays, tmp_path / f"rank{rank}.safetensors")
    save_file({"100_3": np.zeros((5, 2), dtype=np.int32)}, tmp_path / "rank0_raw.safetensors")
    loads = load_expert_loads(tmp_path)
    np.testing.assert_array_equal(loads.load, expected)
    assert "counts of layers 3..6" in loads.notes

    with pytest.raises(InputError, match=r"layers 1\.\.26 of deepseek-v2-lite, got 4 layers in 3"):
        load_expert_loads(tmp_path, model="deepseek-v2-lite")

    def refused(match: str, **arrays: Any) -> None:
        save_file(arrays, tmp_path / "rank0.safetensors")
        with pytest.raises(InputError, match=match):
            load_expert_loads(tmp_path)

    refused("keys must be 'iteration_layer'", x=np.ones(6))
    refused(r"100_3 must be counts \[6\]", **{"100_3": np.ones(5)})
    refused("finite and >= 0", **{"100_3": -np.ones(6)})
    refused("finite and >= 0", **{"100_3": np.full(6, np.nan)})
    refused("no rank has counts 100_9", **{"100_3": np.ones(6), "101_9": np.ones(6)})
    whole = (tmp_path / "rank1.safetensors").read_bytes()
    for cut in range(0, len(whole), 37):
        (tmp_path / "rank1.safetensors").write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"rank1\.safetensors: truncated"):
            load_expert_loads(tmp_path)
    (tmp_path / "meta_info.json").write_text('{"num_experts": 6}')
    with pytest.raises(InputError, match=r"meta_info\.json: no key num_experts_per_token"):
        load_expert_loads(tmp_path)


def test_an_adrs_history_is_read_step_by_step(tmp_path: Path) -> None:
    given = counts(dense=0)
    path = tmp_path / "history.json"
    entries = [{"logical_expert_load": step.tolist()} for step in given]
    path.write_text(json.dumps({"load_history": entries}))
    np.testing.assert_array_equal(load_expert_loads(path).load, given)
    entries[2]["logical_expert_load"] = entries[2]["logical_expert_load"][1:]
    path.write_text(json.dumps({"load_history": entries}))
    with pytest.raises(InputError, match=r"load_history\[2\]\.logical_expert_load must be shaped"):
        load_expert_loads(path)


def test_a_trace_gives_its_load_as_one_step(tmp_path: Path) -> None:
    trace = tm.synthetic_trace("gpt-oss-20b", requests=3, positions=10)
    tm.save_trace(trace, tmp_path)
    loads = load_expert_loads(tmp_path)
    np.testing.assert_array_equal(loads.load, trace.load()[None])


def test_layers_and_experts_must_be_the_models(tmp_path: Path) -> None:
    path = tmp_path / "load.npy"
    rng = np.random.default_rng(0)
    every = rng.integers(1, 9, (27, 64))
    every[0] = 0
    for given in (every, every[1:]):
        np.save(path, given)
        loads = load_expert_loads(path, model="deepseek-v2-lite")
        np.testing.assert_array_equal(loads.load, every[None, 1:])
    for given, match in (
        (every[:20], "26 MoE layers of deepseek-v2-lite or all 27, got 20"),
        (every[1:, :60], "64 experts of deepseek-v2-lite, got 60"),
        (every + 1, "must have no load"),
        (every[::-1], "must have no load"),
    ):
        np.save(path, given)
        with pytest.raises(InputError, match=match):
            load_expert_loads(path, model="deepseek-v2-lite")


BAD: dict[str, tuple[str, str, str]] = {
    "nan": ("a.json", '{"logical_count": [[1, NaN]]}', "numbers must be finite, got NaN"),
    "infinite": ("a.json", '{"logical_count": [[1, 1e999]]}', "numbers must be finite, got 1e999"),
    "negative": ("a.json", '{"logical_count": [[1, -2]]}', "got -2.0 for expert 1 of layer 0"),
    "zero": ("a.json", '{"logical_count": [[0, 0]]}', "must not be all zero"),
    "ragged": ("a.json", '{"logical_count": [[1, 2], [1]]}', "rows of one length, got 1 and 2"),
    "true": ("a.json", '{"logical_count": [[1, true]]}', "numbers only, got bool"),
    "text": ("a.json", '{"logical_count": [[1, "2"]]}', "numbers only, got text"),
    "four deep": ("a.json", "[[[[1]]]]", "numbers only, got a list"),
    "twice": ("a.json", '{"logical_count": [[1]], "logical_count": [[2]]}', "comes twice"),
    "other keys": ("a.json", '{"count": [[1]]}', "no key logical_count or load_history"),
    "deep": ("a.json", "[" * 100000 + "]" * 100000, "nested too deeply"),
    "truncated": ("a.json", '{"logical_count": [[1, 2', "is no JSON"),
    "empty": ("a.json", "", "is no JSON"),
    "digits": ("a.json", "[" + "9" * 5000 + "]", "is no JSON|64 bits"),
    "words": ("a.csv", "1,2\n3,x\n", "line 2 must be numbers"),
    "short row": ("a.csv", "1,2\n3\n", "line 2 must have 2 numbers, got 1"),
    "csv nan": ("a.csv", "1,2\n3,nan\n", "got nan for expert 1 of layer 1"),
    "csv empty": ("a.csv", "# nothing\n", "holds no load"),
    "no history": ("a.json", '{"load_history": []}', "not empty, got an empty one"),
    "another ending": ("a.yaml", "num_slots: 3", "a load ends in .pt, "),
    "no entry": ("a.json", '{"load_history": [{}]}', "no key logical_expert_load"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_text_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    name, text, message = BAD[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_expert_loads(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_bad_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for given, match in (
        (np.ones((2, 2, 2, 2)), "got shape"),
        (np.ones((0, 3)), "got shape"),
        (np.array([["a"]]), "must be numbers"),
        (np.ones((2, 2), dtype=bool), "must be numbers"),
        (np.ones((2, 2), dtype=complex), "must be numbers"),
        (np.array([{}], dtype=object), "Python objects, which are never loaded"),
        (np.ones((3, 2, 2), dtype=np.uint8), "is a trace as vLLM returns it"),
    ):
        np.save(path, given, allow_pickle=True)
        with pytest.raises(InputError, match=match):
            load_expert_loads(path)
    with pytest.raises(InputError, match="no such file"):
        load_expert_loads(tmp_path / "absent.npy")
    np.savez(tmp_path / "b.npz", a=np.ones((2, 2)), b=np.ones((2, 2)))
    with pytest.raises(InputError, match="must hold one array"):
        load_expert_loads(tmp_path / "b.npz")
    with pytest.raises(InputError, match="cannot be read"):
        load_expert_loads(tmp_path / ("a" * 300))
