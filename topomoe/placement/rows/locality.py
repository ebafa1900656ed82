"""Experts near their tokens: few bytes between rows of devices, under a limit on every load.

A row of R holds S/R of the experts' slots. What a token chose and its own row holds need not leave
the row; experts that fire together on one device are reached by one copy. In each layer:

1. two starts: the exactly balanced placement, and rows by partitioning the co-activation
   graph (``row_partition``);
2. annealing over which slot holds which expert (``locality_kernel``), whose price is the expected
   copies between rows, with a maximum flow that keeps the limit on device loads attainable;
3. the shares that let most pairs stay in their row within that limit (``local_shares``, exact);
4. the start whose result has the shorter true step: dispatch, compute and combine of sampled
   training batches on ``options.topology``, replicas chosen by ``local-first``;
5. swaps of devices within a row (which leave the rows as they are), kept where that step shortens;
   or, where a previous placement is served, rows and devices numbered so that most of what a device
   holds stays there.

The limit is mean / ``options.least_balancedness`` or, where no slots can meet it, the proven lower
bound on the largest load. A start that misses it anneals on at higher prices; where all fail, the
layer is placed by ``exact``. With ``options.moves`` >= 0 and a previous placement the start is
that placement, and no more slots of a layer than this come to hold what their device did not.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from topomoe.placement import exact
from topomoe.placement.bounds import lower_bound
from topomoe.placement.placement import Placement
from topomoe.placement.problem import PlacementProblem, Slots
from topomoe.placement.rows.co_activation_graph import CoActivationGraph, co_activation_graphs
from topomoe.placement.rows.local_shares import local_shares
from topomoe.placement.rows.locality_kernel import anneal
from topomoe.placement.rows.row_partition import row_start
from topomoe.placement.rows.step_seconds import StepSeconds
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError

OVERLOAD_PRICE = 0.5  # a pair beyond its device's limit may find room in its row
SHORTFALL_PRICES = (30.0, 100.0, 300.0, 1000.0)  # a pair that no shares can place, turn by turn
HOT, COLD = 0.1, 0.003  # temperatures, in pairs against a device mean of 1
ROUNDING = 1e-6  # relative room for the linear programs' tolerance
DEVICE_SWAPS = 8  # proposals a layer that the true step time decides


def assign(problem: PlacementProblem) -> Slots:
    """Return slots whose tokens stay in their row, and shares within the limit on device loads.

    Raises InputError without a trace (loads do not tell who fires with whom) or without a grid.
    """
    trace, grid = problem.trace, problem.grid
    if trace is None:
        raise InputError("locality needs the trace that the loads were counted from, got loads")
    if grid is None:
        raise InputError("locality needs a grid: rows x columns of devices")
    base = exact.assign(problem)
    if grid[0] == 1:  # nothing can leave the row
        return base
    graphs = co_activation_graphs(trace, grid[0], problem.options.origins)
    if problem.previous is not None and problem.options.moves >= 0:
        ours = (problem.num_layers, problem.num_slots, problem.num_experts)
        before = problem.previous
        theirs = (before.num_layers, before.num_slots, before.num_experts)
        if ours != theirs:
            raise InputError(
                "locality with moves starts from a previous placement of the same (layers, slots, "
                f"experts), got {theirs} for {ours}"
            )
        return _polished(problem, trace, [_annealed(problem, graphs, problem.previous.slot_expert)])
    starts = [base[0]]
    if problem.num_slots // grid[0] < problem.num_experts:
        parted = [
            row_start(graph.pairs.sum(axis=0), load, grid, problem.num_slots, problem.seed)
            for graph, load in zip(graphs, problem.load, strict=True)
        ]
        starts.append(np.stack(parted))
    return _polished(problem, trace, [_annealed(problem, graphs, start) for start in starts])


def _limit(problem: PlacementProblem, load: NDArray[np.float64]) -> float:
    """Return the load that a device may have, for ``load`` [E] of device mean 1."""
    bound = lower_bound(load, problem.num_devices, problem.num_slots)
    wanted = 1.0 / problem.options.least_balancedness
    return max(wanted * (1.0 - ROUNDING), bound * (1.0 + ROUNDING))


def _annealed(
    problem: PlacementProblem, graphs: list[CoActivationGraph], start: NDArray[np.int32]
) -> Slots:
    """Anneal every layer from its start [M, S]; the result does not depend on the threads."""

    def one(layer: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        return _layer(problem, graphs[layer], layer, start[layer])

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        layers = list(pool.map(one, range(problem.num_layers)))
    return np.stack([layer[0] for layer in layers]), np.stack([layer[1] for layer in layers])


def _layer(
    problem: PlacementProblem, graph: CoActivationGraph, layer: int, start: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    assert problem.grid is not None
    devices, slots, experts = problem.num_devices, problem.num_slots, problem.num_experts
    scale = devices / graph.demand.sum()
    demand, pairs = graph.demand * scale, graph.pairs * scale
    load = demand.sum(axis=0)
    most = _limit(problem, load)
    device = np.arange(slots) // problem.slots_per_device
    before = np.zeros((devices, experts), dtype=np.bool_)
    most_new = slots
    if problem.previous is not None and problem.options.moves >= 0:
        before[device, problem.previous.slot_expert[layer]] = True
        most_new = problem.options.moves
    rng = np.random.default_rng([problem.seed, layer])
    proposals = problem.options.sweeps * slots
    state = start.copy()
    closest, kept = np.inf, (state.copy(), np.ones(slots))
    for price in SHORTFALL_PRICES:
        anneal(
            state,
            devices,
            problem.grid[1],
            demand,
            pairs,
            most,
            OVERLOAD_PRICE,
            price,
            before,
            most_new,
            rng.integers(slots, size=proposals),
            rng.integers(slots + experts, size=proposals),
            1.0 - rng.random(proposals),
            HOT,
            COLD,
        )
        share = local_shares(state, demand, devices, problem.grid[1], most)[0]
        highest = np.bincount(device, load[state] * share, minlength=devices).max()
        if highest < closest:
            closest, kept = highest, (state.copy(), share)
        if closest <= most * (1.0 + ROUNDING):
            break
    return kept


def _polished(problem: PlacementProblem, trace: RoutingTrace, found: list[Slots]) -> Slots:
    """Return the better of the found slots of each layer, devices then swapped within their row."""
    assert problem.grid is not None
    seconds = StepSeconds.of(trace, problem)
    fallback = exact.assign(problem)
    layers = np.arange(problem.num_layers)
    highest = np.stack([_highest(problem, slots) for slots in found])
    limit = np.array(
        [_limit(problem, row / row.sum() * problem.num_devices) for row in problem.load]
    ) * (1.0 + 2 * ROUNDING)
    times = np.stack([seconds(*slots) for slots in found])
    # Among those within the limit the fastest; where none is, the one of least largest load.
    within = highest <= limit
    times = np.where(within, times, np.inf)
    best = np.where(within.any(axis=0), times.argmin(axis=0), highest.argmin(axis=0))
    expert = np.stack([slots[0] for slots in found])[best, layers]
    share = np.stack([slots[1] for slots in found])[best, layers]
    if problem.options.moves < 0 or problem.previous is None:
        closer = ~within.any(axis=0) & (_highest(problem, fallback) < highest.min(axis=0))
        expert[closer], share[closer] = fallback[0][closer], fallback[1][closer]
        if problem.previous is None:
            return _swapped(problem, seconds, expert, share)
        return _renumbered(problem, problem.previous, expert, share)
    return expert, share


def _highest(problem: PlacementProblem, slots: Slots) -> NDArray[np.float64]:
    """Return the largest device load of each layer over the mean, [M]."""
    placement = Placement(*slots, problem.num_devices, problem.num_experts)
    return np.asarray(1.0 / placement.balancedness(problem.load))


def _swapped(
    problem: PlacementProblem,
    seconds: StepSeconds,
    expert: NDArray[np.int32],
    share: NDArray[np.float64],
) -> Slots:
    """Swap the contents of two devices of a row, all layers at once; each keeps what is faster."""
    assert problem.grid is not None
    rows, columns = problem.grid
    layers = np.arange(problem.num_layers)
    if columns < 2:
        return expert, share
    rng = np.random.default_rng([problem.seed, problem.num_layers])
    best = seconds(expert, share)
    for _ in range(DEVICE_SWAPS):
        row = rng.integers(rows, size=problem.num_layers)
        first = rng.integers(columns, size=problem.num_layers)
        second = (first + rng.integers(1, columns, size=problem.num_layers)) % columns
        order = np.tile(np.arange(problem.num_devices), (problem.num_layers, 1))
        a, b = row * columns + first, row * columns + second
        order[layers, a], order[layers, b] = b, a
        moved = _reordered(problem, expert, share, order)
        trial = seconds(*moved)
        faster = trial < best
        expert = np.where(faster[:, None], moved[0], expert)
        share = np.where(faster[:, None], moved[1], share)
        best = np.minimum(trial, best)
    return expert, share


def _renumbered(
    problem: PlacementProblem,
    previous: Placement,
    expert: NDArray[np.int32],
    share: NDArray[np.float64],
) -> Slots:
    """Give rows, then the devices of each row, the numbers under which fewest experts are new.

    Rows keep theirs where tokens of a domain start on rows of their own.
    """
    from scipy.optimize import linear_sum_assignment

    assert problem.grid is not None
    (rows, columns), devices = problem.grid, problem.num_devices
    order = np.empty((problem.num_layers, devices), dtype=np.int64)
    for layer in range(problem.num_layers):
        ours, theirs = np.zeros((2, devices, problem.num_experts))
        ours[np.arange(problem.num_slots) // problem.slots_per_device, expert[layer]] = 1.0
        theirs[previous.slot_device, previous.slot_expert[layer]] = 1.0
        stay = (theirs @ ours.T).reshape(rows, columns, rows, columns)
        match = [
            [linear_sum_assignment(stay[new, :, old], maximize=True) for old in range(rows)]
            for new in range(rows)
        ]
        kept = np.array(
            [[stay[new, :, old][match[new][old]].sum() for old in range(rows)]
             for new in range(rows)]
        )  # fmt: skip
        if problem.options.origins == "domain-affine":
            kept = np.eye(rows)
        for new, old in zip(*linear_sum_assignment(kept, maximize=True), strict=True):
            at = np.arange(new * columns, (new + 1) * columns)
            order[layer, at] = old * columns + match[new][old][1]
    return _reordered(problem, expert, share, order)


def _reordered(
    problem: PlacementProblem,
    expert: NDArray[np.int32],
    share: NDArray[np.float64],
    order: NDArray[np.int64],
) -> Slots:
    """Return slots in which device j of layer m has what ``order[m, j]`` had."""
    within = np.arange(problem.slots_per_device)
    slot = (order[..., None] * problem.slots_per_device + within).reshape(len(order), -1)
    return np.take_along_axis(expert, slot, axis=1), np.take_along_axis(share, slot, axis=1)
