"""Simulated annealing for the smallest largest device load with even shares.

Source: Kirkpatrick, Gelatt and Vecchi, "Optimization by simulated annealing", Science 1983. It is
the slow yardstick of ``local-search``: the same moves, drawn at random.
"""

from __future__ import annotations

import numpy as np

from topomoe.placement.problem import PlacementProblem, Slots, even_shares
from topomoe.placement.search import local_search
from topomoe.placement.search.even_split_kernel import (
    Layer,
    replace,
    replaceable,
    reset,
    set_up,
    swap,
    swappable,
)
from topomoe.placement.search.local_search_kernel import STEP, descend
from topomoe.topologies.kernel import kernel

HOTTEST, COLDEST = 1e-4, 1e-8  # temperatures, squared mean device loads
REPLICA_MOVES = 0.1  # part of the proposals that give a slot to another expert


def assign(problem: PlacementProblem) -> Slots:
    """Return the even shares of the lowest maximum met in ``options.sweeps`` proposals a slot.

    A layer starts from what ``local-search`` returns and is never worse. The energy is the sum
    over devices of the squared load above ``lower_bound``; the temperature falls geometrically; a
    proposal swaps two slots, or gives a slot to another expert.
    """
    slot_expert, _ = local_search.assign(problem)
    load, bound = local_search.device_units(problem)
    rngs = np.random.default_rng(problem.seed).spawn(problem.num_layers)
    for m, rng in enumerate(rngs):
        layer = set_up(load[m], slot_expert[m], problem.num_devices)
        anneal(layer, float(bound[m]), problem.options.sweeps, rng)
        slot_expert[m] = layer.expert
    return slot_expert, even_shares(slot_expert, problem.num_experts)


@kernel
def anneal(layer: Layer, bound: float, sweeps: int, rng: np.random.Generator) -> float:
    """Anneal a layer and leave it at the lowest maximum seen, which is returned."""
    slots, experts = layer.expert.size, layer.load.size
    best = float(layer.total.max())
    kept = layer.expert.copy()
    for sweep in range(sweeps):
        if best <= bound * (1 + STEP):
            break
        temperature = HOTTEST * (COLDEST / HOTTEST) ** (sweep / max(1, sweeps - 1))
        for _ in range(slots):
            slot = int(rng.random() * slots)
            if rng.random() < REPLICA_MOVES:
                new, old = int(rng.random() * experts), int(layer.expert[slot])
                if replaceable(layer, slot, new):
                    before = energy(layer, bound)
                    replace(layer, slot, new)
                    rise = energy(layer, bound) - before
                    if rise > 0 and rng.random() >= np.exp(-rise / temperature):
                        replace(layer, slot, old)
            else:
                other = int(rng.random() * slots)
                rise = rise_by_swap(layer, slot, other, bound)
                taken = rise <= 0 or rng.random() < np.exp(-rise / temperature)
                if taken and swappable(layer, slot, other):
                    swap(layer, slot, other)
        highest = float(layer.total.max())
        if highest < best - STEP:
            best = highest
            kept[:] = layer.expert
    highest = descend(layer, bound, True)
    if highest < best - STEP:
        return highest
    reset(layer, kept)
    return best


@kernel
def energy(layer: Layer, bound: float) -> float:
    """Return the sum over devices of the squared load above the bound."""
    total = 0.0
    for load in layer.total:
        total += float(max(0.0, load - bound) ** 2)
    return total


@kernel
def rise_by_swap(layer: Layer, one: int, other: int, bound: float) -> float:
    """Return what the swap of two slots of two devices adds to the energy."""
    per_device = layer.expert.size // layer.total.size
    here, there = layer.total[one // per_device], layer.total[other // per_device]
    moved = layer.weight[one] - layer.weight[other]
    before = max(0.0, here - bound) ** 2 + max(0.0, there - bound) ** 2
    after = max(0.0, here - moved - bound) ** 2 + max(0.0, there + moved - bound) ** 2
    return float(after - before)
