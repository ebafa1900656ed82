"""TensorRT-LLM's expert statistics: a folder of ``meta_info.json`` and a file for every rank.

The first is ``{num_experts, num_experts_per_token}``; ``rank{r}.safetensors`` has an array
``"{iteration}_{layer}"`` of counts [E] for every iteration and MoE layer, numbered among all
layers.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.plain import mapping, whole
from topomoe.formats.text_files import parse_json, read_text
from topomoe.topologies.errors import InputError

META = "meta_info.json"
_KEY = re.compile(r"(\d{1,9})_(\d{1,9})")
_RANK = re.compile(r"rank(\d+)\.safetensors")  # rank{r}_raw.safetensors hold tokens, no counts


def read_statistics(folder: Path) -> tuple[NDArray[np.float64], list[int]]:
    """Return the counts [iterations, M, E], summed over ranks, and the number of each layer.

    Raises InputError, naming the file, for damage, keys of another form, counts of other lengths
    or below 0, and an iteration without one of the layers.
    """
    meta_path = folder / META
    meta = mapping(parse_json(read_text(meta_path), str(meta_path)), str(meta_path))
    for key in ("num_experts", "num_experts_per_token"):
        if key not in meta:
            raise InputError(f"{meta_path}: no key {key}")
    experts = whole(meta["num_experts"], f"{meta_path}: num_experts", 1, 2**15)
    whole(meta["num_experts_per_token"], f"{meta_path}: num_experts_per_token", 1, experts)
    paths = sorted(
        (p for p in folder.glob("rank*.safetensors") if _RANK.fullmatch(p.name)),
        key=lambda p: int(p.stem.removeprefix("rank")),
    )
    if not paths:
        raise InputError(f"{folder}: no rank*.safetensors file beside {META}")
    total: dict[tuple[int, int], NDArray[np.float64]] = {}
    for path in paths:
        for place, counts in _rank(path, experts).items():
            total[place] = total[place] + counts if place in total else counts
    iterations = sorted({iteration for iteration, _ in total})
    layers = sorted({layer for _, layer in total})
    for iteration in iterations:
        for layer in layers:
            if (iteration, layer) not in total:
                raise InputError(f"{folder}: no rank has counts {iteration}_{layer}")
    return np.array([[total[i, m] for m in layers] for i in iterations]), layers


def _rank(path: Path, experts: int) -> dict[tuple[int, int], NDArray[np.float64]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(str(path))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError):
        raise InputError(f"{path}: truncated or no safetensors file") from None
    made = {}
    for key, counts in arrays.items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise InputError(f"{path}: keys must be 'iteration_layer', got {key[:80]!r}")
        if counts.shape != (experts,) or counts.dtype.kind not in "iuf":
            raise InputError(
                f"{path}: {key} must be counts [{experts}], got {counts.dtype} {counts.shape}"
            )
        if not ((counts >= 0) & np.isfinite(counts)).all():  # false for NaN too
            raise InputError(f"{path}: {key} must be finite and >= 0")
        made[int(match[1]), int(match[2])] = counts.astype(np.float64)
    if not made:
        raise InputError(f"{path}: holds no counts")
    return made
