"""What commands start from: a trace and its model, loads, slots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from topomoe.model import MODELS, MoEModel, match_model, model_preset
from topomoe.network_settings import NetworkSettings
from topomoe.place_settings import PlacementsSettings
from topomoe.simulate_settings import SimulateSettings
from topomoe.step import FloatArray
from topomoe.study_settings import StudySettings
from topomoe.synthetic import synthetic_trace
from topomoe.synthetic_presets import preset_settings
from topomoe.topologies import budget
from topomoe.topologies.circuit_file import ENDINGS as CIRCUIT_FILES
from topomoe.topologies.circuit_file import read_circuits
from topomoe.topologies.circuits import check_wiring
from topomoe.topologies.errors import InputError
from topomoe.topologies.matching import METHODS
from topomoe.topologies.registry import make
from topomoe.topologies.topology import Topology
from topomoe.trace import RoutingTrace, load_trace

NODE_GROUPS = 8  # of experts, from some of which a token's experts come under a node limit


def least_exact_slots(experts: int, devices: int) -> int:
    """Return the least slots with which exact balance is always possible: >= E + N - 1."""
    return devices * max(2, -(-(experts + devices - 1) // devices))


def expert_load(trace: RoutingTrace, shared_expert: str) -> FloatArray:
    """Return the trace's token-expert pairs [M, E]; [M, E+1] where the shared expert is routed.

    The shared expert serves every token.
    """
    load = trace.load()
    if shared_expert == "local":
        return load
    return np.concatenate([load, np.full((len(load), 1), trace.tokens)], axis=1)


def placement_source(trace: RoutingTrace, shared_expert: str) -> RoutingTrace | FloatArray:
    """Return what a placement is made from: the trace, which some methods read, or its loads.

    Of a routed shared expert the trace knows nothing, so that only loads can hold it.
    """
    return trace if shared_expert == "local" else expert_load(trace, shared_expert)


def find_model(
    preset: str, num_layers: int, num_experts: int, top_k: int | None = None
) -> MoEModel | None:
    """Return the named model, else the only preset of that shape; None where there is none.

    A placement needs no model: only bytes and engines' files do. Raises InputError where the named
    model has another top-k.
    """
    if preset:
        model = model_preset(preset)
        if top_k is not None and model.top_k != top_k:
            raise InputError(
                f"model must have the trace's top-k of {top_k}, {model.name} has {model.top_k}"
            )
        return model
    found = [
        model
        for model in MODELS.values()
        if model.num_layers == num_layers
        and num_experts == model.num_experts
        and top_k in (None, model.top_k)
    ]
    return found[0] if len(found) == 1 else None


def load_with_model(path: str, preset: str) -> tuple[MoEModel | None, RoutingTrace]:
    """Return the trace and the named model, else the only preset of its shape, else None.

    A named model of other layers than the trace's stands for its shape: it is returned with the
    trace's MoE layers, and a note says so. So it is with its top-k where the trace's tokens have
    different numbers of experts. Raises InputError for what ``load_trace`` and ``find_model``
    refuse.
    """
    trace = load_trace(path, model=preset or None)
    top_k = None if preset and trace.has_absent else trace.usual_top_k
    model = find_model(preset, trace.num_layers, trace.num_experts, top_k)
    if model is None:
        return None, trace
    notes = []
    if trace.num_layers != model.num_layers:
        count = (
            f"the trace has {trace.num_layers} of the model's {model.num_layers} MoE layers: only "
            "those are priced"
            if trace.num_layers < model.num_layers
            else f"the trace has {trace.num_layers} MoE layers, the model {model.num_layers}: all "
            f"{trace.num_layers} are priced"
        )
        notes.append(f"{model.name}: {count}")
    if trace.has_absent:
        notes.append(
            f"tokens have {trace.pairs_per_token:.3g} experts on average, at most {trace.top_k}"
        )
    fitted = replace(model, num_layers=trace.num_layers, top_k=trace.usual_top_k)
    return fitted, replace(trace, notes=(*trace.notes, *notes))


def check_routed(model: MoEModel | None) -> MoEModel:
    """Return the model if its shared expert can be routed; InputError where it cannot."""
    if model is None:
        raise InputError("shared_expert = routed needs a model: name one with --model")
    if model.num_shared_experts != 1:
        raise InputError(
            f"shared_expert = routed needs a model with one shared expert, "
            f"{model.name} has {model.num_shared_experts}"
        )
    return model


def load_or_make(
    folder: str, preset: str, synthetic_requests: int, seed: int, node_limit: int = 0
) -> tuple[MoEModel, RoutingTrace]:
    """Return the model and the trace in ``folder``; without a folder a synthetic trace.

    ``folder`` is anything that ``load_trace`` takes. ``preset`` names the model, as
    ``load_with_model`` fits it; empty, it is the one the trace matches, or deepseek-v3. With
    ``node_limit`` a synthetic token's experts come from that many of 8 groups; a recorded trace is
    as its router was, so InputError there.
    """
    if not folder:
        model = model_preset(preset or "deepseek-v3")
        settings = preset_settings(model.name)
        if node_limit:
            settings = replace(settings, num_groups=NODE_GROUPS, token_groups=node_limit)
        made = synthetic_trace(requests=synthetic_requests, seed=seed, settings=settings)
        return model, made
    if node_limit:
        raise InputError("node_limit is for synthetic traces: a recorded one is as its router was")
    found, trace = load_with_model(folder, preset)
    shape = trace.num_layers, trace.num_experts, trace.usual_top_k
    return found or match_model(*shape), trace


def build_topology(
    name: str,
    grid: tuple[int, int],
    settings: StudySettings | SimulateSettings | NetworkSettings | PlacementsSettings,
    demand: FloatArray | None = None,
    node_size: int = 0,
) -> Topology:
    """Return the named topology at the settings' budget; InputError where it does not fit.

    ``demand`` [N, N] bytes is what circuits are chosen for, where the settings name a way to.
    ``normalise = "per-link"`` is no budget: the bandwidth is that of a link.
    """
    options: dict[str, Any] = {}
    if name == "optical":
        options = {"circuits": settings.circuits, "seed": settings.seed}
        if settings.circuits in METHODS:
            options["demand"] = demand
        elif settings.circuits.endswith(CIRCUIT_FILES):
            options["circuits"] = read_circuits(settings.circuits)
    if name == "rails":
        options["node_bandwidth"] = settings.node_bandwidth
        if node_size > 1:
            options["node_size"] = node_size
    if settings.normalise == "per-link":
        topology = make(name, grid, settings.bandwidth, settings.latency, **options)
        if topology.num_devices == grid[0] * grid[1]:
            topology = replace(topology, grid=grid)
    else:
        topology = budget.build(
            name,
            grid,
            settings.bandwidth,
            settings.latency,
            settings.normalise,
            settings.base_share,
            settings.ports,
            settings.prices,
            **options,
        )
    if topology.num_devices != grid[0] * grid[1]:
        raise InputError(f"{name} has {topology.num_devices} devices, the grid {grid[0]}x{grid[1]}")
    return topology


def check_circuits(name: str, grid: tuple[int, int], chosen: bool = False) -> None:
    """Raise InputError for circuits that are no wiring, no file and, if ``chosen``, no method."""
    if not (name.endswith(CIRCUIT_FILES) or (chosen and name in METHODS)):
        check_wiring(name, grid)


def topology_at_budget(
    settings: StudySettings | SimulateSettings | PlacementsSettings,
    name: str,
    grid: tuple[int, int],
    demand: FloatArray | None = None,
) -> Topology:
    """Return the named topology as the settings of a study or a simulation want it."""
    dispatch = settings.dispatch
    topology = build_topology(name, grid, settings, demand, dispatch.node_size)
    node_size = topology.parameters.get("node_size", dispatch.node_size)
    if dispatch.copies == "node-relay" and node_size != dispatch.node_size:
        raise InputError(
            f"node_size must be that of {name} ({node_size}) with node-relay copies, "
            f"got {dispatch.node_size}"
        )
    return topology


def scale_note(
    settings: StudySettings | SimulateSettings | PlacementsSettings, topology: Topology
) -> tuple[str, ...]:
    """Return what to tell of a topology from a file: how its capacities were brought to budget."""
    scale = topology.parameters.get("scale", 1.0)
    if scale == 1.0:
        return ()
    return (
        f"{topology.name}: capacities scaled by {scale:g}, so that at most "
        f"{settings.bandwidth * 8e-9:g} Gbit/s leave a device",
    )
