"""Routing traces: which experts a model's router chose for every token of every request.

A trace on disk is a folder with one `.npz` file a request, one such file, or one file that holds
all of it. Some ship with topomoe: ``bundled()`` names them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topomoe.bundled_traces import bundled, find_trace
from topomoe.formats.arrays import AnyArray
from topomoe.model import MODELS, MoEModel, model_preset
from topomoe.packed_trace import is_packed, read_packed, write_packed
from topomoe.routing_trace import Request, RoutingTrace
from topomoe.topologies.errors import InputError
from topomoe.trace_file import (
    MAX_EXPERT_ID,
    RequestFile,
    check_experts,
    stored_ids,
    write_request_file,
)

__all__ = ["Request", "RoutingTrace", "bundled", "load_trace", "save_trace"]


def load_trace(
    path: str | Path, num_experts: int | None = None, model: str | MoEModel | None = None
) -> RoutingTrace:
    """Load a folder of `.npz` files, one a request (sorted by name), or a single file.

    A file may also hold a whole trace (``save_trace``); a word that is no path may name one that
    ships with topomoe (``bundled``).

    SGLang's recorder dumps (``per_token``), the responses of SGLang and vLLM (`.json`, `.jsonl`),
    vLLM's arrays (`.npy`) and moe-balance's lines are read too: see ``topomoe.formats.traces``.

    An `.npz` file of a request has ``routed_experts`` [positions, layers, K], any integer type, -1
    after the experts of a token that has fewer than K, and may have
    ``request_id`` (else the file's name), ``domain`` (else "all"), ``prompt_token_ids``,
    ``output_token_ids``, ``routed_positions`` (else 0, 1, ...), ``prompt_len``, ``num_experts``
    and ``repetition``. Layers that read as expert 0 throughout are dense and dropped.

    The number of experts is the files', else ``num_experts``, else that of ``model``, else of the
    preset with the same layers and top-k, else the largest id + 1. ``notes`` of the result tells
    what was adapted.

    Raises InputError, naming the file and the field, for anything missing, damaged or out of range.
    """
    from topomoe.formats.traces import read_requests

    preset = None if model is None else model_preset(model)
    source, origin = find_trace(path)
    if is_packed(source):
        return replace(read_packed(source, num_experts), notes=origin)
    files, format_notes = read_requests(source, preset)
    _check_agreement(files)
    experts, notes = _stack(files)
    notes = [*format_notes, *notes]
    largest = int(experts.max())
    number, counted = _count_experts(files, experts, largest, num_experts, preset)
    if counted:
        notes.append(counted)
    start = np.concatenate([[0], np.cumsum([len(f.experts) for f in files])]).astype(np.int64)
    _check_ids(files, experts, start, number)
    domains = tuple(sorted({f.domain for f in files}))
    short = sum(f.one_row_short for f in files)
    if short:
        notes.append(f"{short} of {len(files)} requests have no row for their last token")
    return RoutingTrace(
        experts=experts,
        request_start=start,
        request_ids=tuple(f.request_id for f in files),
        domain_names=domains,
        request_domain=np.array([domains.index(f.domain) for f in files], dtype=np.int32),
        position=np.concatenate([f.position for f in files]),
        prompt_len=np.array([f.prompt_len for f in files], dtype=np.int32),
        num_experts=number,
        repetition=np.array([f.repetition for f in files], dtype=np.bool_),
        notes=tuple(notes),
        prompt_token_ids=_tokens([f.prompt_token_ids for f in files]),
        output_token_ids=_tokens([f.output_token_ids for f in files]),
    )


def save_trace(trace: RoutingTrace, path: str | Path) -> None:
    """Write a trace to one file, where ``path`` ends in `.npz`, else to a folder.

    A file holds all of it, and is written whole or not at all. A folder gets one `.npz` a request,
    named so that they sort in the trace's order. The same trace gives the same bytes.

    Raises InputError where the folder holds `.npz` files of another trace: they would mix.
    """
    target = Path(path)
    if target.suffix == ".npz":
        write_packed(trace, target)
        return
    if target.is_file():
        raise InputError(f"{target}: is a file, a trace is saved to a folder or a file in .npz")
    digits = max(4, len(str(trace.num_requests - 1)))
    names = [
        f"{q:0{digits}d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:80]}.npz"
        for q, name in enumerate(trace.request_ids)
    ]
    strangers = sorted({p.name for p in target.glob("*.npz")} - set(names))
    if strangers:
        raise InputError(f"{target}: holds files of another trace, such as {strangers[0]}")
    stored = stored_ids(trace.experts, trace.num_experts)
    for q, (name, request, loops) in enumerate(
        zip(names, trace.requests, trace.repetition, strict=True)
    ):
        own = stored[:, trace.request_start[q] : trace.request_start[q + 1]]
        fields: dict[str, AnyArray] = {
            "request_id": np.array(request.request_id),
            "domain": np.array(request.domain),
            "routed_experts": own.transpose(1, 0, 2),
            "routed_positions": request.position,
            "num_experts": np.array(trace.num_experts, dtype=np.int32),
        }
        if request.prompt_len >= 0:
            fields["prompt_len"] = np.array(request.prompt_len, dtype=np.int32)
        if loops:
            fields["repetition"] = np.array(True)
        if request.prompt_token_ids is not None:
            fields["prompt_token_ids"] = request.prompt_token_ids
        if request.output_token_ids is not None:
            fields["output_token_ids"] = request.output_token_ids
        write_request_file(target / name, fields)


def _check_agreement(files: list[RequestFile]) -> None:
    first = files[0]
    seen: dict[str, Path] = {}
    for file in files:
        if file.experts.shape[1:] != first.experts.shape[1:]:
            raise InputError(
                f"{file.path}: routed_experts has {file.experts.shape[1]} layers and "
                f"top-{file.experts.shape[2]}, but {first.path.name} has "
                f"{first.experts.shape[1]} and top-{first.experts.shape[2]}"
            )
        if file.num_experts != first.num_experts:
            raise InputError(
                f"{file.path}: num_experts is {file.num_experts}, "
                f"but {first.num_experts} in {first.path.name}"
            )
        if file.request_id in seen:
            raise InputError(
                f"{file.path}: request_id {file.request_id!r} is also that of "
                f"{seen[file.request_id].name}"
            )
        seen[file.request_id] = file.path


def _stack(files: list[RequestFile]) -> tuple[NDArray[np.int16], list[str]]:
    """Return the experts as [M, P, K] without the dense layers, and the notes on them."""
    routed = np.any([file.experts.any(axis=(0, 2)) for file in files], axis=0)
    dense = np.flatnonzero(~routed)
    if not routed.any():
        raise InputError(f"{files[0].path.parent}: routed_experts is zero throughout")
    stacked = np.concatenate([file.experts for file in files])
    experts = np.ascontiguousarray(stacked[:, routed].transpose(1, 0, 2))
    if not dense.size:
        return experts, []
    which = ", ".join(str(m) for m in dense)
    return experts, [f"dropped {dense.size} dense layers (zero throughout): {which}"]


def _count_experts(
    files: list[RequestFile],
    experts: NDArray[np.int16],
    largest: int,
    asked: int | None,
    preset: MoEModel | None,
) -> tuple[int, str]:
    """Return the number of experts, and a note where it was neither stored nor asked for."""
    layers, _, top_k = experts.shape
    stored = files[0].num_experts
    if stored is not None and asked is not None and stored != asked:
        raise InputError(f"{files[0].path}: num_experts is {stored}, but {asked} was asked for")
    number, note = largest + 1, f"{largest + 1} experts, from the largest id: pass num_experts"
    if stored is not None:
        number, note = stored, ""
    elif asked is not None:
        number, note = asked, ""
    elif preset is not None:
        number, note = preset.num_experts, f"{preset.num_experts} experts, as {preset.name} has"
    else:
        for model in MODELS.values():
            if (model.num_layers, model.top_k) == (layers, top_k) and largest < model.num_experts:
                number = model.num_experts
                note = f"{number} experts, as {model.name}, which has the same layers and top-k"
    if not 1 <= number <= MAX_EXPERT_ID + 1:
        raise InputError(f"num_experts must be in 1..{MAX_EXPERT_ID + 1}, got {number}")
    return number, note


def _check_ids(
    files: list[RequestFile], experts: NDArray[np.int16], start: NDArray[np.int64], number: int
) -> None:
    def place(p: int) -> str:
        q = int(np.searchsorted(start, p, side="right")) - 1
        return f"{files[q].path}: routed_experts at position {files[q].position[p - start[q]]}"

    check_experts(experts, number, place, str(files[0].path))


def _tokens(
    ids: Sequence[NDArray[np.int64] | None],
) -> tuple[NDArray[np.int64] | None, ...] | None:
    return None if all(i is None for i in ids) else tuple(ids)
