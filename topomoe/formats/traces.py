"""Trace files of serving engines and of moe-balance, recognised and read as requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from topomoe.formats.moe_balance import batch_requests, is_batch_line
from topomoe.formats.routed_experts import array_request, is_response, response_requests
from topomoe.formats.sglang_recorder import FILES, read_dumps, recorder_files
from topomoe.formats.text_files import json_lines, parse_json, read_text
from topomoe.model import MoEModel
from topomoe.topologies.errors import InputError
from topomoe.trace_file import RequestFile, read_request_file

Requests = tuple[list[RequestFile], tuple[str, ...]]
_TEXT = (".json", ".jsonl")


def read_requests(path: Path, model: MoEModel | None) -> Requests:
    """Return the requests of a file or folder in any known format, and notes.

    A folder is read by the first of these that it holds: ``.npz`` requests, recorder dumps, JSON or
    JSON lines (responses, moe-balance), ``.npy`` arrays; files in the order of their names.

    Raises InputError, naming the file, for no such file or folder, none of these in it, and all
    that the formats' modules refuse.
    """
    try:
        return _read(path, model)
    except OSError as error:  # a name too long, a folder that may not be entered
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _read(path: Path, model: MoEModel | None) -> Requests:
    if path.is_dir():
        for pattern, read in _READERS.items():
            found = sorted(p for p in path.glob(pattern) if not p.name.startswith("."))
            if found:
                return read(path, found, model)
        text = sorted(p for p in path.iterdir() if p.suffix in _TEXT and not p.name.startswith("."))
        if text:
            return _text_files(path, text, model)
        raise InputError(
            f"{path}: no .npz file in this folder (nor {FILES}, .npy, .json or .jsonl)"
        )
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix == ".pt":
        return _dumps(path, [path], model)
    if path.suffix == ".npy":
        return [array_request(path, model)], ()
    if path.suffix in _TEXT:
        return _text_files(path, [path], model)
    return [read_request_file(path)], ()


def parsed_values(path: Path) -> list[tuple[str, Any]]:
    """Return the named values of a JSON file (a list: its items) or of JSON lines."""
    if path.suffix == ".jsonl":
        return list(json_lines(path))
    text = read_text(path)
    try:
        value = parse_json(text, str(path))
    except InputError:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not lines[0].rstrip().endswith("}"):
            raise
        return list(json_lines(path))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [(f"{path}: item {number}", item) for number, item in enumerate(value)]
    return [(str(path), value)]


def holds_tokens(values: list[tuple[str, Any]]) -> bool:
    """Return whether parsed values are responses or lines of moe-balance."""
    return bool(values) and (is_response(values[0][1]) or is_batch_line(values[0][1]))


def value_requests(values: list[tuple[str, Any]], path: Path, model: MoEModel | None) -> Requests:
    """Return the requests of one file's parsed values."""
    if not values:
        raise InputError(f"{path}: is empty")
    first = values[0][1]
    if is_batch_line(first):
        return batch_requests(values)
    if is_response(first):
        return response_requests(values, path.stem, len(values) > 1, model), ()
    raise InputError(
        f"{values[0][0]}: no trace: neither a response (meta_info, choices) nor topk_experts"
    )


def _text_files(path: Path, paths: list[Path], model: MoEModel | None) -> Requests:
    files: list[RequestFile] = []
    notes: tuple[str, ...] = ()
    for each in paths:
        made, said = value_requests(parsed_values(each), each, model)
        files += made
        notes += tuple(note for note in said if note not in notes)
    return files, notes


def _dumps(path: Path, paths: list[Path], model: MoEModel | None) -> Requests:
    from topomoe.formats.recorded_sequences import recorded_requests

    files = [path] if path.is_file() else recorder_files(path)
    dump = read_dumps(files, tokens=True)
    experts = dump.num_experts if model is None else model.num_experts
    made, notes = recorded_requests(path, dump.passes, experts)
    return made, dump.notes + notes


def _npz(path: Path, paths: list[Path], model: MoEModel | None) -> Requests:
    return [read_request_file(p) for p in paths], ()


def _npy(path: Path, paths: list[Path], model: MoEModel | None) -> Requests:
    return [array_request(p, model) for p in paths], ()


_READERS: dict[str, Callable[[Path, list[Path], MoEModel | None], Requests]] = {
    "*.npz": _npz,
    FILES: _dumps,
    "*.npy": _npy,
}
