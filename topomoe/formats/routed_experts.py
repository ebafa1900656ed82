"""Responses of SGLang and vLLM that carry the experts of every position.

SGLang: ``meta_info["routed_experts"]``, base64 of int32 [seqlen - 1 - start, all layers, K], whose
shape the response does not hold: the model's layers and top-k are needed. vLLM: base64 of an
``.npy`` in ``choices[].routed_experts``, [tokens - 1, all layers, K] from
``routed_experts_prompt_start`` on; offline the same array, saved as ``.npy``. Ids are logical;
dense layers read as expert 0.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.arrays import npy_bytes, read_npy
from topomoe.formats.plain import kind, mapping, printable, whole, whole_array
from topomoe.formats.requests import request
from topomoe.model import MODELS, MoEModel
from topomoe.topologies.errors import InputError
from topomoe.trace_file import RequestFile


def is_response(value: Any) -> bool:
    """Return whether a parsed value looks like a response of either engine."""
    return isinstance(value, dict) and ("meta_info" in value or "choices" in value)


def array_request(path: Path, model: MoEModel | None) -> RequestFile:
    """Return the request of one ``.npy`` file as vLLM's offline results hold it."""
    experts = read_npy(path)
    _check_model(experts, str(path), model)
    if experts.ndim == 3 and experts.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: routed_experts must be uint8 or uint16, got {experts.dtype}")
    return request(str(path), path.stem, experts, one_row_short=True)


def response_requests(
    responses: Iterable[tuple[str, Any]], stem: str, several: bool, model: MoEModel | None
) -> list[RequestFile]:
    """Return the requests of parsed responses, each with its place for messages.

    A response's ``domain`` is the request's; without one, a file of several gives its ``stem``.
    """
    files: list[RequestFile] = []
    for number, (where, value) in enumerate(responses):
        response = mapping(value, where)
        domain = printable(response.get("domain", stem if several else "all"), f"{where}: domain")
        name = f"{stem}-{number:04d}" if several else stem
        if "meta_info" in response:
            files.append(_sglang(where, response, name, domain, model))
        elif "choices" in response:
            files.extend(_vllm(where, response, name, domain, model))
        else:
            raise InputError(f"{where}: no meta_info (SGLang) and no choices (vLLM)")
    return files


def _sglang(
    where: str, response: dict[str, Any], name: str, domain: str, model: MoEModel | None
) -> RequestFile:
    meta = mapping(response["meta_info"], f"{where}: meta_info")
    field = f"{where}: meta_info.routed_experts"
    content = _base64(meta.get("routed_experts"), field)
    prompt = _count(meta, "prompt_tokens", f"{where}: meta_info")
    output = _count(meta, "completion_tokens", f"{where}: meta_info")
    tokens = None if prompt is None or output is None else prompt + output
    layers, top_k = _shape(content, field, tokens, model)
    row = 4 * layers * top_k
    if not content or len(content) % row:
        raise InputError(
            f"{field} must be rows of {layers} layers x top-{top_k} int32 = {row} bytes, "
            f"got {len(content)} bytes"
        )
    experts = np.frombuffer(content, dtype="<i4").reshape(-1, layers, top_k)
    start = 0
    if tokens is not None:
        start = tokens - 1 - len(experts)
        if start < 0:
            raise InputError(
                f"{field} must have at most prompt_tokens + completion_tokens - 1 = {tokens - 1} "
                f"rows, got {len(experts)}"
            )
    return request(
        where,
        printable(meta.get("id", name), f"{where}: meta_info.id"),
        experts,
        domain,
        position=start,
        prompt_len=-1 if prompt is None else prompt,
        one_row_short=True,
    )


def _shape(
    content: bytes, field: str, tokens: int | None, model: MoEModel | None
) -> tuple[int, int]:
    """Return all layers and top-k: the model's, or of the one preset that the tokens fit."""
    if model is not None:
        return model.num_dense_layers + model.num_layers, model.top_k
    presets = {(m.num_dense_layers + m.num_layers, m.top_k) for m in MODELS.values()}
    fits = {
        (layers, k)
        for layers, k in presets
        if tokens is not None and len(content) == 4 * layers * k * (tokens - 1)
    }
    if len(fits) != 1:
        raise InputError(f"{field} does not hold its shape: name the model (model=, --model)")
    return fits.pop()


def _vllm(
    where: str, response: dict[str, Any], name: str, domain: str, model: MoEModel | None
) -> Iterable[RequestFile]:
    choices = response["choices"]
    if not isinstance(choices, list) or not choices:
        raise InputError(f"{where}: choices must be a list that is not empty")
    identity = printable(response.get("id", name), f"{where}: id")
    usage = response.get("usage")
    prompt = None if usage is None else _count(usage, "prompt_tokens", f"{where}: usage")
    for number, item in enumerate(choices):
        choice = mapping(item, f"{where}: choices[{number}]")
        field = f"{where}: choices[{number}].routed_experts"
        experts = npy_bytes(_base64(choice.get("routed_experts"), field), field)
        if experts.dtype not in (np.uint8, np.uint16):
            raise InputError(f"{field} must be uint8 or uint16, got {experts.dtype}")
        _check_model(experts, field, model)
        start = _start(choice, response, f"{where}: choices[{number}]")
        prompt_ids = _ids(choice, "prompt_token_ids", where)
        if prompt_ids is None:
            prompt_ids = _ids(response, "prompt_token_ids", where)
        output_ids = _ids(choice, "token_ids", where)
        length = prompt if prompt_ids is None else len(prompt_ids)
        if prompt_ids is not None and output_ids is not None:
            tokens = len(prompt_ids) + len(output_ids)
            if start + len(experts) not in (tokens - 1, tokens):
                raise InputError(
                    f"{field} must have a row a token after the first {start}, or one fewer, "
                    f"got {len(experts)} rows and {tokens} tokens"
                )
        yield request(
            where,
            f"{identity}-{number}" if len(choices) > 1 else identity,
            experts,
            domain,
            position=start,
            prompt_len=-1 if length is None else length,
            one_row_short=True,
            prompt_token_ids=prompt_ids,
            output_token_ids=output_ids,
        )


def _check_model(experts: NDArray[Any], field: str, model: MoEModel | None) -> None:
    """Raise InputError for rows of other layers or another top-k than the model's."""
    if model is None or experts.ndim != 3:
        return
    every = model.num_dense_layers + model.num_layers
    if experts.shape[1] not in (every, model.num_layers) or experts.shape[2] != model.top_k:
        raise InputError(
            f"{field} must have the {every} layers and top-{model.top_k} of {model.name}, "
            f"got {experts.shape[1]} and top-{experts.shape[2]}"
        )


def _start(choice: dict[str, Any], response: dict[str, Any], where: str) -> int:
    for holder in (choice, response):
        given = holder.get("routed_experts_prompt_start")
        if given is not None:
            return whole(given, f"{where}.routed_experts_prompt_start")
    return 0


def _ids(holder: dict[str, Any], key: str, where: str) -> NDArray[np.int64] | None:
    given = holder.get(key)
    return None if given is None else whole_array(given, f"{where}: {key}", 1)


def _count(holder: Any, key: str, where: str) -> int | None:
    given = mapping(holder, where).get(key)
    return None if given is None else whole(given, f"{where}.{key}")


def _base64(value: Any, field: str) -> bytes:
    if not isinstance(value, str):
        raise InputError(f"{field} must be base64 text, got {kind(value)}")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{field} is no base64: truncated or damaged") from None
