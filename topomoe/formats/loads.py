"""Loads of experts from whatever holds counts: recorders, statistics, arrays, tables, traces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.model import MoEModel, model_preset
from topomoe.topologies.errors import InputError
from topomoe.trace_file import PACKED_KEY

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ExpertLoads:
    """Token-expert pairs of every step, MoE layer and expert."""

    load: FloatArray  # [steps, M, E]
    notes: tuple[str, ...] = ()  # what was adapted on loading

    @property
    def total(self) -> FloatArray:
        """The pairs of all steps, [M, E]."""
        return np.asarray(self.load.sum(axis=0), dtype=np.float64)


def load_expert_loads(path: str | Path, model: str | MoEModel | None = None) -> ExpertLoads:
    """Read the loads of a file or folder, recognised by what it holds.

    - SGLang: recorder dumps (``stat``, ``per_pass``, ``per_token``; a file or their folder) and
      ``{"logical_count": [layers][E] or [steps][layers][E]}`` as ``.json``, ``.pt`` or inline text
    - TensorRT-LLM: the folder of ``meta_info.json`` and ``rank*.safetensors``
    - ADRS: ``{"load_history": [{"logical_expert_load": ...}]}``
    - arrays [M, E] or [steps, M, E]: ``.npy``, ``.npz`` (``load``, ``logical_count``, or its only
      array), ``.json``; ``.csv`` with a line a layer
    - a trace in any format of ``load_trace``: one step

    Layers without any load are dense: dropped, and said in ``notes``. With ``model`` the layers
    must be all of its layers or its MoE layers, and the experts its experts.

    Raises InputError, naming the file and the field, for loads that are not finite and >= 0 or all
    zero, for other layers or experts than the model's, and for anything missing or damaged.
    """
    preset = None if model is None else model_preset(model)
    where = str(path)
    if where.lstrip().startswith("{"):
        from topomoe.formats.text_files import parse_json

        where = "expert load"
        return _checked(_fields(parse_json(str(path), where), where), where, (), preset)
    try:
        given, notes = _read(Path(path), preset)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return _checked(given, where, notes, preset)


def _read(path: Path, model: MoEModel | None) -> tuple[FloatArray, tuple[str, ...]]:
    from topomoe.formats.sglang_recorder import read_dumps, recorder_files
    from topomoe.formats.trtllm_statistics import META, read_statistics

    if path.is_dir():
        if (path / META).is_file():
            counts, layers = read_statistics(path)
            first = 0 if model is None else model.num_dense_layers
            if model is not None and layers != list(range(first, first + model.num_layers)):
                raise InputError(
                    f"{path}: counts must be of layers {first}..{first + model.num_layers - 1} of "
                    f"{model.name}, got {len(layers)} layers in {layers[0]}..{layers[-1]}"
                )
            return counts, (f"counts of layers {layers[0]}..{layers[-1]}",)
        if recorder_files(path):
            return _dumped(read_dumps(recorder_files(path)))
    elif path.suffix == ".pt":
        from topomoe.formats.torch_file import read_torch

        value = read_torch(path)
        if "logical_count" in value:
            return _fields(value, str(path)), ()
        return _dumped(read_dumps([path]))
    elif path.suffix in (".json", ".jsonl"):
        return _from_text(path, model)
    elif path.suffix == ".csv":
        return _csv(path), ()
    elif path.suffix in (".npy", ".npz"):
        return _arrays(path, model)
    elif path.is_file():
        raise InputError(
            f"{path}: a load ends in .pt, .json, .jsonl, .csv, .npy or .npz, or is a folder"
        )
    return _traced(path, model)


def _traced(path: Path, model: MoEModel | None) -> tuple[FloatArray, tuple[str, ...]]:
    from topomoe.trace import load_trace

    trace = load_trace(path, model=model)
    return trace.load()[None], trace.notes


def _dumped(dump: Any) -> tuple[FloatArray, tuple[str, ...]]:
    return dump.counts, dump.notes


def _from_text(path: Path, model: MoEModel | None) -> tuple[FloatArray, tuple[str, ...]]:
    from topomoe.formats.traces import holds_tokens, parsed_values

    values = parsed_values(path)
    if holds_tokens(values):
        return _traced(path, model)
    if len(values) != 1:
        raise InputError(f"{path}: must hold one load or the lines of a trace")
    return _fields(values[0][1], str(path)), ()


def _fields(value: Any, where: str) -> FloatArray:
    """Return the counts of a parsed value: bare lists, or a mapping with a known key."""
    from topomoe.formats.adrs import KEY as HISTORY
    from topomoe.formats.adrs import history_counts
    from topomoe.formats.plain import depth, keys_of, number_array

    if isinstance(value, dict):
        if HISTORY in value:
            return history_counts(value, where)
        if "logical_count" not in value:
            raise InputError(
                f"{where}: no key logical_count or {HISTORY} (found: {keys_of(value)})"
            )
        value, where = value["logical_count"], f"{where}: logical_count"
    if isinstance(value, list):
        return number_array(value, where, min(max(depth(value), 1), 3))
    if type(value).__module__.partition(".")[0] == "torch":
        from topomoe.formats.torch_file import tensor_array

        dimensions = min(max(int(getattr(value, "ndim", 2)), 2), 3)
        return tensor_array(value, where, dimensions).astype(np.float64)
    raise InputError(f"{where}: must be a load [layers][E] or [steps][layers][E]")


def _arrays(path: Path, model: MoEModel | None) -> tuple[FloatArray, tuple[str, ...]]:
    from topomoe.formats.arrays import read_npy, read_npz

    if path.suffix == ".npy":
        array = read_npy(path)
        if array.dtype in (np.uint8, np.uint16) and array.ndim == 3:
            raise InputError(
                f"{path}: {array.dtype} [positions, layers, top-k] is a trace as vLLM returns it: "
                "load_trace reads it (counts must be of a wider type)"
            )
    else:
        arrays = read_npz(path)
        if "routed_experts" in arrays or PACKED_KEY in arrays:
            return _traced(path, model)
        named = [name for name in arrays if name in ("load", "logical_count")]
        names = named or list(arrays)
        if len(names) != 1:
            raise InputError(f"{path}: must hold one array, or one called load, has {len(names)}")
        array = arrays[names[0]]
    if array.dtype.kind not in "iuf":
        raise InputError(f"{path}: load must be numbers, got dtype {array.dtype}")
    return array.astype(np.float64), ()


def _csv(path: Path) -> FloatArray:
    from topomoe.formats.text_files import read_text

    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split("#")[0].replace(",", " ").split()
        if not words:
            continue
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise InputError(f"{path}: line {number} must be numbers, a line a layer") from None
        if len(rows[-1]) != len(rows[0]):
            raise InputError(
                f"{path}: line {number} must have {len(rows[0])} numbers, got {len(rows[-1])}"
            )
    if not rows:
        raise InputError(f"{path}: holds no load")
    return np.array(rows)


def _checked(
    given: FloatArray, where: str, notes: tuple[str, ...], model: MoEModel | None
) -> ExpertLoads:
    """Return the loads [steps, M, E] of a checked array [E], [layers, E] or [steps, layers, E]."""
    if given.ndim not in (1, 2, 3) or not given.size:
        raise InputError(
            f"{where}: load must be [layers, E] or [steps, layers, E], got shape {given.shape}"
        )
    load = given.reshape((1,) * (3 - given.ndim) + given.shape)
    wrong = ~((load >= 0) & np.isfinite(load))  # NaN fails every comparison
    if wrong.any():
        step, layer, expert = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{where}: load must be finite and >= 0, got {load[step, layer, expert]} for expert "
            f"{expert} of layer {layer}"
        )
    layers = load.shape[1]
    routed: NDArray[np.bool_] = np.asarray(load.any(axis=(0, 2)))
    if not routed.any():
        raise InputError(f"{where}: load must not be all zero")
    if model is not None:
        _check_model(load, routed, where, model)
        if layers == model.num_layers:
            routed[:] = True  # layers that saw no token: not for this reader to drop
    if not routed.all():
        dropped = ", ".join(str(m) for m in np.flatnonzero(~routed))
        notes += (f"dropped layers without load (dense): {dropped}",)
        load = load[:, routed]
    steps: NDArray[np.bool_] = np.asarray(load.any(axis=(1, 2)))
    if not steps.all():
        notes += (f"dropped {len(steps) - steps.sum()} of {len(steps)} steps without load",)
        load = load[steps]
    return ExpertLoads(np.ascontiguousarray(load), notes)


def _check_model(load: FloatArray, routed: NDArray[np.bool_], where: str, model: MoEModel) -> None:
    layers, experts = load.shape[1:]
    every = model.num_dense_layers + model.num_layers
    if layers not in (every, model.num_layers):
        raise InputError(
            f"{where}: load must have the {model.num_layers} MoE layers of {model.name} or all "
            f"{every}, got {layers}"
        )
    if experts != model.num_experts:
        raise InputError(
            f"{where}: load must have the {model.num_experts} experts of {model.name}, "
            f"got {experts}"
        )
    if layers == every and not np.array_equal(
        np.flatnonzero(~routed), np.arange(model.num_dense_layers)
    ):
        loaded = "have load" if routed[: model.num_dense_layers].any() else "alone have none"
        raise InputError(
            f"{where}: the first {model.num_dense_layers} of {every} layers are dense in "
            f"{model.name} and must have no load, the others some; got load in "
            f"{int(routed.sum())} layers ({loaded})"
        )
