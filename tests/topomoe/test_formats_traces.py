"""Trace formats of serving engines: requests, positions and experts come back as they ran."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import topomoe as tm
from topomoe.formats import load_expert_loads
from topomoe.model import MODELS
from topomoe.topologies.errors import InputError

LITE = MODELS["deepseek-v2-lite"]  # 1 dense and 26 MoE layers, 64 experts, top-6


def experts(rows: int, seed: int = 0, layers: int = 26, number: int = 64, k: int = 6) -> Any:
    """Return distinct experts [rows, 1 + layers, k], zero in the dense first layer."""
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((rows, layers, number)), axis=-1)[..., :k]
    return np.concatenate([np.zeros((rows, 1, k), dtype=np.int64), ids], axis=1)


def sglang(ids: Any, name: str = "r", **meta: Any) -> dict[str, Any]:
    text = base64.b64encode(ids.astype("<i4").tobytes()).decode()
    return {"text": "...", "meta_info": {"id": name, "routed_experts": text, **meta}}


def npy(ids: Any, dtype: Any = np.uint8) -> str:
    buffer = io.BytesIO()
    np.save(buffer, ids.astype(dtype))
    return base64.b64encode(buffer.getvalue()).decode()


def lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def same(trace: tm.RoutingTrace, q: int, ids: Any) -> None:
    np.testing.assert_array_equal(trace.requests[q].routed_experts, ids[:, 1:])


def test_sglang_responses_become_requests(tmp_path: Path) -> None:
    first, second = experts(9), experts(4, seed=1)
    path = lines(
        tmp_path / "law.jsonl",
        [
            sglang(first, "a", prompt_tokens=6, completion_tokens=4),
            sglang(second, "b", prompt_tokens=6, completion_tokens=2) | {"domain": "math"},
        ],
    )
    for model in ("deepseek-v2-lite", LITE):
        trace = tm.load_trace(path, model=model)
        assert trace.request_ids == ("a", "b")
        assert [r.domain for r in trace.requests] == ["law", "math"]
        assert (trace.num_layers, trace.num_experts, trace.top_k) == (26, 64, 6)
        same(trace, 0, first)
        same(trace, 1, second)
        assert trace.requests[0].position.tolist() == list(range(9))
        assert trace.requests[1].position.tolist() == [3, 4, 5, 6]  # the first three left out
        assert trace.prompt_len.tolist() == [6, 6]
        assert trace.filter(part="output").num_positions == 3 + 1
        assert any("2 of 2 requests have no row for their last token" in n for n in trace.notes)
        assert any("dropped 1 dense layers" in n for n in trace.notes)


def test_the_preset_whose_shape_fits_the_tokens_is_taken(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [sglang(experts(9), prompt_tokens=6, completion_tokens=4)])
    trace = tm.load_trace(path)
    assert trace.num_experts == 64
    same(trace, 0, experts(9))


def test_a_folder_of_responses_of_one_file_each_is_one_domain(tmp_path: Path) -> None:
    for number in range(3):
        response = sglang(experts(4, number), f"r{number}")
        (tmp_path / f"r{number}.json").write_text(json.dumps(response, indent=1))
    trace = tm.load_trace(tmp_path, model=LITE)
    assert trace.request_ids == ("r0", "r1", "r2")
    assert trace.domain_names == ("all",)
    same(trace, 2, experts(4, 2))


def test_an_sglang_response_without_a_shape_needs_the_model(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", [sglang(experts(9))])
    with pytest.raises(InputError, match=r"line 1: meta_info\.routed_experts .*name the model"):
        tm.load_trace(path)
    with pytest.raises(InputError, match="must be rows of 24 layers x top-4 int32 = 384 bytes"):
        tm.load_trace(path, model="gpt-oss-20b")
    assert tm.load_trace(path, model=LITE).num_positions == 9


@pytest.mark.parametrize(("dtype", "number"), [(np.uint8, 64), (np.uint16, 300)])
def test_vllm_choices_become_requests(tmp_path: Path, dtype: Any, number: int) -> None:
    first, second = experts(9, number=number), experts(6, 1, number=number)
    answer = {
        "id": "cmpl-1",
        "choices": [
            {"index": 0, "routed_experts": npy(first, dtype)},
            {"index": 1, "routed_experts": npy(second, dtype), "routed_experts_prompt_start": 3},
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5},
    }
    whole = {
        "id": "cmpl-2",
        "prompt_token_ids": [1, 2, 3, 4],
        "choices": [{"routed_experts": npy(first, dtype), "token_ids": [5, 6, 7, 8, 9, 10]}],
    }
    path = tmp_path / "answers.json"
    path.write_text(json.dumps([answer, whole]))
    trace = tm.load_trace(path, num_experts=number)
    assert trace.request_ids == ("cmpl-1-0", "cmpl-1-1", "cmpl-2")
    assert trace.domain_names == ("answers",)
    same(trace, 0, first)
    same(trace, 1, second)
    assert trace.requests[1].position.tolist() == [3, 4, 5, 6, 7, 8]
    assert trace.prompt_len.tolist() == [5, 5, 4]
    ids = trace.requests[2].output_token_ids
    assert ids is not None
    assert ids.tolist() == [5, 6, 7, 8, 9, 10]


def test_saved_arrays_of_vllm_become_requests(tmp_path: Path) -> None:
    for number in range(2):
        np.save(tmp_path / f"q{number}.npy", experts(5 + number, number).astype(np.uint8))
    trace = tm.load_trace(tmp_path)
    assert trace.request_ids == ("q0", "q1")
    same(trace, 1, experts(6, 1))
    assert tm.load_trace(tmp_path / "q0.npy").num_positions == 5
    np.testing.assert_array_equal(load_expert_loads(tmp_path).load[0], trace.load())
    np.save(tmp_path / "q2.npy", experts(3))
    with pytest.raises(InputError, match=r"q2\.npy: routed_experts must be uint8 or uint16"):
        tm.load_trace(tmp_path)


def test_a_saved_and_reloaded_trace_is_the_same(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [sglang(experts(9), prompt_tokens=6, completion_tokens=4)])
    trace = tm.load_trace(path)
    tm.save_trace(trace, tmp_path / "saved")
    back = tm.load_trace(tmp_path / "saved")
    np.testing.assert_array_equal(back.experts, trace.experts)
    np.testing.assert_array_equal(back.position, trace.position)
    assert back.num_experts == 64


def test_a_recorded_trace_survives_as_responses(
    tmp_path: Path, trace_folder: Callable[[str], Path]
) -> None:
    trace = tm.load_trace(trace_folder("deepseek-v2-lite"))
    responses = []
    for request in trace.requests:
        rows = request.routed_experts.astype(np.int64)
        dense = np.zeros((len(rows), 1, 6), dtype=np.int64)
        ids = np.concatenate([dense, rows], axis=1)
        responses.append(sglang(ids, request.request_id) | {"domain": request.domain})
    back = tm.load_trace(lines(tmp_path / "responses.jsonl", responses), model=LITE)
    np.testing.assert_array_equal(back.experts, trace.experts)
    assert back.request_ids == trace.request_ids
    np.testing.assert_array_equal(back.domain_load(), trace.domain_load())


def test_moe_balance_lines_become_requests(tmp_path: Path) -> None:
    ids = experts(20, layers=3, number=8, k=2)
    rows = [
        {
            "layer": 10 + layer,
            "batch_id": batch,
            "origin_rows": list(range(10)),
            "topk_experts": ids[batch * 10 : batch * 10 + 10, 1 + layer].tolist(),
            "weights": [[0.5, 0.5]] * 10,
            "source_file": "data/gsm8k.json",
        }
        for layer in (2, 0, 1)
        for batch in range(2)
    ]
    trace = tm.load_trace(lines(tmp_path / "a.jsonl", rows), num_experts=8)
    assert trace.request_ids == ("batch-0", "batch-1")
    assert trace.domain_names == ("gsm8k",)
    same(trace, 0, ids[:10])
    same(trace, 1, ids[10:])
    named = [row | {"request_id": 7} for row in rows]
    joined = tm.load_trace(lines(tmp_path / "b.jsonl", named), num_experts=8)
    assert joined.request_ids == ("7",)
    same(joined, 0, ids)

    def refused(match: str, changed: list[dict[str, Any]]) -> None:
        with pytest.raises(InputError, match=match):
            tm.load_trace(lines(tmp_path / "c.jsonl", changed))

    refused("batch 1 lacks layer 11", rows[:-1])
    refused("layer 12 of batch 0 comes twice", [rows[0], *rows])
    refused("origin_rows must be one a token", [rows[0] | {"origin_rows": [1]}])
    refused("line 1: no key layer", [{"batch_id": 0, "topk_experts": [[1]]}])
    refused("layer must be a whole number, got bool", [rows[0] | {"layer": True}])
    refused("topk_experts must have rows of one", [rows[0] | {"topk_experts": [[1], [1, 2]]}])
    refused("source_file must be one", [*rows[:-1], rows[-1] | {"source_file": "b"}])


BAD_RESPONSES: dict[str, tuple[Any, str]] = {
    "no kind": ({"text": ""}, "no trace"),
    "no experts": ({"meta_info": {}}, "routed_experts must be base64 text, got nothing"),
    "no base64": ({"meta_info": {"routed_experts": "%%"}}, "is no base64"),
    "cut": (sglang(experts(3).reshape(-1)[:-1]), "must be rows of 27 layers x top-6"),
    "empty": (sglang(experts(3)[:0]), "must be rows"),
    "too many": (sglang(experts(9), prompt_tokens=3, completion_tokens=3), "= 5 rows, got 9"),
    "negative": (sglang(experts(3) - 1), "expert ids must be in 0..32767, got -1"),
    "beyond": (sglang(experts(3) * 9), "expert ids must be < num_experts"),
    "tokens": (sglang(experts(9), prompt_tokens="3"), "prompt_tokens must be a whole number"),
    "domain": (sglang(experts(9)) | {"domain": 3}, "domain must be printable text, got int"),
    "line": (sglang(experts(9), "a\nb"), "id must be printable text, got other characters"),
    "choices": ({"choices": []}, "choices must be a list that is not empty"),
    "choice": ({"choices": [3]}, r"choices\[0\] must be a mapping, got int"),
    "no npy": ({"choices": [{"routed_experts": "AAAA"}]}, "truncated or no .npy"),
    "wide": ({"choices": [{"routed_experts": npy(experts(3), np.int32)}]}, "uint8 or uint16"),
    "layers": ({"choices": [{"routed_experts": npy(experts(3)[:, :9])}]}, "27 layers and top-6"),
    "flat": ({"choices": [{"routed_experts": npy(experts(3)[0])}]}, "positions, layers, top-k"),
    "start": (
        {"choices": [{"routed_experts": npy(experts(3)), "routed_experts_prompt_start": -1}]},
        "prompt_start must be in 0",
    ),
    "ids": (
        {
            "choices": [
                {"routed_experts": npy(experts(3)), "prompt_token_ids": [1], "token_ids": [2]}
            ]
        },
        "must have a row a token",
    ),
}


@pytest.mark.parametrize("case", BAD_RESPONSES)
def test_a_bad_response_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    value, message = BAD_RESPONSES[case]
    path = lines(tmp_path / "bad.jsonl", [value])
    with pytest.raises(InputError, match=message) as caught:
        tm.load_trace(path, model=LITE)
    assert "\n" not in str(caught.value)
    assert "bad.jsonl: line 1" in str(caught.value)


def test_a_folder_without_a_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match=r"no \.npz file in this folder"):
        tm.load_trace(tmp_path)
    lines(tmp_path / "empty.jsonl", [])
    with pytest.raises(InputError, match=r"empty\.jsonl: is empty"):
        tm.load_trace(tmp_path)


# ---- SGLang's recorder, mode per_token ----


@dataclass
class Running:
    """A request of the server below."""

    name: int
    prompt: int
    output: int
    cached: int = 0
    done: int = 0  # tokens computed or cached
    rows: list[Any] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)


class Server:
    """Schedules requests as SGLang does: prefill first, in chunks; then one token a request."""

    def __init__(self, to_logical: Any, top_k: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.to_logical, self.top_k = to_logical, top_k
        self.records: list[dict[str, Any]] = []

    def step(self, parts: list[tuple[Running, int]], prefill: bool, pad: int = 0) -> None:
        """Run a pass of (request, tokens) and record it, with ``pad`` tokens of padding behind."""
        layers, slots = self.to_logical.shape
        total = sum(count for _, count in parts)
        physical = np.full((layers, total + pad, 8), -1, dtype=np.int32)
        positions = []
        for request, count in parts:
            for _ in range(count):
                row = np.zeros((layers, self.top_k), dtype=np.int64)
                for layer in range(1, layers):
                    order = self.rng.permutation(slots)
                    _, first = np.unique(self.to_logical[layer, order], return_index=True)
                    chosen = order[np.sort(first)[: self.top_k]]
                    physical[layer, len(positions), : self.top_k] = chosen
                    row[layer] = self.to_logical[layer, chosen]
                request.rows.append(row)
                request.positions.append(request.done)
                positions.append(request.done)
                request.done += 1
        self.records.append(
            {
                "forward_pass_id": len(self.records),
                "rank": 0,
                "gatherer_key": "primary",
                "input_ids": [int(p) + 1000 for p in positions] + [0] * pad,
                "positions": positions + [0] * pad,
                "extend_seq_lens": [count for _, count in parts] if prefill else None,
                "forward_mode": 1 if prefill else 2,
                "topk_ids_of_layer": physical,
                "misc_objects": [],
                "global_physical_count": np.stack(
                    [np.bincount(p[p >= 0], minlength=slots) for p in physical]
                ).astype(np.int32),
            }
        )

    def run(self, batches: list[list[Running]], chunk: int) -> None:
        """Prefill each batch when it comes, the last request in chunks, and decode in between."""
        running: list[Running] = []
        for batch in batches:
            for request in batch:
                request.done = request.cached
            while any(r.done < r.prompt for r in batch):
                room, parts = chunk, []
                for request in batch:
                    count = min(room, request.prompt - request.done)
                    if count > 0:
                        parts.append((request, count))
                        room -= count
                self.step(parts, prefill=True, pad=int(self.rng.integers(0, 2)))
                for request, _ in parts:
                    if request.done == request.prompt and request.output:
                        running.append(request)
                running = self.decode(running, 1)
            running = self.decode(running, 3)
        while running:
            running = self.decode(running, 1)

    def decode(self, running: list[Running], steps: int) -> list[Running]:
        for _ in range(steps):
            if running:
                self.step([(r, 1) for r in running], False, pad=int(self.rng.integers(0, 3)))
            running = [r for r in running if r.done < r.prompt + r.output]
        return running

    def dump(self, folder: Path, rank: int = 0, time: str = "17.5") -> None:
        import torch

        records = [
            {
                key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                for key, value in (record | {"rank": rank}).items()
            }
            for record in self.records
        ]
        torch.save(
            {"records": records, "last_physical_to_logical_map": torch.from_numpy(self.to_logical)},
            folder / f"expert_distribution_recorder_{time}_{rank}.pt",
        )


Make = Callable[[int], Server]


@pytest.fixture
def server() -> Make:
    """A function from a seed to a server of 1 dense and 3 MoE layers, 8 experts on 12 slots."""
    pytest.importorskip("torch")

    def make(seed: int) -> Server:
        rng = np.random.default_rng(seed + 100)
        to_logical = np.stack([rng.permutation(np.arange(12) % 8) for _ in range(4)])
        return Server(to_logical, 2, seed)

    return make


def matches(trace: tm.RoutingTrace, truth: list[Running]) -> None:
    """Assert that the trace holds exactly these requests, in the order in which they began."""
    assert trace.num_requests == len(truth)
    for found, made in zip(trace.requests, truth, strict=True):
        assert found.position.tolist() == made.positions
        np.testing.assert_array_equal(found.routed_experts, np.array(made.rows)[:, 1:])
        assert found.prompt_len == made.prompt


@pytest.mark.parametrize("seed", range(5))
def test_requests_are_put_together_from_the_passes_of_the_recorder(
    tmp_path: Path, server: Make, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    # Lengths that never meet: requests of equal length cannot be told apart when one of them ends.
    truth = [
        Running(n, prompt=int(3 + 60 * n + rng.integers(0, 9)), output=int(rng.integers(0, 9)))
        for n in range(6)
    ]
    recorded = server(seed)
    recorded.run([truth[:2], truth[2:3], truth[3:]], chunk=40)
    recorded.dump(tmp_path)
    trace = tm.load_trace(tmp_path)
    matches(trace, truth)
    assert (trace.num_layers, trace.num_experts, trace.top_k) == (3, 8, 2)
    first = trace.requests[0]
    assert first.prompt_token_ids is not None
    assert first.prompt_token_ids.tolist() == [1000 + p for p in range(truth[0].prompt)]
    loads = load_expert_loads(tmp_path)
    np.testing.assert_array_equal(loads.total, trace.load())
    assert any("6 requests put together from positions" in note for note in trace.notes)


def test_a_prefix_from_the_cache_starts_a_request_at_its_position(
    tmp_path: Path, server: Make
) -> None:
    truth = [Running(0, 9, 4), Running(1, 30, 3, cached=20)]
    recorded = server(0)
    recorded.run([truth[:1], truth[1:]], chunk=64)
    recorded.dump(tmp_path)
    matches(tm.load_trace(tmp_path), truth)


def test_ended_requests_do_not_take_the_rows_of_others(tmp_path: Path, server: Make) -> None:
    truth = [Running(0, 10, 2), Running(1, 6, 12), Running(2, 3, 14)]  # 1 and 2 pass 12 later
    recorded = server(1)
    recorded.run([truth], chunk=64)
    recorded.dump(tmp_path)
    matches(tm.load_trace(tmp_path), truth)


def test_tokens_begun_before_the_recording_open_requests_of_unknown_prompt(
    tmp_path: Path, server: Make
) -> None:
    truth = [Running(0, 10, 5), Running(1, 30, 9)]
    recorded = server(2)
    recorded.run([truth], chunk=64)
    del recorded.records[0]
    recorded.dump(tmp_path)
    trace = tm.load_trace(tmp_path)
    assert trace.num_requests == 2
    assert trace.prompt_len.tolist() == [-1, -1]
    assert [r.position[0] for r in trace.requests] == [10, 30]
    np.testing.assert_array_equal(
        trace.requests[1].routed_experts, np.array(truth[1].rows)[30:, 1:]
    )


def test_ranks_are_kept_apart_unless_they_saw_the_same_tokens(tmp_path: Path, server: Make) -> None:
    servers = [server(0), server(0), server(1)]
    for number, each in enumerate(servers):
        prompt = 20 if number < 2 else 33
        each.to_logical = servers[0].to_logical
        each.run([[Running(number, prompt, 4)]], chunk=64)
        each.dump(tmp_path, rank=number, time=f"17.{number}")
    trace = tm.load_trace(tmp_path)
    assert trace.request_ids == ("rank0-0000", "rank1-0001")
    assert any("1 ranks recorded the same tokens" in note for note in trace.notes)


def test_a_request_goes_on_over_two_dumps_of_a_rank(tmp_path: Path, server: Make) -> None:
    truth = [Running(0, 10, 8)]
    recorded = server(0)
    recorded.run([truth], chunk=64)
    records = recorded.records
    recorded.records = records[4:]
    recorded.dump(tmp_path, time="9.5")  # as text after, as a number before the next
    recorded.records = records[:4]
    recorded.dump(tmp_path, time="10.5")
    assert tm.load_trace(tmp_path).num_requests == 2
    recorded.dump(tmp_path, time="8.5")
    (tmp_path / "expert_distribution_recorder_10.5_0.pt").unlink()
    matches(tm.load_trace(tmp_path), truth)


def test_bad_records_are_refused_in_one_line(tmp_path: Path, server: Make) -> None:
    recorded = server(0)
    recorded.run([[Running(0, 5, 2)]], chunk=64)
    good = recorded.records[0]
    ids = good["topk_ids_of_layer"]
    lacking = ids.copy()
    lacking[2, 1, 1] = -1

    def refused(match: str, **changed: Any) -> None:
        recorded.records = [{k: v for k, v in (good | changed).items() if v is not ...}]
        recorded.dump(tmp_path)
        with pytest.raises(InputError, match=match) as caught:
            tm.load_trace(tmp_path)
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)

    refused("no key positions", positions=...)
    refused("no key topk_ids_of_layer", topk_ids_of_layer=...)
    refused("must have 2 experts for every token, token 1", topk_ids_of_layer=lacking)
    refused(r"must be in -1\.\.11, got 12", topk_ids_of_layer=np.where(ids < 0, ids, 12))
    refused(r"must be in -1\.\.11, got -2", topk_ids_of_layer=ids - 1)
    refused("must be \\[4 layers", topk_ids_of_layer=ids[:, 1:])
    refused("is -1 throughout", topk_ids_of_layer=ids * 0 - 1)
    refused("extend_seq_lens must be >= 0 and sum", extend_seq_lens=[50])
    refused("positions must be consecutive", positions=[0, 1, 3, 4, 5, 6][: len(good["positions"])])
    refused("input_ids must hold whole numbers only", input_ids=["a"] * len(good["positions"]))
    refused("positions must be >= 0", positions=[-1, *good["positions"][1:]])
    refused("extend_seq_lens must be there", extend_seq_lens=None, forward_mode=5)
    refused("forward_mode must be a whole number", forward_mode=None)
    refused("names an expert twice", topk_ids_of_layer=np.where(ids < 0, ids, 3))
    recorded.records = [good]
    recorded.to_logical = recorded.to_logical + 5
    refused(r"last_physical_to_logical_map must be in 0\.\.11, got 5\.\.12")
