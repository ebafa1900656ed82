"""Compiled searches over the order of a layer's device contents.

A candidate is a permutation: device j gets the contents that ``order[j]`` had. Its cost is the
makespan of the expected copies, or a sum over pairs of devices; an ``Objective`` holds the tables
of either.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topomoe.dispatching.replica_dealing import mixed
from topomoe.topologies.kernel import kernel, nan_free_kernel

POPULATION = 32
ELITE = 2  # of each generation, kept as they are
CONTESTANTS = 2  # of whom the better becomes a parent
_SWAPPED = 0.5  # chance that a child has one more pair swapped, and after that one more
_LEAST_GAIN = 1e-12  # of the cost: less is rounding
_WORTH = 1e-5  # of the cost: swaps that gain less are not worth the creeping


class Objective(NamedTuple):
    """What a permutation costs; the tables of the other goal are empty.

    Makespan: a device of class g sends ``copies[g, x]`` token copies to the contents x, and
    ``seconds`` at ptr[g * N + j] : ptr[g * N + j + 1] is how long one copy from every device of
    class g to device j keeps each ``link`` busy; links 0..H-1 are those of dispatch, H..2H-1 those
    of combine, and both all-to-alls end with their busiest link. Sum: ``pair[x, y]`` tokens between
    contents x and y, each of ``weight[i, j]`` seconds from device i to device j.
    """

    is_sum: bool
    copies: NDArray[np.float64]  # [G, N]
    ptr: NDArray[np.int64]  # [G * N + 1]
    link: NDArray[np.int64]
    seconds: NDArray[np.float64]
    half: int  # H
    pair: NDArray[np.float64]  # [N, N]
    weight: NDArray[np.float64]  # [N, N], 0 on the diagonal


@nan_free_kernel
def makespan(busy: NDArray[np.float64], half: int) -> float:
    """Return the busiest link's seconds in dispatch plus those in combine, of busy [2H]."""
    first, second = 0.0, 0.0
    for link in range(half):
        first = max(first, busy[link])
        second = max(second, busy[half + link])
    return first + second


@kernel
def put(
    objective: Objective, contents: int, device: int, sign: float, busy: NDArray[np.float64]
) -> None:
    """Add to busy [2H] what the contents at the device keep the links busy, times ``sign``."""
    devices = objective.copies.shape[1]
    for group in range(objective.copies.shape[0]):
        amount = sign * objective.copies[group, contents]
        at = group * devices + device
        for entry in range(objective.ptr[at], objective.ptr[at + 1]):
            busy[objective.link[entry]] += amount * objective.seconds[entry]


@kernel
def cost(objective: Objective, order: NDArray[np.int64], busy: NDArray[np.float64]) -> float:
    """Return the cost of ``order`` [N]; ``busy`` [2H] is left with the links' seconds."""
    total = 0.0
    if objective.is_sum:
        for i in range(order.size):
            for j in range(order.size):
                total += objective.pair[order[i], order[j]] * objective.weight[i, j]
        return total
    busy[:] = 0.0
    for device in range(order.size):
        put(objective, order[device], device, 1.0, busy)
    return makespan(busy, objective.half)


@kernel
def crossover(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    seed: np.uint64,
    used: NDArray[np.bool_],
    child: NDArray[np.int64],
) -> None:
    """Write the uniform order-based crossover of two permutations [N] (L. Davis, 1991).

    Every place keeps the first parent's entry by the toss of a coin; the entries left over fill the
    other places in the order in which the second parent has them.
    """
    used[:] = False
    for place in range(first.size):
        if place % 64 == 0:
            coins = mixed(seed, place // 64)
        child[place] = -1
        if coins & np.uint64(1):
            child[place] = first[place]
            used[first[place]] = True
        coins >>= np.uint64(1)
    at = 0
    for entry in second:
        if used[entry]:
            continue
        while child[at] >= 0:
            at += 1
        child[at] = entry


@kernel
def drawn(seed: np.uint64, index: int, below: int) -> int:
    """Return draw ``index`` of a seed, an integer in 0..below-1."""
    return int(np.int64((mixed(seed, index) >> np.uint64(11)) % np.uint64(below)))


@kernel
def mutate(order: NDArray[np.int64], seed: np.uint64) -> None:
    """Swap two entries of the permutation, and two more, ... with a chance of one half each."""
    draw = 0
    while drawn(seed, draw, 1 << 20) < _SWAPPED * (1 << 20):
        a, b = drawn(seed, draw + 1, order.size), drawn(seed, draw + 2, order.size)
        order[a], order[b] = order[b], order[a]
        draw += 3


@kernel
def shuffle(order: NDArray[np.int64], seed: np.uint64) -> None:
    """Shuffle the permutation (Fisher and Yates)."""
    for place in range(order.size - 1, 0, -1):
        other = drawn(seed, place, place + 1)
        order[place], order[other] = order[other], order[place]


@kernel
def evolve(
    objective: Objective, start: NDArray[np.int64], generations: int, seed: np.uint64
) -> NDArray[np.int64]:
    """Return the best permutation [N] of all generations; never worse than ``start`` [N].

    The first generation is the start and shuffles of it. Each next one keeps the best two, and has
    children of parents that won a tournament of two, by crossover and then swaps.
    """
    devices = start.size
    busy = np.zeros(2 * objective.half)
    used = np.zeros(devices, dtype=np.bool_)
    people = np.empty((POPULATION, devices), dtype=np.int64)
    children = np.empty_like(people)
    price = np.empty(POPULATION)
    for one in range(POPULATION):
        people[one] = start
        if one:
            shuffle(people[one], mixed(seed, one))
        price[one] = cost(objective, people[one], busy)
    parent = np.empty(2, dtype=np.int64)
    for generation in range(1, generations + 1):
        ranked = np.argsort(price, kind="mergesort")
        children[:ELITE] = people[ranked[:ELITE]]
        for one in range(ELITE, POPULATION):
            own = mixed(seed, generation * POPULATION + one)
            for side in range(2):
                # Of ranks drawn evenly the least wins.
                rank = POPULATION
                for contest in range(CONTESTANTS):
                    rank = min(rank, drawn(own, side * CONTESTANTS + contest, POPULATION))
                parent[side] = ranked[rank]
            crossover(people[parent[0]], people[parent[1]], mixed(own, 100), used, children[one])
            mutate(children[one], mixed(own, 200))
        people[:] = children
        for one in range(POPULATION):
            price[one] = cost(objective, people[one], busy)
    best: NDArray[np.int64] = people[np.argmin(price)].copy()
    return best


@kernel
def descend(objective: Objective, start: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``start`` [N] after every swap of two devices that is worth it, until none is.

    Pairs are tried in order, again and again; the first that helps is taken.
    """
    order = start.copy()
    busy = np.zeros(2 * objective.half)
    now = cost(objective, order, busy)
    trial = busy.copy()
    improved = True
    while improved:
        improved = False
        for a in range(order.size):
            for b in range(a + 1, order.size):
                if objective.is_sum:
                    after = now + _swap_change(objective, order, a, b)
                else:
                    trial[:] = busy
                    put(objective, order[a], a, -1.0, trial)
                    put(objective, order[b], b, -1.0, trial)
                    put(objective, order[b], a, 1.0, trial)
                    put(objective, order[a], b, 1.0, trial)
                    after = makespan(trial, objective.half)
                if after < now * (1.0 - _WORTH):
                    order[a], order[b] = order[b], order[a]
                    now = cost(objective, order, busy)  # afresh: rounding does not pile up
                    improved = True
    return order


@kernel
def _swap_change(objective: Objective, order: NDArray[np.int64], a: int, b: int) -> float:
    """Return by how much the sum changes when devices a and b exchange their contents."""
    pair, weight = objective.pair, objective.weight
    x, y = order[a], order[b]
    change = (pair[y, x] - pair[x, y]) * (weight[a, b] - weight[b, a])
    for k in range(order.size):
        if k not in (a, b):
            z = order[k]
            change += (pair[y, z] - pair[x, z]) * (weight[a, k] - weight[b, k])
            change += (pair[z, y] - pair[z, x]) * (weight[k, a] - weight[k, b])
    return float(change)


@kernel
def remap_layer(
    objective: Objective, generations: int, seed: np.uint64, polish: bool
) -> tuple[NDArray[np.int64], float, float]:
    """Return the best order found from the one that is there, and the costs (before, after).

    ``polish``: swaps end the search, and swaps alone are tried beside it.
    """
    devices = objective.weight.shape[0] if objective.is_sum else objective.copies.shape[1]
    busy = np.zeros(2 * objective.half)
    start = np.arange(devices)
    before = cost(objective, start, busy)
    order = evolve(objective, start, generations, seed) if generations > 0 else start
    if polish:
        order = descend(objective, order)
        if generations > 0:
            alone = descend(objective, start)
            if cost(objective, alone, busy) < cost(objective, order, busy):
                order = alone
    after = cost(objective, order, busy)
    if after >= before * (1.0 - _LEAST_GAIN):
        return start, before, before
    return order, before, after
