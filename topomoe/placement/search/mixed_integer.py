"""The even split of smallest largest device load as a mixed-integer program, with its proven bound.

Experts of equal load form a class c, of n_c experts with load v_c. In units of the device mean:

    minimise T
    y[c,r]     experts of the class with r replicas           sum over r of y[c,r] = n_c
    x[c,r,d]   of their slots on device d, at most y[c,r]     sum over d of x[c,r,d] = r y[c,r]
    every slot is filled                                      sum over c, r of x[c,r,d] = S/N
    loads                                                     sum over c, r of v_c/r x[c,r,d] <= T

No device then needs an expert twice: the slots of (c, r), device by device, are dealt to its
experts in turn, and a device has at most as many as there are experts. ``local-search`` gives an
upper bound on T, which excludes the replica counts with v_c/r above it, and the heaviest expert of
a class of one sits on the first devices, as devices are interchangeable. Solved by HiGHS (Huangfu
and Hall, "Parallelizing the dual revised simplex method", Mathematical Programming Computation
2018) through ``scipy.optimize.milp``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.placement.bounds import lower_bound
from topomoe.placement.options import PlacementOptions
from topomoe.placement.problem import PlacementProblem, Slots, even_shares
from topomoe.placement.registry import place
from topomoe.topologies.errors import InputError

MOST_VARIABLES = 5_000  # of larger programs the first relaxation alone takes minutes
ROUNDING = 1e-9  # device means: a maximum this close to its bound is optimal


@dataclass(frozen=True, eq=False)
class Solution:
    """An even split of one layer and how good it is."""

    slot_expert: NDArray[np.int32]  # [S]; each of an expert's r slots has share 1/r
    achieved: float  # the largest device load, in the unit of the given loads
    bound: float  # no even split has a lower one, to the solver's tolerance of 1e-6 device means
    gap: float  # achieved / bound - 1


def assign(problem: PlacementProblem) -> Slots:
    """Return the best even shares that ``options.nodes`` branch-and-bound nodes a layer find.

    Raises InputError for layers of more than 5,000 variables.
    """
    devices, slots = problem.num_devices, problem.num_slots
    nodes = problem.options.nodes
    rows = [solve_layer(load, devices, slots, nodes, problem.seed) for load in problem.load]
    slot_expert = np.stack([solution.slot_expert for solution in rows])
    return slot_expert, even_shares(slot_expert, problem.num_experts)


def solve_layer(
    load: ArrayLike, devices: int, slots: int, nodes: int = 1000, seed: int = 0
) -> Solution:
    """Return the best even split of ``load[E]`` found, never worse than ``local-search``.

    ``nodes`` bounds the branch-and-bound tree, so that the result does not depend on the speed of
    the machine; ``seed`` is the local search's. Raises InputError for what ``place`` refuses and
    for a program of more than 5,000 variables.

    >>> solution = solve_layer([5.0, 4.0, 2.0, 2.0], devices=2, slots=6)
    >>> solution.achieved, solution.bound
    (6.5, 6.5)
    """
    options = PlacementOptions(tolerance=0.0)
    start = place(load, devices, slots, method="local-search", seed=seed, options=options)
    if start.num_layers > 1 or np.ndim(load) != 1:
        raise InputError(f"load must be [E], got shape {np.shape(load)}")
    if nodes < 1:
        raise InputError(f"nodes must be >= 1, got {nodes}")
    loads = np.asarray(load, dtype=np.float64)
    amount = loads / loads.max()
    amount *= devices / amount.sum()
    bound = lower_bound(amount, devices, slots)
    best = start.slot_expert[0]
    achieved = _highest(amount, best, devices)
    if achieved > bound + ROUNDING:
        found, proven = _solve(amount, devices, slots, nodes, bound, achieved)
        if found is not None and _highest(amount, found, devices) < achieved - ROUNDING:
            best, achieved = found, _highest(amount, found, devices)
        bound = max(bound, proven)
    bound = min(bound, achieved)
    unit = loads.sum() / devices
    return Solution(best, float(achieved * unit), float(bound * unit), float(achieved / bound - 1))


def _highest(load: NDArray[np.float64], slot_expert: NDArray[np.int32], devices: int) -> float:
    """Return the largest device load of an even split."""
    each = load / np.bincount(slot_expert, minlength=load.size)
    return float(each[slot_expert].reshape(devices, -1).sum(axis=1).max())


def _solve(
    load: NDArray[np.float64],
    devices: int,
    slots: int,
    nodes: int,
    lowest: float,
    highest: float,
) -> tuple[NDArray[np.int32] | None, float]:
    """Return the split that HiGHS finds, if any, and its proven bound, for T in the range given."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import block_array, csr_array, diags_array, eye_array, kron

    value, member = np.unique(load, return_inverse=True)
    size = np.bincount(member)
    most = min(devices, slots - load.size + 1)
    least = np.maximum(1, np.ceil(value / highest - ROUNDING)).astype(np.int64)
    pairs = [(c, r) for c in range(value.size) for r in range(least[c], most + 1)]
    if len(pairs) * devices > MOST_VARIABLES:
        raise InputError(
            f"milp takes at most {MOST_VARIABLES} variables (different loads x possible numbers of "
            f"replicas x devices), got {len(pairs) * devices} for {load.size} experts, "
            f"{devices} devices and {slots} slots; local-search takes any size"
        )
    of, replicas = np.array(pairs).T
    count = len(pairs)

    # Columns: x[pair, device], y[pair], T.
    member_of = csr_array((np.ones(count), (of, np.arange(count))), shape=(value.size, count))
    each = csr_array((value[of] / replicas)[None])
    on_device, of_pair = eye_array(devices), eye_array(count)
    matrix: Any = block_array(
        [
            [None, member_of, None],
            [kron(of_pair, np.ones((1, devices))), -diags_array(replicas.astype(np.float64)), None],
            [eye_array(count * devices), -kron(of_pair, np.ones((devices, 1))), None],
            [kron(np.ones((1, count)), on_device), None, None],
            [kron(each, on_device), None, csr_array(-np.ones((devices, 1)))],
        ],
        format="csr",
    )
    free = np.full(count * devices, -np.inf), np.full(devices, -np.inf)
    filled = np.full(devices, slots // devices)
    lower = np.concatenate([size, np.zeros(count), free[0], filled, free[1]])
    upper = np.concatenate([size, np.zeros(count + count * devices), filled, np.zeros(devices)])

    top = np.concatenate([np.repeat(size[of], devices), size[of], [highest * (1 + ROUNDING)]])
    bottom = np.zeros(top.size)
    bottom[-1] = lowest
    single = np.flatnonzero(size == 1)
    if single.size:
        for pair in np.flatnonzero(of == single[-1]):
            top[pair * devices + replicas[pair] : (pair + 1) * devices] = 0.0
    goal = np.zeros(top.size)
    goal[-1] = 1.0
    integral = np.ones(top.size, dtype=np.int64)
    integral[-1] = 0
    result = milp(
        goal,
        integrality=integral,
        bounds=Bounds(bottom, top),
        constraints=LinearConstraint(matrix, lower, upper),
        options={"node_limit": nodes, "mip_rel_gap": ROUNDING},
    )
    if result.status == 2:  # nothing in the range: what is known already is optimal
        return None, highest
    proven = lowest if result.mip_dual_bound is None else float(result.mip_dual_bound)
    if result.x is None:
        return None, proven
    x = np.rint(result.x[: count * devices]).astype(np.int64).reshape(count, devices)
    y = np.rint(result.x[count * devices : -1]).astype(np.int64)
    return _dealt(x, y, of, np.argsort(member, kind="stable"), size), proven


def _dealt(
    x: NDArray[np.int64],  # [pairs, N]
    y: NDArray[np.int64],  # [pairs]
    of: NDArray[np.int64],  # [pairs], class of each
    members: NDArray[np.int64],  # [E], experts by class
    size: NDArray[np.int64],  # [classes]
) -> NDArray[np.int32]:
    """Deal the slots of each class and number of replicas to its experts in turn."""
    devices = x.shape[1]
    held: list[list[int]] = [[] for _ in range(devices)]
    next_member = np.cumsum(size) - size
    for pair in np.flatnonzero(y):
        first = next_member[of[pair]]
        next_member[of[pair]] += y[pair]
        for i, device in enumerate(np.repeat(np.arange(devices), x[pair])):
            held[device].append(int(members[first + i % y[pair]]))
    return np.array(held, dtype=np.int32).ravel()
