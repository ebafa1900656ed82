"""Traces of moe-balance: JSON lines, each the tokens of one layer of one batch.

``{"layer", "batch_id", "origin_rows": [T], "topk_experts": [T][K]}``; weights are not kept, nor are
origins: a workload draws them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.plain import mapping, printable, whole, whole_array
from topomoe.formats.requests import request
from topomoe.topologies.errors import InputError
from topomoe.trace_file import RequestFile


def is_batch_line(value: Any) -> bool:
    """Return whether a parsed line looks like one of this format."""
    return isinstance(value, dict) and "topk_experts" in value


def batch_requests(
    lines: Iterable[tuple[str, Any]],
) -> tuple[list[RequestFile], tuple[str, ...]]:
    """Return a request for every ``request_id``, or else for every batch, and notes.

    Batches are kept in the order in which they come. Every batch must have the same layers, and in
    each of them as many tokens. A ``source_file`` names the domain.
    """
    batches: dict[tuple[str, Any], dict[int, NDArray[np.int64]]] = {}
    places: dict[tuple[str, Any], str] = {}
    domains: dict[str, str] = {}
    for where, value in lines:
        line = mapping(value, where)
        for key in ("layer", "batch_id", "topk_experts"):
            if key not in line:
                raise InputError(f"{where}: no key {key}")
        layer = whole(line["layer"], f"{where}: layer")
        batch = _name(line["batch_id"], f"{where}: batch_id")
        experts = whole_array(line["topk_experts"], f"{where}: topk_experts", 2)
        if "origin_rows" in line:
            origins = whole_array(line["origin_rows"], f"{where}: origin_rows", 1)
            if len(origins) != len(experts):
                raise InputError(
                    f"{where}: origin_rows must be one a token, got {len(origins)} for "
                    f"{len(experts)} tokens"
                )
        name = f"batch-{batch}"
        if line.get("request_id") is not None:
            name = _name(line["request_id"], f"{where}: request_id")
        layers = batches.setdefault((name, batch), {})
        if layer in layers:
            raise InputError(f"{where}: layer {layer} of batch {batch} comes twice")
        layers[layer] = experts
        places.setdefault((name, batch), where)
        source = line.get("source_file")
        domain = "all" if source is None else Path(_name(source, f"{where}: source_file")).stem
        if domains.setdefault(name, domain) != domain:
            raise InputError(f"{where}: source_file must be one for all lines of {name}")
    return _requests(batches, places, domains)


def _requests(
    batches: dict[tuple[str, Any], dict[int, NDArray[np.int64]]],
    places: dict[tuple[str, Any], str],
    domains: dict[str, str],
) -> tuple[list[RequestFile], tuple[str, ...]]:
    layers = sorted({layer for batch in batches.values() for layer in batch})
    rows: dict[str, list[NDArray[np.int64]]] = {}
    where: dict[str, str] = {}
    for key, batch in batches.items():
        if sorted(batch) != layers:
            lacking = next(layer for layer in layers if layer not in batch)
            raise InputError(f"{places[key]}: batch {key[1]} lacks layer {lacking}")
        shapes = {experts.shape for experts in batch.values()}
        if len(shapes) > 1:
            raise InputError(
                f"{places[key]}: topk_experts must have one shape in all layers of batch "
                f"{key[1]}, got {sorted(shapes)}"
            )
        rows.setdefault(key[0], []).append(np.stack([batch[m] for m in layers], axis=1))
        where.setdefault(key[0], places[key])
    made = []
    for name, parts in rows.items():
        if len({part.shape[2] for part in parts}) > 1:
            raise InputError(f"{where[name]}: topk_experts must have one top-k in all batches")
        made.append(request(where[name], name, np.concatenate(parts), domains[name]))
    return made, ("weights and origin rows of the lines are not kept",)


def _name(value: Any, field: str) -> str:
    return str(whole(value, field)) if type(value) is int else printable(value, field)
