"""A whole trace in one file: read back as it was, and every way the file can be bad."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.formats import load_expert_loads
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError
from topomoe.trace import load_trace, save_trace
from topomoe.workload import as_served


def small(requests: int = 6, experts: int = 12) -> RoutingTrace:
    """Three domains, some prompts and token ids known, positions that do not begin at 0."""
    rng = np.random.default_rng(0)
    length = rng.integers(3, 7, size=requests)
    start = np.concatenate([[0], np.cumsum(length)])
    score = rng.random((3, start[-1], experts))
    tokens = tuple(None if q == 1 else np.arange(q, dtype=np.int64) for q in range(requests))
    return RoutingTrace(
        experts=np.ascontiguousarray(np.argsort(score, axis=-1)[..., :2].astype(np.int16)),
        request_start=start,
        request_ids=tuple(f"r/{q} é" for q in range(requests)),
        domain_names=("code", "law", "prose"),
        request_domain=(np.arange(requests) % 3).astype(np.int32),
        position=np.concatenate([np.arange(n) + 2 * (n % 2) for n in length]).astype(np.int32),
        prompt_len=np.where(np.arange(requests) == 1, -1, np.arange(requests)).astype(np.int32),
        num_experts=experts,
        repetition=np.arange(requests) == 3,
        prompt_token_ids=tokens,
    )


def equal(first: RoutingTrace, second: RoutingTrace) -> None:
    for field in fields(RoutingTrace):
        if field.name == "notes":
            continue
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, tuple):
            assert len(one) == len(other)
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_array_equal(one, other, err_msg=field.name)
            if isinstance(one, np.ndarray):
                assert one.dtype == other.dtype, field.name


@pytest.mark.parametrize("experts", [12, 300])
def test_a_trace_comes_back_from_its_file_with_the_same_bytes(tmp_path: Path, experts: int) -> None:
    trace = small(experts=experts)
    plain = replace(
        trace,
        position=np.concatenate([np.arange(n) for n in np.diff(trace.request_start)]).astype("i4"),
        prompt_len=np.full(6, -1, dtype=np.int32),
        repetition=np.zeros(6, dtype=np.bool_),
        prompt_token_ids=None,
    )
    for each in (trace, plain, as_served(trace, "decode"), trace.select([4, 1])):
        save_trace(each, tmp_path / "a.npz")
        back = load_trace(tmp_path / "a.npz")
        equal(back, each)
        save_trace(back, tmp_path / "b.npz")
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    with np.load(tmp_path / "b.npz") as stored:
        assert stored["experts"].dtype == (np.uint8 if experts == 12 else np.uint16)


def test_file_and_folder_hold_the_same_trace(tmp_path: Path) -> None:
    trace = small()
    save_trace(trace, tmp_path / "folder")
    from_folder = load_trace(tmp_path / "folder")
    save_trace(from_folder, tmp_path / "x.npz")
    equal(load_trace(tmp_path / "x.npz"), from_folder)
    np.testing.assert_array_equal(load_expert_loads(tmp_path / "x.npz").load[0], from_folder.load())


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    save_trace(small(), path)
    before = path.read_bytes()
    broken = replace(small(), weight=np.array([object()]))
    with pytest.raises(ValueError, match="allow_pickle"):
        save_trace(broken, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(InputError, match=r"folder\.npz: cannot be written"):
        save_trace(small(), tmp_path / "folder.npz")


def packed(tmp_path: Path, **changed: Any) -> Path:
    """A packed file with some fields changed, or left out for None."""
    path = tmp_path / "x.npz"
    save_trace(small(), path)
    with np.load(path) as stored:
        kept = {name: stored[name] for name in stored.files}
    kept.update(changed)
    np.savez(path, **{name: value for name, value in kept.items() if value is not None})
    return path


GOOD = small()
POSITIONS = GOOD.num_positions


def changed_ids(place: tuple[int, ...], value: int) -> Any:
    experts = GOOD.experts.copy()
    experts[place] = value
    return experts


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no experts": ({"experts": None}, "no field experts"),
    "no ids": ({"request_ids": None}, "no field request_ids"),
    "no domains": ({"domain_names": None}, "no field domain_names"),
    "no domain": ({"request_domain": None}, "no field request_domain"),
    "no number": ({"num_experts": None}, "no field num_experts"),
    "flat": ({"experts": GOOD.experts[0]}, "experts must be integers"),
    "empty": ({"experts": GOOD.experts[:, :0]}, "experts must be integers"),
    "floats": ({"experts": GOOD.experts.astype(float)}, "experts must be integers"),
    "beyond": ({"experts": changed_ids((1, 4, 0), 12)}, "of request r/. é, layer 1: expert ids"),
    "negative": ({"experts": changed_ids((1, 0, 1), -2)}, "layer 1: expert ids must be >= 0"),
    "absent first": ({"experts": changed_ids((2, 0, 0), -1)}, "layer 2: -1 .no expert. must"),
    "twice": ({"experts": changed_ids((0, 0), 3)}, "layer 0: names an expert twice"),
    "idle": ({"experts": changed_ids((1,), -1)}, "no token has an expert in layer 1"),
    "few experts": ({"num_experts": 3}, "expert ids must be < num_experts"),
    "number 0": ({"num_experts": 0}, "num_experts must be in 1"),
    "number list": ({"num_experts": [12]}, "num_experts must be integers"),
    "number text": ({"num_experts": "12"}, "num_experts must be integers"),
    "start short": ({"request_start": GOOD.request_start[:-1]}, "request_start must increase"),
    "start late": ({"request_start": GOOD.request_start + 1}, "request_start must"),
    "start back": (
        {"request_start": GOOD.request_start[[0, 2, 1, 3, 4, 5, 6]]},
        "request_start must increase",
    ),
    "start level": (
        {"request_start": GOOD.request_start[[0, 2, 2, 3, 4, 5, 6]]},
        "request_start must increase",
    ),
    "start far": ({"request_start": [0, 2**62, POSITIONS]}, "request_start must be in"),
    "start one": ({"request_start": [0]}, "request_start must increase"),
    "start 2d": ({"request_start": GOOD.request_start[None]}, "request_start must be integers"),
    "ids few": ({"request_ids": np.array(["a"])}, "request_ids must be 6 texts"),
    "ids twice": ({"request_ids": np.array(["a"] * 6)}, "request_ids must be distinct"),
    "ids empty": ({"request_ids": np.array([*list("abcde"), ""])}, "request_ids must be distinct"),
    "ids numbers": ({"request_ids": np.arange(6)}, "request_ids must be 6 texts"),
    "ids objects": ({"request_ids": np.array([None] * 6)}, "request_ids"),
    "domains twice": ({"domain_names": np.array(["a", "a", "b"])}, "domain_names must be dist"),
    "domains none": ({"domain_names": np.array([], dtype="U1")}, "domain_names must be dist"),
    "domain beyond": ({"request_domain": np.arange(6)}, "request_domain must be in 0..2, got 5"),
    "domain short": ({"request_domain": [0, 1]}, "request_domain must be integers"),
    "position back": ({"position": np.arange(POSITIONS)[::-1]}, "position must increase"),
    "position negative": ({"position": np.arange(POSITIONS) - 1}, "position must be in"),
    "position short": ({"position": [0, 1]}, "position must be integers"),
    "prompt": ({"prompt_len": [-2] * 6}, "prompt_len must be in"),
    "prompt floats": ({"prompt_len": [0.5] * 6}, "prompt_len must be integers"),
    "repetition": ({"repetition": np.arange(6)}, "repetition must be 6 truth"),
    "weight short": ({"weight": np.ones(3)}, "weight must be"),
    "weight nan": ({"weight": np.full(POSITIONS, np.nan)}, "weight must be finite"),
    "weight negative": ({"weight": np.full(POSITIONS, -1.0)}, "weight must be finite"),
    "tokens alone": ({"prompt_token_count": None}, "no field prompt_token_count"),
    "counts alone": ({"prompt_token_ids": None}, "no field prompt_token_ids"),
    "tokens short": ({"prompt_token_ids": [1, 2]}, "prompt_token_ids must be integers"),
    "prompt wrong": ({"prompt_len": [0, -1, 2, 3, 4, 9]}, "prompt_len must be the length"),
    "few tokens": (
        {"output_token_count": [0, -1, -1, -1, -1, -1], "output_token_ids": np.zeros(0, int)},
        "position must be < tokens, got .* for request r/0",
    ),
    "tokens huge": ({"prompt_token_count": [2**31 - 1] * 6}, "prompt_token_ids must be integers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_field_is_named_in_one_line(tmp_path: Path, case: str) -> None:
    changed, message = BAD[case]
    with pytest.raises(InputError, match=message) as caught:
        load_trace(packed(tmp_path, **changed))
    assert str(caught.value).startswith(str(tmp_path / "x.npz"))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_whole_trace_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path)
    with pytest.raises(InputError, match="num_experts is 12, but 64 was asked for"):
        load_trace(path, num_experts=64)
    with pytest.raises(InputError, match=r"x\.npz: is a whole trace: give its path"):
        load_trace(tmp_path)
    content = path.read_bytes()
    for part in (0, 10, len(content) // 2, len(content) - 3):
        path.write_bytes(content[:part])
        with pytest.raises(InputError, match=r"x\.npz: (is empty|cannot be read)"):
            load_trace(path)


@settings(max_examples=150)
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_damaged_byte_never_ends_in_anything_but_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, where: float, flip: int
) -> None:
    path = packed(tmp_path_factory.mktemp("damaged"))
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= flip
    path.write_bytes(bytes(content))
    with suppress(InputError):
        load_trace(path)
