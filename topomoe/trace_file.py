"""One request's `.npz` file: read with every field checked, or written."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.arrays import AnyArray, read_npz
from topomoe.routing_trace import NO_EXPERT, early_absences
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

KEYS = (
    "request_id",
    "domain",
    "routed_experts",
    "prompt_token_ids",
    "output_token_ids",
    "routed_positions",
    "prompt_len",
    "num_experts",
    "repetition",
)
PACKED_KEY = "request_start"  # what only a file of a whole trace has
MAX_EXPERT_ID = int(np.iinfo(np.int16).max)


@dataclass(frozen=True, eq=False)
class RequestFile:
    """The checked content of one file."""

    path: Path
    request_id: str
    domain: str
    experts: NDArray[np.int16]  # [positions, layers, K], dense layers still there; -1: no expert
    position: NDArray[np.int32]  # [positions], index in the sequence
    prompt_len: int  # -1: unknown
    num_experts: int | None
    repetition: bool  # the output loops
    prompt_token_ids: NDArray[np.int64] | None
    output_token_ids: NDArray[np.int64] | None
    one_row_short: bool  # the last token has no row, as vLLM and SGLang return them


def read_request_file(path: Path) -> RequestFile:
    """Read one request; nothing in the file is ever executed.

    Raises InputError naming the file and the field for anything that does not fit.
    """
    fields = _read_fields(path)
    if "routed_experts" not in fields:
        if PACKED_KEY in fields:
            raise InputError(f"{path}: is a whole trace: give its path, not that of its folder")
        found = ", ".join(fields) or "nothing"
        raise InputError(f"{path}: no field routed_experts (the file has: {found})")
    experts = fields["routed_experts"]
    if experts.dtype.kind not in "iu":
        raise InputError(f"{path}: routed_experts must be integers, got dtype {experts.dtype}")
    if experts.ndim != 3:
        raise InputError(
            f"{path}: routed_experts must be [positions, layers, top-k], got shape {experts.shape}"
        )
    if 0 in experts.shape:
        raise InputError(f"{path}: routed_experts is empty, shape {experts.shape}")
    prompt, output = (
        _token_ids(path, fields, f"{part}_token_ids") for part in ("prompt", "output")
    )
    position, one_row_short = _align(path, fields, len(experts), prompt, output)
    prompt_len = _integer(path, fields, "prompt_len", minimum=0)
    if prompt is not None:
        if prompt_len is not None and prompt_len != len(prompt):
            raise InputError(
                f"{path}: prompt_len must be the length of prompt_token_ids, "
                f"got {prompt_len} and {len(prompt)}"
            )
        prompt_len = len(prompt)
    return RequestFile(
        path=path,
        request_id=_text(path, fields, "request_id", path.stem),
        domain=_text(path, fields, "domain", "all"),
        experts=expert_ids(path, experts, position, absent=True),
        position=position,
        prompt_len=-1 if prompt_len is None else prompt_len,
        num_experts=_integer(path, fields, "num_experts", minimum=1),
        repetition=bool(fields["repetition"].any()) if "repetition" in fields else False,
        prompt_token_ids=prompt,
        output_token_ids=output,
        one_row_short=one_row_short,
    )


def write_request_file(path: Path, fields: dict[str, AnyArray]) -> None:
    """Write one request's fields, whole or not at all; same fields, same bytes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **fields)
    write_atomic(path, buffer.getvalue())


def _read_fields(path: Path) -> dict[str, AnyArray]:
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise InputError(f"{path}: is empty: truncated or no .npz archive")
    if start == b"\x93NUMPY":
        raise InputError(f"{path}: is no .npz archive")
    return read_npz(path, (*KEYS, PACKED_KEY))


def _align(
    path: Path,
    fields: dict[str, AnyArray],
    rows: int,
    prompt: NDArray[np.int64] | None,
    output: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int32], bool]:
    """Give every row its index in the sequence, and whether the last token has no row."""
    tokens = sum(len(ids) for ids in (prompt, output) if ids is not None)
    complete = prompt is not None and output is not None
    if "routed_positions" in fields:
        given = fields["routed_positions"]
        if given.dtype.kind not in "iu" or given.shape != (rows,):
            raise InputError(
                f"{path}: routed_positions must be {rows} integers, one a row of routed_experts, "
                f"got shape {given.shape} and dtype {given.dtype}"
            )
        position = given.astype(np.int64)
        if position[0] < 0 or (np.diff(position) <= 0).any():
            raise InputError(f"{path}: routed_positions must be >= 0 and increasing")
        if position[-1] >= (tokens if complete else np.iinfo(np.int32).max):
            raise InputError(
                f"{path}: routed_positions must be < tokens, got {position[-1]} and {tokens} tokens"
            )
        return position.astype(np.int32), False
    short = rows - tokens
    if complete and short not in (0, -1):
        raise InputError(
            f"{path}: routed_experts must have a row a token (or one fewer), "
            f"got {rows} rows and {tokens} tokens"
        )
    if short < -1:
        raise InputError(
            f"{path}: routed_experts must cover the given token ids, "
            f"got {rows} rows and {tokens} tokens"
        )
    return np.arange(rows, dtype=np.int32), complete and short == -1


def expert_ids(
    path: Path, experts: AnyArray, position: NDArray[np.int32], absent: bool = False
) -> NDArray[np.int16]:
    """Return ids [positions, layers, K] as int16; InputError names the position of a bad one.

    With ``absent``, -1 (no expert) may come after a token's experts.
    """
    outside = (experts < (NO_EXPERT if absent else 0)) | (experts > MAX_EXPERT_ID)
    if outside.any():
        row, layer, k = np.argwhere(outside)[0]
        raise InputError(
            f"{path}: routed_experts at position {position[row]}, layer {layer}: expert ids must "
            f"be in 0..{MAX_EXPERT_ID}, got {experts[row, layer, k]}"
        )
    early = early_absences(experts)
    if early.any():
        row, layer = np.argwhere(early)[0]
        raise InputError(
            f"{path}: routed_experts at position {position[row]}, layer {layer}: -1 (no expert) "
            "must come after the token's experts"
        )
    return experts.astype(np.int16)


def check_experts(experts: AnyArray, number: int, place: Callable[[int], str], source: str) -> None:
    """Check a whole trace's ids [M, P, K], -1 only after a token's experts, against E = number.

    Raises InputError, opening with ``place(p)`` of a position p or with ``source``, for an id that
    is no expert, an expert twice in a token, and a layer in which no token has any.
    """
    if experts.max() >= number:
        layer, p, _ = np.unravel_index(int(np.argmax(experts)), experts.shape)
        raise InputError(
            f"{place(int(p))}, layer {layer}: expert ids must be < num_experts, "
            f"got {experts.max()} and {number} experts"
        )
    if (experts[..., number:] >= 0).any():
        raise InputError(f"{source}: top-{experts.shape[2]} of only {number} experts")
    ordered = np.sort(experts, axis=-1)
    twice = ((ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)).any(axis=-1)
    if twice.any():
        layer, p = np.argwhere(twice)[0]
        raise InputError(f"{place(int(p))}, layer {layer}: names an expert twice")
    idle = ~(experts[..., 0] >= 0).any(axis=1)
    if idle.any():
        raise InputError(f"{source}: no token has an expert in layer {np.argmax(idle)}")


def stored_ids(experts: NDArray[np.int16], num_experts: int) -> AnyArray:
    """Return ids in the narrowest type that holds them all, signed where some are -1."""
    kinds: tuple[type[Any], ...] = (np.uint8, np.uint16)
    if (experts < 0).any():
        kinds = (np.int8, np.int16)
    return experts.astype(next(kind for kind in kinds if num_experts <= np.iinfo(kind).max + 1))


def _text(path: Path, fields: dict[str, AnyArray], name: str, default: str) -> str:
    if name not in fields:
        return default
    value = fields[name]
    if value.size != 1 or value.dtype.kind not in "US":
        raise InputError(f"{path}: {name} must be one string, got {value.dtype} {value.shape}")
    item = value.reshape(())[()]
    try:
        text = item.decode() if isinstance(item, bytes) else str(item)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {name} is not UTF-8") from error
    if not text:
        raise InputError(f"{path}: {name} must not be empty")
    return text


def _integer(path: Path, fields: dict[str, AnyArray], name: str, *, minimum: int) -> int | None:
    if name not in fields:
        return None
    value = fields[name]
    if value.size != 1 or value.dtype.kind not in "iu":
        raise InputError(f"{path}: {name} must be one integer, got {value.dtype} {value.shape}")
    number = int(value.reshape(())[()])
    if not minimum <= number <= np.iinfo(np.int32).max:
        raise InputError(f"{path}: {name} must be >= {minimum} (and fit 32 bits), got {number}")
    return number


def _token_ids(path: Path, fields: dict[str, AnyArray], name: str) -> NDArray[np.int64] | None:
    if name not in fields:
        return None
    value = fields[name]
    if value.ndim != 1 or (value.size and value.dtype.kind not in "iu"):
        raise InputError(
            f"{path}: {name} must be a list of integers, got {value.dtype} {value.shape}"
        )
    return value.astype(np.int64)
