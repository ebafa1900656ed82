"""What ``topomoe place`` does: one placement, its certificate, and what changes by it."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from topomoe.inputs import (
    check_routed,
    expert_load,
    find_model,
    least_exact_slots,
    load_with_model,
)
from topomoe.model import MoEModel, model_preset
from topomoe.place_settings import PlaceSettings
from topomoe.placement import Placement, certificate, load_placement, place
from topomoe.placement.placement import SHARE_TOLERANCE
from topomoe.placement.problem import even_shares
from topomoe.placement.registry import check_slots
from topomoe.routing_trace import RoutingTrace
from topomoe.step import FloatArray
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.files import check_target
from topomoe.topologies.registry import MOST_DEVICES, parse_grid
from topomoe.workload import as_served

DEFAULT_GRID = "16x8"
SPANS = 8  # loads that the recorded training steps become for methods that take several


@dataclass(frozen=True, eq=False)
class PlaceInput:
    """What the settings come to."""

    source: RoutingTrace | FloatArray  # what the method is given: trace, [M, E] or [D, M, E]
    training: FloatArray  # [M, E]
    held_out: FloatArray | None  # [M, E]; None: nothing was held out
    counted: tuple[str, str]  # what each of the two was counted from
    model: MoEModel | None
    devices: int
    grid: tuple[int, int] | None
    slots: int
    previous: Placement | None
    notes: tuple[str, ...]

    @property
    def scored(self) -> FloatArray:
        """The load [M, E] that pictures show: held out, where there is one."""
        return self.training if self.held_out is None else self.held_out


def prepare_place(settings: PlaceSettings) -> PlaceInput:
    """Load trace or loads and the placement served so far; InputError for what does not fit."""
    if bool(settings.trace) == bool(settings.load):
        raise InputError("place: give --trace or --load, not both or neither")
    if settings.load and settings.phase:
        raise InputError("place: phase is for a trace: recorded loads have no requests")
    devices, grid = _devices(settings)
    source, training, held_out, counted, model, notes = (
        _from_trace(settings) if settings.trace else _from_loads(settings)
    )
    layers, experts = training.shape
    previous = None
    if settings.previous:
        named = model if settings.model else None  # with the trace's layers
        previous = load_placement(settings.previous, devices=devices, model=named)
        theirs = (previous.num_layers, previous.num_devices, previous.num_experts)
        if theirs != (layers, devices, experts):
            raise InputError(
                f"{_name(settings.previous, 'expert location')}: previous must place {layers} "
                f"layers of {experts} experts on {devices} devices, places {theirs[0]} of "
                f"{theirs[2]} on {theirs[1]}"
            )
    slots = settings.slots or (
        previous.num_slots if previous else least_exact_slots(experts, devices)
    )
    check_slots(experts, devices, slots)
    return PlaceInput(
        source, training, held_out, counted, model, devices, grid, slots, previous, notes
    )


def _devices(settings: PlaceSettings) -> tuple[int, tuple[int, int] | None]:
    """Return N and the grid; no grid where only devices are given."""
    if settings.devices is not None and settings.devices > MOST_DEVICES:
        raise InputError(f"devices must be <= {MOST_DEVICES}, got {settings.devices}")
    if settings.devices is not None and not settings.grid:
        default = parse_grid(DEFAULT_GRID)
        return settings.devices, default if settings.devices == np.prod(default) else None
    grid = parse_grid(settings.grid or DEFAULT_GRID)
    devices = grid[0] * grid[1]
    if settings.devices not in (None, devices):
        raise InputError(
            f"grid must have as many places as devices, got grid={grid[0]}x{grid[1]} "
            f"and devices={settings.devices}"
        )
    return devices, grid


Loaded = tuple[
    RoutingTrace | FloatArray,
    FloatArray,
    FloatArray | None,
    tuple[str, str],
    MoEModel | None,
    tuple[str, ...],
]


def _from_trace(settings: PlaceSettings) -> Loaded:
    model, trace = load_with_model(settings.trace, settings.model)
    if settings.shared_expert == "routed":
        check_routed(model)
        if settings.method == "locality":
            raise InputError("locality reads the trace, which has no routed shared expert")
    train, test = trace.split(settings.test_fraction, settings.seed)
    if settings.phase:
        train, test = (as_served(part, settings.phase) for part in (train, test))
    loads = [expert_load(part, settings.shared_expert) for part in (train, test)]
    return (
        # With the shared expert routed, tokens have one expert more than the trace knows of.
        train if settings.shared_expert == "local" else loads[0],
        loads[0],
        loads[1],
        (f"{train.num_requests} requests", f"{test.num_requests} requests"),
        model,
        trace.notes,
    )


def _from_loads(settings: PlaceSettings) -> Loaded:
    from topomoe.formats import load_expert_loads

    if settings.model:
        model_preset(settings.model)
    recorded = load_expert_loads(settings.load, model=settings.model or None)
    load = np.asarray(recorded.load, dtype=np.float64)  # [steps, M, E]
    layers, experts = load.shape[1:]
    model = find_model(settings.model, layers, experts)
    if settings.shared_expert == "routed":
        top_k = check_routed(model).top_k
        load = np.concatenate([load, load.sum(axis=2, keepdims=True) / top_k], axis=2)
    steps, where = len(load), _name(settings.load, "expert load")
    if steps == 1:
        note = f"{where}: one step only, none is held out"
        return load[0], load[0], None, ("1 step", ""), model, (*recorded.notes, note)
    later = min(max(round(steps * settings.test_fraction), 1), steps - 1)
    train, test = load[:-later], load[-later:]
    empty = np.flatnonzero(~train.any(axis=(0, 2)))
    if len(empty):
        raise InputError(
            f"{where}: the {len(train)} training steps must have a load in every layer, "
            f"layer {empty[0]} has none"
        )
    spans = np.stack([part.sum(axis=0) for part in np.array_split(train, min(SPANS, len(train)))])
    several = len(spans) > 1 and bool(spans.any(axis=2).all())
    return (
        spans if several and settings.method == "robust" else train.sum(axis=0),
        train.sum(axis=0),
        test.sum(axis=0),
        (f"{len(train)} steps", f"{len(test)} steps"),
        model,
        recorded.notes,
    )


def run_place(settings: PlaceSettings, given: PlaceInput) -> tuple[Placement, Placement]:
    """Return the placement served before, contiguous without one, and the new one."""
    options = settings.options
    if given.model is not None and not options.timed_model:
        options = replace(options, timed_model=given.model.name)
    placement = place(
        given.source,
        devices=given.devices,
        slots=given.slots,
        method=settings.method,
        grid=given.grid,
        seed=settings.seed,
        previous=given.previous,
        options=options,
    )
    before = given.previous or place(
        given.training, given.devices, given.slots, method="contiguous", grid=given.grid
    )
    return before, placement


def before_name(settings: PlaceSettings) -> str:
    """Return what the placement before is called."""
    if not settings.previous:
        return "contiguous"
    return Path(_name(settings.previous, "expert location")).name


def _name(given: str, inline: str) -> str:
    """Return the path that was given, ``inline`` where it is the JSON itself."""
    return inline if given.lstrip().startswith("{") else given


def certificate_rows(
    settings: PlaceSettings, given: PlaceInput, before: Placement, placement: Placement
) -> list[dict[str, str]]:
    """Return bound, achieved and gap on training and held-out loads, as text.

    The bound holds for every placement with these slots on that load, whatever it was made from;
    the held-out rows are what a served trace will see. Where the format loses the shares, the last
    rows are the placement with the even shares that the engine will give it.
    """
    loads = [(f"training ({given.counted[0]})", given.training)]
    if given.held_out is not None:
        loads.append((f"held out ({given.counted[1]})", given.held_out))
    rows = []
    compared = [(before_name(settings), before), (settings.method, placement)]
    written = _as_served(settings, placement)
    if written is not None:
        compared.append((f"{settings.method} as {settings.format}", written))
    for name, made in compared:
        for label, load in loads:
            proof = certificate(made, load)
            mean = load.sum(axis=1) / made.num_devices
            filled = mean > 0
            bound, achieved = (
                np.divide(value, mean, out=np.ones_like(mean), where=filled)
                for value in (proof.bound, proof.achieved)
            )
            worst = int(achieved.argmax())
            rows.append(
                {
                    "placement": name,
                    "load": label,
                    "balancedness mean": f"{(1.0 / achieved).mean():.4f}",
                    "worst layer": f"{1.0 / achieved[worst]:.4f}",
                    "max/mean: bound": f"{bound.mean():.4f}",
                    "achieved": f"{achieved.mean():.4f}",
                    "worst": f"{achieved[worst]:.4f}",
                    "in layer": str(worst),
                    "gap": f"{proof.gap.mean():.2%}",
                    "worst gap": f"{proof.gap.max():.2%}",
                }
            )
    return rows


def _as_served(settings: PlaceSettings, placement: Placement) -> Placement | None:
    """Return the placement as an engine splits it, evenly; None where that is what it is."""
    if settings.format == "npz":
        return None
    even = even_shares(placement.slot_expert, placement.num_experts)
    if np.allclose(even, placement.slot_share, rtol=0.0, atol=SHARE_TOLERANCE):
        return None
    return replace(placement, slot_share=even)


def migration_row(given: PlaceInput, placement: Placement) -> dict[str, str]:
    """Return what moving from the previous placement takes: expert copies and their bytes."""
    if given.previous is None:
        raise InputError("migration needs a previous placement")
    moved = placement.migration_slots(given.previous)
    row = {
        "new expert copies": f"{moved.sum():,} of {placement.slot_expert.size:,}",
        "most on a device": f"{moved.sum(axis=0).max():,}",
    }
    if given.model is not None:
        size = given.model.expert_weight_bytes
        row["GB in all"] = f"{moved.sum() * size * 1e-9:.2f}"
        row["most GB into a device"] = f"{moved.sum(axis=0).max() * size * 1e-9:.3f}"
    return row


def check_output(settings: PlaceSettings, out: str) -> Path | None:
    """Return where the picture goes, None for no picture; InputError for what cannot be written."""
    if settings.format != "npz":
        from topomoe.formats import placement_formats

        if settings.format not in placement_formats():
            raise unknown("format", settings.format, placement_formats())
    if out:
        _check_writable(Path(out), "--out")
    if settings.figure == "none" or not (settings.figure or out):
        return None
    path = Path(settings.figure) if settings.figure else Path(out).with_suffix(".png")
    if path.suffix not in (".png", ".pdf"):
        raise InputError(f"figure must end in .png or .pdf, got {settings.figure}")
    if out and path == Path(out):
        raise InputError(f"figure must be another file than --out, got {out}")
    _check_writable(path, "--figure")
    return path


def _check_writable(path: Path, field: str) -> None:
    """Raise InputError, before anything is computed, where no file can be written at ``path``."""
    check_target(path, field)
    if path.is_dir():
        raise InputError(f"{path}: cannot be written (is a folder)")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not os.access(above, os.W_OK):
        raise InputError(f"{field}: nothing may be written in {above}")
