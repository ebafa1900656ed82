"""A whole routing trace in one `.npz` file: its arrays as they are in memory.

Fields: ``experts`` [M, P, K], ``request_start`` [Q+1], ``request_ids`` [Q], ``domain_names`` [D],
``request_domain`` [Q], ``num_experts``; and, where they are not what is put in their place here,
``position`` [P] (0, 1, ... in each request), ``prompt_len`` [Q] (unknown), ``repetition`` [Q]
(none), ``weight`` [P] (1). Token ids lie one request after another, in ``prompt_token_ids`` with
``prompt_token_count`` [Q], -1 for a request without, and the same of the output.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.arrays import AnyArray, read_npz
from topomoe.routing_trace import NO_EXPERT, RoutingTrace, TokenIds, early_absences
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic
from topomoe.trace_file import MAX_EXPERT_ID, PACKED_KEY, check_experts, stored_ids

_NEEDED = (
    "experts",
    "request_start",
    "request_ids",
    "domain_names",
    "request_domain",
    "num_experts",
)
_KEYS = (
    *_NEEDED,
    "position",
    "prompt_len",
    "repetition",
    "weight",
    "prompt_token_ids",
    "prompt_token_count",
    "output_token_ids",
    "output_token_count",
)
_MOST = int(np.iinfo(np.int32).max)


def is_packed(path: Path) -> bool:
    """Return whether ``path`` is a file of a whole trace, told by its fields."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{PACKED_KEY}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # no archive: the reader of requests says what is wrong


def write_packed(trace: RoutingTrace, path: Path) -> None:
    """Write the trace, whole or not at all; the same trace gives the same bytes."""
    length = np.diff(trace.request_start)
    fields: dict[str, AnyArray] = {
        "experts": stored_ids(trace.experts, trace.num_experts),
        "request_start": trace.request_start.astype(np.int64),
        "request_ids": np.array(trace.request_ids),
        "domain_names": np.array(trace.domain_names),
        "request_domain": trace.request_domain.astype(np.int32),
        "num_experts": np.array(trace.num_experts, dtype=np.int32),
    }
    if not np.array_equal(trace.position, _from_zero(length)):
        fields["position"] = trace.position.astype(np.int32)
    if (trace.prompt_len >= 0).any():
        fields["prompt_len"] = trace.prompt_len.astype(np.int32)
    if trace.repetition.any():
        fields["repetition"] = trace.repetition
    if trace.weight is not None:
        fields["weight"] = trace.weight
    for part, ids in (("prompt", trace.prompt_token_ids), ("output", trace.output_token_ids)):
        if ids is not None:
            count = [-1 if each is None else len(each) for each in ids]
            known = [each for each in ids if each is not None]
            fields[f"{part}_token_count"] = np.array(count, dtype=np.int32)
            fields[f"{part}_token_ids"] = np.concatenate(known or [np.zeros(0, np.int64)])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **fields)
    write_atomic(path, buffer.getvalue())


def read_packed(path: Path, num_experts: int | None = None) -> RoutingTrace:
    """Read a whole trace; nothing in the file is ever executed.

    Raises InputError naming the file and the field for anything that does not fit, and where
    ``num_experts`` is given and another.
    """
    fields = _Fields(path, read_npz(path, _KEYS))
    for name in _NEEDED:
        if name not in fields.arrays:
            raise InputError(f"{path}: no field {name} (found: {', '.join(fields.arrays)})")
    experts = fields.arrays["experts"]
    if experts.dtype.kind not in "iu" or experts.ndim != 3 or 0 in experts.shape:
        raise InputError(
            f"{path}: experts must be integers [layers, positions, top-k], none of them 0, "
            f"got {experts.dtype} {experts.shape}"
        )
    positions = experts.shape[1]
    number = int(fields.whole("num_experts", (), 1, MAX_EXPERT_ID + 1))
    if num_experts is not None and num_experts != number:
        raise InputError(f"{path}: num_experts is {number}, but {num_experts} was asked for")
    start = fields.whole("request_start", (None,), 0, positions)
    if len(start) < 2 or start[0] != 0 or start[-1] != positions or (np.diff(start) <= 0).any():
        raise InputError(
            f"{path}: request_start must increase from 0 to the {positions} positions of experts"
        )
    requests, length = len(start) - 1, np.diff(start)
    ids = fields.texts("request_ids", requests)
    domains = fields.texts("domain_names", None)
    position = fields.whole("position", (positions,), 0, _MOST, _from_zero(length))
    inside = np.ones(positions - 1, dtype=np.bool_)
    inside[start[1:-1] - 1] = False
    if (np.diff(position)[inside] <= 0).any():
        raise InputError(f"{path}: position must increase within a request")
    _check_ids(path, experts, number, start, ids, position)
    prompt_len = fields.whole("prompt_len", (requests,), -1, _MOST, np.full(requests, -1))
    tokens = {part: fields.tokens(part, requests) for part in ("prompt", "output")}
    _check_tokens(
        path, tokens["prompt"], tokens["output"], ids, prompt_len, position[start[1:] - 1]
    )
    return RoutingTrace(
        experts=np.ascontiguousarray(experts, dtype=np.int16),
        request_start=start,
        request_ids=ids,
        domain_names=domains,
        request_domain=fields.whole("request_domain", (requests,), 0, len(domains) - 1).astype(
            np.int32
        ),
        position=position.astype(np.int32),
        prompt_len=prompt_len.astype(np.int32),
        num_experts=number,
        repetition=fields.flags("repetition", requests),
        prompt_token_ids=tokens["prompt"],
        output_token_ids=tokens["output"],
        weight=fields.weight(positions),
    )


def _from_zero(length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 0, 1, ... of each request, [P]."""
    total = int(length.sum())
    return np.asarray(np.arange(total) - np.repeat(np.cumsum(length) - length, length))


def _check_ids(
    path: Path,
    experts: AnyArray,
    number: int,
    start: NDArray[np.int64],
    ids: tuple[str, ...],
    position: NDArray[np.int64],
) -> None:
    def place(p: int) -> str:
        q = int(np.searchsorted(start, p, side="right")) - 1
        return f"{path}: experts at position {position[p]} of request {ids[q]}"

    below = (experts < NO_EXPERT).any(axis=2)
    if below.any():
        layer, p = np.argwhere(below)[0]
        raise InputError(f"{place(p)}, layer {layer}: expert ids must be >= 0, or -1 for none")
    early = early_absences(experts)
    if early.any():
        layer, p = np.argwhere(early)[0]
        raise InputError(
            f"{place(p)}, layer {layer}: -1 (no expert) must come after the token's experts"
        )
    check_experts(experts, number, place, str(path))


def _check_tokens(
    path: Path,
    prompt: TokenIds | None,
    output: TokenIds | None,
    ids: tuple[str, ...],
    prompt_len: NDArray[np.int64],
    last: NDArray[np.int64],
) -> None:
    """Raise InputError where a request's token ids are not as many as its lengths say, [Q]."""
    for q, known in enumerate(prompt or ()):
        if known is None:
            continue
        if prompt_len[q] != len(known):
            raise InputError(
                f"{path}: prompt_len must be the length of prompt_token_ids, got {prompt_len[q]} "
                f"and {len(known)} for request {ids[q]}"
            )
        after = output[q] if output else None
        if after is not None and last[q] >= len(known) + len(after):
            raise InputError(
                f"{path}: position must be < tokens, got {last[q]} and "
                f"{len(known) + len(after)} tokens for request {ids[q]}"
            )


class _Fields:
    """The arrays of one file, each given out checked."""

    def __init__(self, path: Path, arrays: dict[str, AnyArray]) -> None:
        self.path, self.arrays = path, arrays

    def whole(
        self,
        name: str,
        shape: tuple[int | None, ...],
        least: int,
        most: int,
        default: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Return whole numbers of that shape (None: any length), within bounds."""
        if name not in self.arrays and default is not None:
            return default
        if name not in self.arrays:
            raise InputError(f"{self.path}: no field {name}")
        value = self.arrays[name]
        fits = value.ndim == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, value.shape, strict=True)
        )
        if value.dtype.kind not in "iu" or not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(
                f"{self.path}: {name} must be integers [{wanted}], got {value.dtype} {value.shape}"
            )
        if value.size and (value.min() < least or value.max() > most):
            wrong = value.min() if value.min() < least else value.max()
            raise InputError(f"{self.path}: {name} must be in {least}..{most}, got {wrong}")
        return value.astype(np.int64)

    def texts(self, name: str, count: int | None) -> tuple[str, ...]:
        """Return distinct texts, none of them empty."""
        value = self.arrays[name]
        if value.dtype.kind != "U" or value.ndim != 1 or len(value) != (count or len(value)):
            wanted = "texts" if count is None else f"{count} texts, one a request"
            raise InputError(
                f"{self.path}: {name} must be {wanted}, got {value.dtype} {value.shape}"
            )
        try:
            made = tuple(str(text) for text in value)
        except (UnicodeError, ValueError, SystemError):
            raise InputError(f"{self.path}: {name} is no text") from None
        if not all(made) or len(set(made)) != len(made) or not made:
            raise InputError(f"{self.path}: {name} must be distinct texts, none of them empty")
        return made

    def flags(self, name: str, count: int) -> NDArray[np.bool_]:
        """Return one truth value each, false by default."""
        value = self.arrays.get(name, np.zeros(count, dtype=np.bool_))
        if value.dtype != np.bool_ or value.shape != (count,):
            raise InputError(
                f"{self.path}: {name} must be {count} truth values, got {value.dtype} {value.shape}"
            )
        return value

    def weight(self, positions: int) -> NDArray[np.float64] | None:
        """Return how often loads count each position, None for once."""
        if "weight" not in self.arrays:
            return None
        value = self.arrays["weight"]
        if value.dtype.kind != "f" or value.shape != (positions,):
            raise InputError(
                f"{self.path}: weight must be {positions} numbers, got {value.dtype} {value.shape}"
            )
        if not (np.isfinite(value).all() and (value >= 0).all() and (value > 0).any()):
            raise InputError(f"{self.path}: weight must be finite and >= 0, and not all zero")
        return value.astype(np.float64)

    def tokens(self, part: str, requests: int) -> TokenIds | None:
        """Return the token ids of each request, None where there are none."""
        ids, count = f"{part}_token_ids", f"{part}_token_count"
        if ids not in self.arrays and count not in self.arrays:
            return None
        sizes = self.whole(count, (requests,), -1, _MOST)
        length = np.maximum(sizes, 0)
        value = self.whole(ids, (int(length.sum()),), -(2**63), 2**63 - 1)
        parts = np.split(value, np.cumsum(length)[:-1])
        return tuple(None if size < 0 else each for size, each in zip(sizes, parts, strict=True))
