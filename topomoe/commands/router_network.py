"""What a trained router's decisions cost: its trace placed, dispatched and timed on networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from topomoe.commands.router_network_settings import NetworkPriceSettings
from topomoe.inputs import least_exact_slots, topology_at_budget
from topomoe.model import MoEModel, model_preset
from topomoe.placement import Placement, place
from topomoe.placement.registry import HasLoad, check_slots
from topomoe.routing_trace import RoutingTrace
from topomoe.simulation import simulate_networks
from topomoe.step import FloatArray, SimulationResult
from topomoe.topologies.errors import InputError
from topomoe.topologies.registry import parse_grid
from topomoe.workload import as_served

GRID_METHODS = ("locality", "genetic")  # choose which device of the grid holds what


def priced_model(trace: RoutingTrace, width: str) -> MoEModel:
    """Return the shape that a trace is priced at: its own M, E and K at the preset's width.

    A trained model is narrow, so that at its own width every all-to-all would take its fixed
    overheads and no more. What carries over to a real model is the decision, which experts a token
    goes to; its cost is that of the hidden vectors and expert GEMMs of the width where it would
    run. Top-1 honestly sends fewer copies than top-2. There are no shared experts: the trained
    model has none.
    """
    return replace(
        model_preset(width),
        name=f"{trace.num_layers} layers x {trace.num_experts} experts as wide as {width}",
        num_layers=trace.num_layers,
        num_experts=trace.num_experts,
        top_k=trace.usual_top_k,
        num_shared_experts=0,
    )


def step_rows(
    trace: RoutingTrace,
    settings: NetworkPriceSettings,
    capacity_factor: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return a row of record "step" for each placement and topology: seconds of the MoE layers.

    Experts are placed by some requests of the trace, and the others are cut into batches. All of a
    request counts, as each is a window of written text. Methods that do not look at the grid number
    its devices as it happens, replicas of one expert side by side, which on a torus is a crowd: the
    devices of every layer are shuffled, which is faster there and leaves less to chance.

    Where ``capacity_factor`` CF is above 0, each expert takes CF times the mean load of a batch,
    first come first served as in the trained model, and the rest is dropped; experts are then
    placed by the load that such capacities let through. A trace of expert choice is at its capacity
    already: 0. Traces of the same requests see the same split and the same batches under one
    ``seed``, whatever the router.

    ``moe_s`` (mean), ``moe_p50_s`` and ``moe_p99_s`` are of a step through all layers of the trace;
    ``dispatch_s``, ``compute_s`` and ``combine_s`` are means that add up to ``moe_s`` but for
    training's backward pass. No routing on that topology takes less than ``bound_s`` for dispatch
    and combine. ``dropped_share`` is of the token-expert pairs, ``device_max_over_mean`` the
    largest device load of a layer over the mean, ``remote_bytes`` what a step sends, all means.

    Raises InputError where the trace has a single request, or slots do not fit its experts.
    """
    if trace.num_requests < 2:
        raise InputError("trace must hold at least 2 requests: some are held out")
    study = settings.study(capacity_factor)
    grid = parse_grid(settings.grid)
    devices = grid[0] * grid[1]
    slots = settings.slots or least_exact_slots(trace.num_experts, devices)
    check_slots(trace.num_experts, devices, slots)
    whole = replace(trace, prompt_len=np.full(trace.num_requests, -1, dtype=np.int32))
    held_in, held_out = (
        as_served(part, settings.phase) for part in whole.split(settings.scored_fraction, seed)
    )
    model = priced_model(trace, settings.width)
    networks = [(topology_at_budget(study, name, grid), None) for name in settings.topologies]
    source: HasLoad | FloatArray = held_in
    if study.dispatch.limits:
        source = kept_load(held_in.load(), capacity_factor)
    rows = []
    for method in settings.placements:
        placement = place(
            source,
            devices=devices,
            slots=slots,
            method=method,
            grid=grid,
            seed=seed,
            options=study.placement_options(),
        )
        if method not in GRID_METHODS:
            placement = scattered(placement, seed)
        results = simulate_networks(
            held_out,
            networks,
            placement,
            model,
            study.workload,
            study.dispatch,
            study.step,
            seed=seed,
        )
        for name, result in zip(settings.topologies, results, strict=True):
            rows.append({"topology": name, "placement": method, **_summary(result)})
    return rows


def kept_load(load: FloatArray, capacity_factor: float) -> FloatArray:
    """Return loads [M, E] with each expert's cut at capacity factor x the layer's mean.

    To replicate an expert for pairs that are dropped would leave the others short.
    """
    return np.asarray(np.minimum(load, capacity_factor * load.mean(axis=1, keepdims=True)))


def scattered(placement: Placement, seed: int) -> Placement:
    """Return the placement with the devices of every layer shuffled."""
    layers, devices = placement.num_layers, placement.num_devices
    rng = np.random.default_rng([seed, devices])
    order = rng.permuted(np.tile(np.arange(devices), (layers, 1)), axis=1)[:, :, None]
    each = layers, devices, placement.num_slots // devices
    expert = np.take_along_axis(placement.slot_expert.reshape(each), order, axis=1)
    share = np.take_along_axis(placement.slot_share.reshape(each), order, axis=1)
    return replace(
        placement, slot_expert=expert.reshape(layers, -1), slot_share=share.reshape(layers, -1)
    )


def _summary(result: SimulationResult) -> dict[str, Any]:
    return {
        "record": "step",
        **result.moe_seconds(),
        "bound_s": float(result.times.bound.sum(axis=1).mean()),
        "dropped_share": float(result.dropped_share.mean()),
        "device_max_over_mean": float(result.max_over_mean.mean()),
        "remote_bytes": float(result.remote_bytes.sum(axis=1).mean()),
        "requests": result.requests,
    }
