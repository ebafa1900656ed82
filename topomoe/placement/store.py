"""Placements on disk: the project's own ``.npz``, and the files of serving engines.

``npz`` has the four fields of ``Placement``. The other formats hold the expert of each slot only:
shares come back even, and devices have to be named when such a file is read.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.formats import placement_formats
from topomoe.model import MoEModel, model_preset
from topomoe.placement.placement import SHARE_TOLERANCE, Placement
from topomoe.placement.problem import even_shares
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.files import write_atomic

_FIELDS = ("slot_expert", "slot_share", "num_devices", "num_experts")


def save_placement(
    placement: Placement,
    path: str | Path,
    format: str = "npz",
    model: str | MoEModel | None = None,
    load: ArrayLike | None = None,
) -> tuple[str, ...]:
    """Write the placement whole or not at all and return notes on what the format cannot hold.

    - ``npz``: all of it; equal placements give equal bytes
    - ``sglang``: the JSON of ``--init-expert-location``, all layers of the model, dense rows zero
    - ``trtllm``: the load-balancer YAML, layers numbered after the model's dense ones
    - ``eplb``: an ``.npz`` with phy2log [M, S], log2phy [M, E, copies] (-1 pads), logcnt [M, E]

    ``model`` says how many dense layers ``sglang`` and ``trtllm`` put first; without it, the preset
    with these layers and experts does. Both know the routed experts only: where the shared expert
    is routed as one more, its slots are given to routed experts that their device lacks, those with
    the largest load per replica if ``load[M, E]`` is given.

    Raises InputError for an unknown format, a model of another shape, and a path that cannot be
    written.
    """
    target = Path(path)
    if format not in placement_formats():
        raise unknown("placement format", format, placement_formats())
    if format == "npz":
        fields = {name: getattr(placement, name) for name in _FIELDS}
        write_atomic(target, _archive(fields))
        return ()
    notes = _lost_shares(placement)
    if format == "eplb":
        from topomoe.placement.eplb_interface import logical_count, logical_to_physical

        arrays = {
            "phy2log": placement.slot_expert.astype(np.int64),
            "log2phy": logical_to_physical(placement),
            "logcnt": logical_count(placement),
        }
        write_atomic(target, _archive(arrays))
        return notes
    from topomoe.formats.physical_map import engine_map
    from topomoe.formats.sglang_location import location_text
    from topomoe.formats.trtllm_placement import balancer_text

    loads = None if load is None else np.asarray(load, dtype=np.float64)
    if loads is not None and loads.shape != (placement.num_layers, placement.num_experts):
        raise InputError(
            f"load must be [M, E] = [{placement.num_layers}, {placement.num_experts}], "
            f"got shape {loads.shape}"
        )
    slots, dense_layers, said = engine_map(
        placement.slot_expert, placement.num_devices, placement.num_experts, model, loads
    )
    text = location_text if format == "sglang" else balancer_text
    write_atomic(target, text(slots, dense_layers))
    return notes + said


def load_placement(
    path: str | Path,
    devices: int | None = None,
    model: str | MoEModel | None = None,
    num_experts: int | None = None,
) -> Placement:
    """Read a placement in any format of ``save_placement``, recognised by what the file holds.

    SGLang's may also be ``.pt``, the JSON text itself, or ``trivial`` (slot s holds expert s mod E;
    needs ``model``, has the fewest slots that the devices divide). ``devices`` must be given for
    the formats of engines, which do not hold it; their shares are even. ``model`` makes sure that
    they have all of its layers and experts; without it, rows of zeros are dense layers, and the
    largest id plus one (or ``num_experts``) is the number of experts.

    Raises InputError, naming the file and the field, where it is missing, damaged, no valid
    placement, or of other devices, layers or experts than asked for.
    """
    preset = None if model is None else model_preset(model)
    experts = num_experts if preset is None else preset.num_experts
    if num_experts is not None and num_experts != experts:
        raise InputError(
            f"num_experts must be the {experts} of the model, got num_experts={num_experts}"
        )
    name = str(path)
    if name == "trivial":
        return _trivial(devices, preset)
    suffix = Path(name).suffix
    if name.lstrip().startswith("{") or suffix in (".json", ".pt"):
        from topomoe.formats.sglang_location import read_location

        slots, count = read_location(path, devices, preset, num_experts)
        where = "expert location" if name.lstrip().startswith("{") else name
        return _even(slots, devices, count, where)
    if suffix in (".yaml", ".yml"):
        from topomoe.formats.trtllm_placement import read_balancer

        slots, count = read_balancer(Path(path), devices, preset, num_experts)
        return _even(slots, devices, count, name)
    fields = _read_archive(Path(path))
    if "phy2log" in fields:
        from topomoe.formats.eplb_arrays import array_slots

        slots, count = array_slots(fields, name, devices, preset, num_experts)
        return _even(slots, devices, count, name)
    placement = _own(fields, name)
    if devices is not None and placement.num_devices != devices:
        raise InputError(f"{path}: is for {placement.num_devices} devices, not {devices}")
    if num_experts is not None and placement.num_experts != num_experts:
        raise InputError(f"{path}: has {placement.num_experts} experts, not {num_experts}")
    if preset is not None:
        shared = preset.num_experts + (preset.num_shared_experts > 0)
        if placement.num_layers != preset.num_layers or placement.num_experts not in (
            preset.num_experts,
            shared,
        ):
            raise InputError(
                f"{path}: must have the {preset.num_layers} MoE layers and {preset.num_experts} "
                f"experts of {preset.name}, got {placement.num_layers} and {placement.num_experts}"
            )
    return placement


def _trivial(devices: int | None, model: MoEModel | None) -> Placement:
    from topomoe.formats.sglang_location import trivial_slots

    if devices is None or model is None or devices < 1:
        raise InputError("trivial: needs the model and devices >= 1, as it holds neither")
    slots = -(-model.num_experts // devices) * devices
    rows = trivial_slots(model.num_layers, model.num_experts, slots)
    return _even(rows, devices, model.num_experts, "trivial")


def _lost_shares(placement: Placement) -> tuple[str, ...]:
    even = even_shares(placement.slot_expert, placement.num_experts)
    changed = np.abs(placement.slot_share - even) > SHARE_TOLERANCE
    if not changed.any():
        return ()
    return (
        f"shares are lost: the engine splits each expert evenly over its replicas, "
        f"{int(changed.sum())} of {changed.size} slots had another share",
    )


def _even(slots: NDArray[np.int64], devices: int | None, num_experts: int, where: str) -> Placement:
    slot_expert = slots.astype(np.int32)
    try:
        return Placement(
            slot_expert, even_shares(slot_expert, num_experts), devices or 0, num_experts
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _archive(fields: dict[str, Any]) -> bytes:
    buffer = BytesIO()
    arrays = {
        name: np.int64(field) if isinstance(field, int) else field for name, field in fields.items()
    }
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _read_archive(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` that are fields of a placement."""
    from topomoe.formats.arrays import read_npz
    from topomoe.formats.eplb_arrays import FIELDS

    try:
        with path.open("rb") as file:
            single = file.read(6) == b"\x93NUMPY"
    except FileNotFoundError:
        raise InputError(f"{path}: no such placement file") from None
    except OSError as error:
        raise InputError(f"{path}: not a readable placement file ({error.strerror})") from None
    if single:
        raise InputError(f"{path}: a placement is an .npz archive, not a single array")
    try:
        return read_npz(path, (*_FIELDS, *FIELDS))
    except InputError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: not a readable placement file ({why})") from None


def _own(fields: dict[str, NDArray[Any]], where: str) -> Placement:
    """Return the placement of the four fields that ``save_placement`` writes."""
    for name in _FIELDS:
        if name not in fields:
            raise InputError(f"{where}: no field {name!r} in this placement file")
    for name in ("num_devices", "num_experts"):
        if fields[name].shape != () or not np.issubdtype(fields[name].dtype, np.integer):
            raise InputError(f"{where}: {name} must be one integer, got {fields[name]!r}")
    if not np.issubdtype(fields["slot_share"].dtype, np.floating):
        raise InputError(f"{where}: slot_share must be floats, got {fields['slot_share'].dtype}")
    slot_expert = fields["slot_expert"]
    experts, slots = int(fields["num_experts"]), slot_expert.shape[-1] if slot_expert.ndim else 0
    if not 1 <= experts <= slots:
        raise InputError(f"{where}: num_experts must be in 1..{slots}, the slots, got {experts}")
    if slot_expert.dtype.kind in "iu" and slot_expert.size and slot_expert.max() >= experts:
        raise InputError(
            f"{where}: slot_expert must lie in 0..{experts - 1}, got {slot_expert.max()}"
        )
    try:
        return Placement(
            slot_expert.astype(np.int32, casting="same_kind"),
            fields["slot_share"].astype(np.float64),
            int(fields["num_devices"]),
            experts,
        )
    except (InputError, TypeError) as error:
        raise InputError(f"{where}: {error}") from None
