"""Dumps of SGLang's expert-distribution recorder: modes ``stat``, ``per_pass`` and ``per_token``.

``stat`` holds logical counts, summed over ranks. The other two hold a list of records a rank and
the map from physical to logical experts at the time of the dump: had the server rebalanced while it
recorded, earlier records would be read by the wrong map, which the files do not tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.plain import mapping, whole, whole_array
from topomoe.formats.torch_file import read_torch, tensor_array, whole_tensor
from topomoe.topologies.errors import InputError
from topomoe.trace_file import MAX_EXPERT_ID

IntArray = NDArray[np.int64]
FILES = "expert_distribution_recorder_*.pt"
_NAME = re.compile(r"expert_distribution_recorder_(\d+(?:\.\d+)?)(?:_(\d+))?\.pt$")
_DECODE = 2  # forward_mode of SGLang's ForwardMode.DECODE


@dataclass(frozen=True, eq=False)
class Pass:
    """The tokens of one forward pass on one rank, as ``per_token`` records them."""

    where: str
    experts: NDArray[np.int16]  # [layers, T, K] logical ids; -1 in layers that route nothing
    token_ids: IntArray  # [T]
    position: IntArray  # [T], index in the token's sequence
    lengths: IntArray | None  # of the sequences of a prefill; None: a decode, one token each


@dataclass(frozen=True, eq=False)
class Dump:
    """What the files of one folder hold: counts, or tokens of each rank."""

    counts: NDArray[np.float64]  # [steps, layers, E]
    passes: tuple[tuple[Pass, ...], ...]  # of each rank in order; empty: no tokens
    num_experts: int
    notes: tuple[str, ...]


def recorder_files(path: Path) -> list[Path]:
    """Return the dumps at ``path``, a file or folder, by time and rank."""
    if path.is_file():
        return [path]
    found = [p for p in path.glob(FILES) if not p.name.startswith(".")]
    return sorted(found, key=_order)


def read_dumps(paths: Sequence[Path], tokens: bool = False) -> Dump:
    """Return what recorder files of one run hold; ``tokens`` wants the tokens of ``per_token``.

    Raises InputError, naming the file and the field, for damage, other keys, ids out of range,
    files of different modes, and dumps without tokens where they are wanted.
    """
    loaded = [(path, read_torch(path)) for path in paths]
    stat = ["logical_count" in value for _, value in loaded]
    if any(stat):
        if not all(stat):
            raise InputError(f"{paths[stat.index(False)]}: is of another mode than {paths[0].name}")
        if tokens:
            raise InputError(f"{paths[0]}: logical_count holds counts, no tokens: no trace")
        counts = [_logical_count(path, value) for path, value in loaded]
        _same([c.shape[1:] for c in counts], paths, "logical_count", "[layers, E]")
        return Dump(np.concatenate(counts), (), counts[0].shape[2], ())
    ranks = [_records(path, value) for path, value in loaded]
    maps = [rank[1] for rank in ranks]
    _same([m.shape for m in maps], paths, "last_physical_to_logical_map", "[layers, S]")
    experts = int(max(m.max() for m in maps)) + 1
    if tokens:
        of_rank: dict[int, list[Pass]] = {}
        for records, to_logical in ranks:
            rank = whole(records[0][1].get("rank", 0), f"{records[0][0]}: rank")
            made = [_pass(where, record, to_logical) for where, record in records]
            of_rank.setdefault(rank, []).extend(made)
        kept, notes = _distinct([tuple(passes) for passes in of_rank.values()])
        return Dump(np.zeros((0, 0, 0)), kept, experts, notes)
    counts_of: dict[int, NDArray[np.float64]] = {}
    for records, to_logical in ranks:
        for where, record in records:
            step = whole(record.get("forward_pass_id"), f"{where}: forward_pass_id", most=2**62)
            counted = _counted(where, record, to_logical, experts)
            counts_of[step] = counts_of[step] + counted if step in counts_of else counted
    return Dump(np.stack(list(counts_of.values())), (), experts, ())


def _logical_count(path: Path, value: dict[Any, Any]) -> NDArray[np.float64]:
    field = f"{path}: logical_count"
    given = value["logical_count"]
    ndim = 2 if getattr(given, "ndim", 3) == 2 else 3
    counts = tensor_array(given, field, ndim).astype(np.float64)
    return counts[None] if ndim == 2 else counts


def _records(
    path: Path, value: dict[Any, Any]
) -> tuple[list[tuple[str, dict[Any, Any]]], IntArray]:
    """Return the named records of a rank's file and its map [layers, S] to logical experts."""
    for key in ("records", "last_physical_to_logical_map"):
        if key not in value:
            raise InputError(f"{path}: no key {key} (nor logical_count): is no recorder dump")
    to_logical = whole_tensor(
        value["last_physical_to_logical_map"], f"{path}: last_physical_to_logical_map", 2
    )
    if to_logical.min() < 0 or to_logical.max() >= to_logical.shape[1]:
        raise InputError(
            f"{path}: last_physical_to_logical_map must be in 0..{to_logical.shape[1] - 1}, "
            f"got {to_logical.min()}..{to_logical.max()}"
        )
    if to_logical.max() > MAX_EXPERT_ID:
        raise InputError(
            f"{path}: last_physical_to_logical_map must be <= {MAX_EXPERT_ID}, "
            f"got {to_logical.max()}"
        )
    records = value["records"]
    if not isinstance(records, list) or not records:
        raise InputError(f"{path}: records must be a list that is not empty")
    named = []
    for number, record in enumerate(records):
        where = f"{path}: record {number}"
        named.append((where, mapping(record, where)))
    return named, to_logical


def _counted(
    where: str, record: dict[Any, Any], to_logical: IntArray, experts: int
) -> NDArray[np.float64]:
    """Return a record's counts [layers, E] of logical experts."""
    field = f"{where}: global_physical_count"
    if "global_physical_count" not in record:
        raise InputError(f"{field} is missing")
    physical = whole_tensor(record["global_physical_count"], field, 2)
    if physical.shape != to_logical.shape:
        raise InputError(
            f"{field} must be shaped as last_physical_to_logical_map, {list(to_logical.shape)}, "
            f"got {list(physical.shape)}"
        )
    if physical.min() < 0:
        raise InputError(f"{field} must be >= 0, got {physical.min()}")
    layers = len(physical)
    flat = to_logical + experts * np.arange(layers)[:, None]
    counts = np.bincount(flat.ravel(), weights=physical.ravel(), minlength=layers * experts)
    return counts.reshape(layers, experts).astype(np.float64)


def _pass(where: str, record: dict[Any, Any], to_logical: IntArray) -> Pass:
    """Return a record's tokens; those that no layer routes (padding) are left out."""
    if "topk_ids_of_layer" not in record:
        raise InputError(f"{where}: no key topk_ids_of_layer: holds counts, no tokens: no trace")
    for key in ("input_ids", "positions", "extend_seq_lens", "forward_mode"):
        if key not in record:
            raise InputError(f"{where}: no key {key}")
    mode = whole(record["forward_mode"], f"{where}: forward_mode")
    tokens = _whole_list(record["input_ids"], f"{where}: input_ids")
    position = _whole_list(record["positions"], f"{where}: positions")
    field = f"{where}: topk_ids_of_layer"
    layers, slots = to_logical.shape
    if not tokens.size:
        none = np.empty(0, dtype=np.int64)
        return Pass(where, np.empty((layers, 0, 1), dtype=np.int16), none, none, None)
    physical = whole_tensor(record["topk_ids_of_layer"], field, 3)
    if physical.shape[:2] != (layers, len(tokens)) or len(position) != len(tokens):
        raise InputError(
            f"{field} must be [{layers} layers, {len(tokens)} input_ids, top-k] with as many "
            f"positions, got {list(physical.shape)} and {len(position)} positions"
        )
    if physical.min() < -1 or physical.max() >= slots:
        raise InputError(f"{field} must be in -1..{slots - 1}, got {_extreme(physical, slots)}")
    if position.min() < 0 or position.max() >= 2**31 - 1:
        raise InputError(f"{where}: positions must be >= 0 (and fit 32 bits)")
    flat = np.maximum(physical, 0).reshape(layers, -1)
    logical = np.take_along_axis(to_logical.astype(np.int16), flat, axis=1).reshape(physical.shape)
    logical[physical < 0] = -1
    lengths = None
    if mode != _DECODE:
        if record["extend_seq_lens"] is None:
            raise InputError(
                f"{where}: extend_seq_lens must be there unless forward_mode is decode "
                f"({_DECODE}), got forward_mode {mode}"
            )
        lengths = _whole_list(record["extend_seq_lens"], f"{where}: extend_seq_lens")
        if lengths.min(initial=0) < 0 or lengths.sum() > len(tokens):
            raise InputError(
                f"{where}: extend_seq_lens must be >= 0 and sum to at most the {len(tokens)} "
                f"input_ids, got {lengths.sum()}"
            )
    return Pass(where, logical, tokens, position, lengths)


def _distinct(
    passes: list[tuple[Pass, ...]],
) -> tuple[tuple[tuple[Pass, ...], ...], tuple[str, ...]]:
    """Leave out ranks that saw the very tokens of another: tensor parallelism, not data."""
    kept: dict[tuple[bytes, ...], tuple[Pass, ...]] = {}
    for rank in passes:
        seen = tuple(p.token_ids.tobytes() + b"|" + p.position.tobytes() for p in rank)
        kept.setdefault(seen, rank)
    left_out = len(passes) - len(kept)
    notes = (f"{left_out} ranks recorded the same tokens as another: left out",)
    return tuple(kept.values()), notes if left_out else ()


def _whole_list(value: Any, field: str) -> IntArray:
    if isinstance(value, list) and not value:
        return np.empty(0, dtype=np.int64)
    if isinstance(value, list):
        return whole_array(value, field, 1)
    return whole_tensor(value, field, 1)


def _extreme(ids: IntArray, slots: int) -> int:
    return int(ids.min() if ids.min() < -1 else ids.max())


def _order(path: Path) -> tuple[float, int, str]:
    """Sort dumps by time; the ranks of one dump name slightly different times."""
    match = _NAME.search(path.name)
    return (float(match[1]), int(match[2] or 0), path.name) if match else (0.0, 0, path.name)


def _same(shapes: list[Any], paths: Sequence[Path], field: str, what: str) -> None:
    for shape, path in zip(shapes, paths, strict=True):
        if shape != shapes[0]:
            raise InputError(
                f"{path}: {field} must have the {what} of {paths[0].name}, {list(shapes[0])}, "
                f"got {list(shape)}"
            )
