"""Topology-aware remapping: which device gets which contents of a good placement.

The experts that share a device stay together, so the balance of the placement stays as it is; only
the devices change places, in each layer apart, by a genetic algorithm over permutations that ends
in swaps. What it lowers:

- ``makespan``: seconds of the busiest link in dispatch plus those in combine, for the expected
  token copies under the topology's default routing.
- ``sum``: ScaleMoE's Eq. 2 (PACT 2025), the sum over ordered pairs of devices i, j of
  (b*s - CM[x][y]) * h / BM[i][j], where contents x sit on i and y on j. b*s are the tokens of a
  device and CM[x][y] those of them that need nothing from y: x holds the experts of y that they
  picked, or they picked none. 1 / BM[i][j] is the sum of 1 / capacity over the links of the path,
  in proportion to their use: the link time that a byte takes, more with every hop.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.model import MODELS, MoEModel, model_preset
from topomoe.origins import domain_rows
from topomoe.placement import exact
from topomoe.placement.options import PlacementOptions
from topomoe.placement.placement import Placement
from topomoe.placement.problem import PlacementProblem, Slots
from topomoe.placement.remapping import expected_copies
from topomoe.placement.remapping.genetic_search import Objective, remap_layer
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.budget import build
from topomoe.topologies.errors import InputError
from topomoe.topologies.routing import route
from topomoe.topologies.routing.routing import Routing

FloatArray = NDArray[np.float64]
_LATENCY = 1e-6  # of a link; no part of either goal
_DEFAULT_MODEL = "deepseek-v3"  # whose token is sent where loads fit no preset: a matter of scale


@dataclass(frozen=True, eq=False)
class Remapping:
    """A placement whose contents changed devices, and what that gained in each layer."""

    placement: Placement
    order: NDArray[np.int64]  # [M, N] the device whose contents each device got
    before: FloatArray  # [M] seconds (makespan) or link seconds (sum)
    after: FloatArray  # [M]


def assign(problem: PlacementProblem) -> Slots:
    """Return the placement of ``exact`` with its device contents remapped in every layer."""
    base = Placement(*exact.assign(problem), problem.num_devices, problem.num_experts)
    source = problem.load if problem.trace is None else problem.trace
    mapped = remap(base, source, problem.grid, problem.seed, problem.options).placement
    return mapped.slot_expert, mapped.slot_share


def remap(
    placement: Placement,
    trace_or_load: RoutingTrace | ArrayLike,
    grid: tuple[int, int] | None = None,
    seed: int = 0,
    options: PlacementOptions | None = None,
    home_rows: NDArray[np.int32] | None = None,
    polish: bool = True,
) -> Remapping:
    """Remap any placement's contents to the devices of ``options.topology``; never for the worse.

    Traffic is that of a trace's tokens, domains weighing as their requests do, from where
    ``options.origins`` puts them or, with ``home_rows`` [P] (or [P, H], the first of which counts),
    from those rows of the grid; of loads [M, E], that of independent picks from anywhere. The sum
    knows no origins. Reads topology, bandwidth, batch_tokens, origins, goal and generations of the
    options; without ``polish`` no swaps end the search. ``grid`` None: the most square one. Raises
    InputError for rows or domains without a trace and a grid, and for what the topology refuses.
    """
    chosen = options or PlacementOptions()
    devices = placement.num_devices
    if devices == 1:
        nothing = np.zeros(placement.num_layers)
        order = np.zeros((placement.num_layers, 1), dtype=np.int64)
        return Remapping(placement, order, nothing, nothing)
    topology = build(chosen.topology, grid or _most_square(devices), chosen.bandwidth, _LATENCY)
    if topology.num_devices != devices:
        raise InputError(
            f"{topology.name} has {topology.num_devices} devices, the placement {devices}"
        )
    layers = (
        trace_or_load.num_layers
        if isinstance(trace_or_load, RoutingTrace)
        else len(_load_of(trace_or_load))
    )
    if layers != placement.num_layers:
        raise InputError(
            f"placement must have as many layers as the traffic, got {placement.num_layers} "
            f"and {layers}"
        )
    routing = route(topology)
    model, top_k = _model_of(trace_or_load, placement.num_experts)
    if chosen.goal == "sum":
        load = _load_of(trace_or_load)
        sent = expected_copies.from_contents(load, top_k, placement)
        pair = sent * (chosen.batch_tokens / devices)
        objectives = [pair_sum(tokens, routing, model.dispatch_bytes) for tokens in pair]
    else:
        copies, group = _traffic(placement, trace_or_load, top_k, grid, chosen, home_rows)
        busy = link_seconds(routing, group, model.dispatch_bytes, model.combine_bytes)
        objectives = [busy._replace(copies=np.ascontiguousarray(layer)) for layer in copies]
    return search(placement, objectives, chosen.generations, seed, polish)


def search(
    placement: Placement,
    objectives: list[Objective],
    generations: int,
    seed: int,
    polish: bool = True,
) -> Remapping:
    """Return the placement remapped for an objective a layer, the same on any number of threads."""
    seeds = np.random.default_rng(seed).integers(2**63, size=len(objectives)).astype(np.uint64)

    def one(layer: int) -> tuple[NDArray[np.int64], float, float]:
        return remap_layer(objectives[layer], generations, seeds[layer], polish)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        found = list(pool.map(one, range(len(objectives))))
    order = np.stack([layer[0] for layer in found])
    return Remapping(
        reorder(placement, order),
        order,
        np.array([layer[1] for layer in found]),
        np.array([layer[2] for layer in found]),
    )


def reorder(placement: Placement, order: NDArray[np.int64]) -> Placement:
    """Return the placement in which device j of layer m has what ``order[m, j]`` had."""
    shape = (placement.num_layers, placement.num_devices, -1)

    def moved(slots: NDArray[np.generic]) -> NDArray[np.generic]:
        contents = slots.reshape(shape)
        return np.take_along_axis(contents, order[..., None], axis=1).reshape(slots.shape)

    return Placement(
        moved(placement.slot_expert).astype(np.int32),
        moved(placement.slot_share).astype(np.float64),
        placement.num_devices,
        placement.num_experts,
    )


def pair_sum(tokens: FloatArray, routing: Routing, token_bytes: float) -> Objective:
    """Return Eq. 2 over ``tokens`` [N, N] = b*s - CM between contents, on the routing's devices."""
    weight = routing.path_sum(1.0 / routing.topology.capacity) * token_bytes
    np.fill_diagonal(weight, 0.0)
    none = np.zeros(0, dtype=np.int64)
    return Objective(
        True, np.zeros((0, 0)), none, none, np.zeros(0), 0, np.ascontiguousarray(tokens), weight
    )


def link_seconds(
    routing: Routing, group: NDArray[np.int64], dispatch_bytes: float, combine_bytes: float
) -> Objective:
    """Return the makespan objective, its copies still to be given: ``group`` [N] classes devices.

    An entry is the seconds on a link for one copy from every device of a class to a device (in
    combine: back). A copy to the sender's own device goes nowhere.
    """
    from scipy.sparse import coo_array, csr_array, vstack

    devices, groups = len(group), int(group.max()) + 1
    source, target = (part.reshape(-1) for part in np.indices((devices, devices)))
    apart = source != target
    source, target = source[apart], target[apart]
    halves = []
    for first, second, size in (
        (source, target, dispatch_bytes),
        (target, source, combine_bytes),
    ):
        column = group[source] * devices + target
        gather = coo_array(
            (np.ones(len(source)), (first * devices + second, column)),
            shape=(devices * devices, groups * devices),
        )
        by_link = csr_array(routing.matrix @ gather.tocsr())
        halves.append(by_link.multiply(size / routing.topology.capacity[:, None]))
    table = csr_array(vstack(halves).T)
    return Objective(
        False,
        np.zeros((groups, devices)),
        table.indptr.astype(np.int64),
        table.indices.astype(np.int64),
        table.data.astype(np.float64),
        routing.topology.num_links,
        np.zeros((0, 0)),
        np.zeros((0, 0)),
    )


def _traffic(
    placement: Placement,
    trace_or_load: RoutingTrace | ArrayLike,
    top_k: float,
    grid: tuple[int, int] | None,
    options: PlacementOptions,
    home_rows: NDArray[np.int32] | None,
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return copies [M, G, N] from a device of each class to each contents, and classes [N]."""
    devices = placement.num_devices
    each = options.batch_tokens / devices
    one_class = np.zeros(devices, dtype=np.int64)
    if options.origins == "uniform" and home_rows is None:
        if not isinstance(trace_or_load, RoutingTrace):
            load = _load_of(trace_or_load)
            return each * expected_copies.from_load(load, top_k, placement), one_class
        mix, sent = _by_domain(trace_or_load, placement)
        return each * np.einsum("d,mdn->mn", mix, sent)[:, None], one_class
    if grid is None or not isinstance(trace_or_load, RoutingTrace):
        wanted = "home_rows" if home_rows is not None else f"origins = {options.origins}"
        raise InputError(f"genetic with {wanted} needs a trace and a grid")
    rows, columns = grid
    trace, row = trace_or_load, np.arange(devices) // columns
    if home_rows is not None:
        home = np.asarray(home_rows).reshape(trace.num_positions, -1)[:, 0].astype(np.int64)
        return each * expected_copies.from_trace(trace, placement, home, rows), row
    mix, sent = _by_domain(trace, placement)
    first, count = domain_rows(mix, rows).T
    here = np.arange(rows)[:, None]
    tokens = np.where((here >= first) & (here < first + count), mix / count, 0.0)
    tokens *= options.batch_tokens / columns  # [rows, D] of each domain on a device of each row
    return np.einsum("rd,mdn->mrn", tokens, sent), row


def _by_domain(trace: RoutingTrace, placement: Placement) -> tuple[FloatArray, FloatArray]:
    """Return each domain's share of the requests [D], and its tokens' copies [M, D, N]."""
    domains = len(trace.domain_names)
    mix = np.bincount(trace.request_domain, minlength=domains) / trace.num_requests
    domain = trace.position_domain.astype(np.int64)
    return mix, expected_copies.from_trace(trace, placement, domain, domains)


def _load_of(trace_or_load: RoutingTrace | ArrayLike) -> FloatArray:
    source = trace_or_load.load() if isinstance(trace_or_load, RoutingTrace) else trace_or_load
    return np.atleast_2d(np.asarray(source, dtype=np.float64))


def _model_of(trace_or_load: RoutingTrace | ArrayLike, num_experts: int) -> tuple[MoEModel, float]:
    """Return whose tokens are sent, and how many experts each picks on average."""
    fitting = [m for m in MODELS.values() if 0 <= num_experts - m.num_experts <= 1]
    model = fitting[0] if fitting else model_preset(_DEFAULT_MODEL)
    if isinstance(trace_or_load, RoutingTrace):
        return model, trace_or_load.pairs_per_token
    return model, min(model.top_k, num_experts)


def _most_square(devices: int) -> tuple[int, int]:
    rows = next(r for r in range(int(devices**0.5), 0, -1) if devices % r == 0)
    return devices // rows, rows
