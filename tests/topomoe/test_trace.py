"""Loading, cutting and saving routing traces, and every way a file can be bad."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.topologies.errors import InputError
from topomoe.trace import RoutingTrace, load_trace, save_trace


def experts(rows: int, layers: int = 3, top_k: int = 2, number: int = 8, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return np.argsort(rng.random((rows, layers, number)), axis=-1)[..., :top_k].astype(np.uint8)


def write(folder: Path, name: str = "a", **fields: Any) -> Path:
    np.savez(folder / f"{name}.npz", **fields)
    return folder


def many(folder: Path, sizes: dict[str, int], rows: int = 3, **extra: Any) -> Path:
    for domain, size in sizes.items():
        for i in range(size):
            ids = experts(rows + i, seed=i)
            write(folder, f"{domain}{i}", routed_experts=ids, domain=domain, **extra)
    return folder


def test_requests_lie_one_after_another_sorted_by_file_name(tmp_path: Path) -> None:
    first, second = experts(4), experts(2, seed=1)
    write(tmp_path, "b", routed_experts=second, domain="law", request_id="later")
    write(tmp_path, "a", routed_experts=first)
    trace = load_trace(tmp_path, num_experts=8)
    assert trace.request_ids == ("a", "later")
    assert trace.domain_names == ("all", "law")
    assert trace.experts.shape == (3, 6, 2)
    assert trace.experts.dtype == np.int16
    assert trace.experts.flags.c_contiguous
    assert (trace.experts.transpose(1, 0, 2) == np.concatenate([first, second])).all()
    assert trace.position.tolist() == [0, 1, 2, 3, 0, 1]
    assert trace.position_request.tolist() == [0, 0, 0, 0, 1, 1]
    request = trace.requests[1]
    assert request.domain == "law"
    assert (request.routed_experts == second).all()
    assert np.shares_memory(request.routed_experts, trace.experts)


def test_a_single_file_is_a_trace(tmp_path: Path) -> None:
    write(tmp_path, "only", routed_experts=experts(4))
    assert load_trace(tmp_path / "only.npz").request_ids == ("only",)


def test_load_counts_every_token_expert_pair(tmp_path: Path) -> None:
    trace = load_trace(many(tmp_path, {"law": 2, "math": 1}), num_experts=8)
    load = trace.load()
    assert load.shape == (3, 8)
    assert load.sum() == trace.experts.size
    assert load[1, 5] == (trace.experts[1] == 5).sum()
    assert (trace.domain_load().sum(axis=0) == load).all()
    assert (trace.domain_load()[1] == trace.filter(domains=["math"]).load()).all()
    assert (trace.load(layers=[2]) == load[2:]).all()


def test_one_row_fewer_than_tokens_is_accepted_and_said(tmp_path: Path) -> None:
    tokens = {"prompt_token_ids": np.arange(3), "output_token_ids": np.arange(2)}
    trace = load_trace(write(tmp_path, routed_experts=experts(4), **tokens))
    assert trace.prompt_len.tolist() == [3]
    assert any("last token" in note for note in trace.notes)
    assert trace.filter(part="prompt").num_positions == 3
    assert trace.filter(part="output").position.tolist() == [3]
    exact = load_trace(write(tmp_path, routed_experts=experts(5), **tokens))
    assert not any("last token" in note for note in exact.notes)


@pytest.mark.parametrize("rows", [3, 6])
def test_any_other_number_of_rows_is_refused(tmp_path: Path, rows: int) -> None:
    tokens = {"prompt_token_ids": np.arange(3), "output_token_ids": np.arange(2)}
    with pytest.raises(InputError, match=r"a\.npz: routed_experts .*rows and 5 tokens"):
        load_trace(write(tmp_path, routed_experts=experts(rows), **tokens))


def test_dense_layers_are_dropped_and_said(tmp_path: Path) -> None:
    ids = experts(5, layers=4)
    ids[:, [0, 2]] = 0
    trace = load_trace(write(tmp_path, routed_experts=ids))
    assert trace.num_layers == 2
    assert (trace.experts == ids[:, [1, 3]].transpose(1, 0, 2)).all()
    assert any("2 dense layers" in note and "0, 2" in note for note in trace.notes)


def test_a_layer_that_is_zero_in_one_request_only_is_not_dense(tmp_path: Path) -> None:
    write(tmp_path, "a", routed_experts=np.zeros((2, 1, 1), dtype=np.uint8))
    write(tmp_path, "b", routed_experts=np.ones((2, 1, 1), dtype=np.uint8))
    assert load_trace(tmp_path).load().tolist() == [[2, 2]]


def test_number_of_experts_comes_from_file_then_argument_then_preset_then_ids(
    tmp_path: Path,
) -> None:
    ids = experts(30)
    write(tmp_path, routed_experts=ids)
    largest = load_trace(tmp_path)
    assert largest.num_experts == ids.max() + 1
    assert any("largest id" in note for note in largest.notes)
    assert load_trace(tmp_path, num_experts=12).num_experts == 12
    assert load_trace(tmp_path, model="deepseek-v2-lite").num_experts == 64
    write(tmp_path, routed_experts=ids, num_experts=16)
    assert load_trace(tmp_path, model="deepseek-v2-lite").num_experts == 16
    write(tmp_path, routed_experts=experts(9, layers=26, top_k=6))
    assert load_trace(tmp_path).num_experts == 64


BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "missing key": ({"experts": experts(3)}, "routed_experts"),
    "two dimensions": ({"routed_experts": experts(3)[0]}, "routed_experts"),
    "floats": ({"routed_experts": experts(3).astype(float)}, "routed_experts"),
    "booleans": ({"routed_experts": experts(3) > 1}, "routed_experts"),
    "no positions": ({"routed_experts": experts(3)[:0]}, "routed_experts"),
    "no layers": ({"routed_experts": experts(3)[:, :0]}, "routed_experts"),
    "all zero": ({"routed_experts": np.zeros((3, 2, 1), dtype=int)}, "routed_experts"),
    "negative": ({"routed_experts": experts(3).astype(int) - 9}, "routed_experts at position 0"),
    "huge": ({"routed_experts": experts(3).astype(np.uint64) + 2**40}, "routed_experts"),
    "beyond num_experts": ({"routed_experts": experts(30), "num_experts": 4}, "num_experts"),
    "num_experts text": ({"routed_experts": experts(3), "num_experts": "8"}, "num_experts"),
    "num_experts zero": ({"routed_experts": experts(3), "num_experts": 0}, "num_experts"),
    "domain number": ({"routed_experts": experts(3), "domain": 3}, "domain"),
    "domain empty": ({"routed_experts": experts(3), "domain": ""}, "domain"),
    "two ids": ({"routed_experts": experts(3), "request_id": ["x", "y"]}, "request_id"),
    "prompt_len negative": ({"routed_experts": experts(3), "prompt_len": -1}, "prompt_len"),
    "prompt_len float": ({"routed_experts": experts(3), "prompt_len": 1.5}, "prompt_len"),
    "prompt_len against ids": (
        {"routed_experts": experts(3), "prompt_len": 1, "prompt_token_ids": [1, 2]},
        "prompt_len",
    ),
    "tokens 2d": ({"routed_experts": experts(3), "prompt_token_ids": [[1, 2]]}, "prompt_token"),
    "tokens float": ({"routed_experts": experts(3), "output_token_ids": [0.5]}, "output_token"),
    "positions short": ({"routed_experts": experts(3), "routed_positions": [1]}, "routed_pos"),
    "positions back": ({"routed_experts": experts(3), "routed_positions": [3, 2, 4]}, "routed_pos"),
    "positions negative": (
        {"routed_experts": experts(3), "routed_positions": [-1, 2, 4]},
        "routed_pos",
    ),
    "objects": ({"routed_experts": np.array([[[1]], "x"], dtype=object)}, "routed_experts"),
}


@pytest.mark.parametrize("case", BAD_FIELDS)
def test_a_bad_field_is_named_in_one_line(tmp_path: Path, case: str) -> None:
    fields, name = BAD_FIELDS[case]
    with pytest.raises(InputError) as error:
        load_trace(write(tmp_path, **fields))
    assert name in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_expert_named_twice_is_refused_with_its_position(tmp_path: Path) -> None:
    write(tmp_path, "a", routed_experts=experts(5))
    ids = experts(5)
    ids[3, 1] = 4
    write(tmp_path, "b", routed_experts=ids)
    with pytest.raises(InputError, match=r"b\.npz: routed_experts at position 3"):
        load_trace(tmp_path)


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", routed_experts=experts(5), request_id="x")
    write(tmp_path, "b", routed_experts=experts(5, layers=2))
    with pytest.raises(InputError, match=r"b\.npz: routed_experts has 2 layers"):
        load_trace(tmp_path)
    write(tmp_path, "b", routed_experts=experts(5), request_id="x")
    with pytest.raises(InputError, match=r"b\.npz: request_id 'x'"):
        load_trace(tmp_path)
    write(tmp_path, "b", routed_experts=experts(5), num_experts=8)
    with pytest.raises(InputError, match=r"b\.npz: num_experts"):
        load_trace(tmp_path)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        load_trace(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no \.npz file"):
        load_trace(tmp_path)
    path = tmp_path / "a.npz"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.npz: is empty"):
        load_trace(tmp_path)
    np.savez_compressed(path, routed_experts=experts(500), domain="law")
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:10], b"text", whole[:200] + b"!" * 300):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"a\.npz: cannot be read"):
            load_trace(tmp_path)
    flipped = bytearray(whole)
    flipped[300] ^= 0xFF
    path.write_bytes(bytes(flipped))
    with pytest.raises(InputError, match="routed_experts"):
        load_trace(tmp_path)
    with path.open("wb") as file:
        np.save(file, experts(3))
    with pytest.raises(InputError, match=r"no \.npz archive"):
        load_trace(tmp_path)


@settings(max_examples=100, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_damaged_byte_never_ends_in_anything_but_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, where: float, flip: int
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    np.savez(path, routed_experts=experts(6), domain="law", request_id="x", prompt_len=3)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= flip
    path.write_bytes(bytes(content))
    with suppress(InputError):
        load_trace(path)


def test_saving_and_loading_gives_the_same_trace_and_the_same_bytes(tmp_path: Path) -> None:
    source, saved, again = tmp_path / "source", tmp_path / "saved", tmp_path / "again"
    source.mkdir()
    tokens = {"prompt_token_ids": np.arange(3), "output_token_ids": np.arange(2)}
    write(source, "z", routed_experts=experts(4), domain="law", request_id="x/../y", **tokens)
    write(source, "b", routed_experts=experts(3), routed_positions=[5, 7, 9], prompt_len=5)
    trace = load_trace(source, num_experts=300)
    save_trace(trace, saved)
    back = load_trace(saved)
    save_trace(back, again)
    assert back.num_experts == 300
    for name in ("experts", "request_start", "request_domain", "position", "prompt_len"):
        assert (getattr(back, name) == getattr(trace, name)).all()
    assert back.request_ids == ("b", "x/../y")
    assert back.domain_names == trace.domain_names
    output = back.requests[1].output_token_ids
    assert output is not None
    assert output.tolist() == [0, 1]
    assert back.requests[0].prompt_token_ids is None
    assert [p.read_bytes() for p in sorted(saved.iterdir())] == [
        p.read_bytes() for p in sorted(again.iterdir())
    ]
    save_trace(trace, saved)
    with pytest.raises(InputError, match="another trace"):
        save_trace(trace.select([1]), saved)


def test_filter_keeps_what_is_asked_for(tmp_path: Path) -> None:
    trace = load_trace(many(tmp_path, {"law": 2, "math": 2}, prompt_len=3), num_experts=8)
    law = trace.filter(domains=["law"], layers=[2, 0])
    assert law.domain_names == ("law",)
    assert law.request_ids == ("law0", "law1")
    assert (law.experts == trace.experts[[2, 0], :7]).all()
    output = trace.filter(part="output")
    assert output.request_ids == ("law1", "math1")
    assert output.position.tolist() == [3, 3]
    assert trace.filter(part="prompt", skip=1).position.tolist() == [1, 2] * 4
    with pytest.raises(InputError, match="did you mean 'math'"):
        trace.filter(domains=["maths"])
    with pytest.raises(InputError, match="did you mean 'prompt'"):
        trace.filter(part="promt")
    with pytest.raises(InputError, match=r"layers must be in 0\.\.2"):
        trace.filter(layers=[3])
    with pytest.raises(InputError, match="leaves no position"):
        trace.filter(part="output", skip=1)
    with pytest.raises(InputError, match="at least one request"):
        trace.select([])


def test_part_needs_a_known_prompt_length(tmp_path: Path) -> None:
    write(tmp_path, "a", routed_experts=experts(3), prompt_len=1)
    write(tmp_path, "b", routed_experts=experts(3))
    with pytest.raises(InputError, match="prompt_len, unknown of b"):
        load_trace(tmp_path).filter(part="output")


def tiny(domains: list[int]) -> RoutingTrace:
    count = len(domains)
    return RoutingTrace(
        experts=np.zeros((1, count, 1), dtype=np.int16),
        request_start=np.arange(count + 1),
        request_ids=tuple(f"r{q}" for q in range(count)),
        domain_names=tuple("abcd"),
        request_domain=np.array(domains, dtype=np.int32),
        position=np.zeros(count, dtype=np.int32),
        prompt_len=np.full(count, -1, dtype=np.int32),
        num_experts=1,
        repetition=np.zeros(count, dtype=np.bool_),
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=30),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_a_split_shares_no_request_and_stratifies_by_domain(
    domains: list[int], fraction: float, seed: int
) -> None:
    trace = tiny(domains)
    train, test = trace.split(fraction, seed)
    assert set(train.request_ids).isdisjoint(test.request_ids)
    assert train.num_requests + test.num_requests == len(domains)
    for part in (train, test):
        assert part.num_requests >= 1
        assert list(part.request_ids) == sorted(part.request_ids, key=lambda r: int(r[1:]))
    for domain in range(4):
        size = domains.count(domain)
        on_test = (test.request_domain == domain).sum()
        if size >= 2:
            assert 1 <= on_test < size
            assert abs(on_test - fraction * size) <= max(1, 0.5)
    assert trace.split(fraction, seed)[1].request_ids == test.request_ids


def test_a_split_depends_on_its_seed_and_refuses_the_impossible() -> None:
    trace = tiny([0] * 20)
    assert trace.split(seed=0)[0].request_ids != trace.split(seed=1)[0].request_ids
    for fraction in (0, 1, -1, float("nan")):
        with pytest.raises(InputError, match="test_fraction"):
            trace.split(fraction)
    with pytest.raises(InputError, match="at least 2 requests"):
        tiny([0]).split()


@pytest.mark.parametrize(
    ("name", "shape", "domains"),
    [("gpt-oss-20b", (24, 147_487, 4, 32), 7), ("deepseek-v2-lite", (26, 22_738, 6, 64), 4)],
)
def test_real_traces_have_the_published_shape(
    trace_folder: Callable[[str], Path], name: str, shape: tuple[int, ...], domains: int
) -> None:
    trace = load_trace(trace_folder(name))
    assert (*trace.experts.shape, trace.num_experts) == shape
    assert len(trace.domain_names) == domains
    assert trace.load().sum() == trace.experts.size
