"""The descent and the search around it: which swaps and changes of replicas to make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.search.even_split_kernel import (
    Layer,
    replace,
    replaceable,
    reset,
    set_up,
    swap,
    swappable,
)
from topomoe.topologies.kernel import kernel

STEP = 1e-12  # device means; a smaller gain is rounding and no move
FAR = 0.005  # this part above the target, the fault is in the numbers of replicas
REPLACEMENTS = 3  # slots given to random experts in a kick, at most
SWAPS = 5  # in a kick; the descent mostly undoes a single one
BLOCK = 16  # draws for each kick: two for each change of it


@kernel
def best_swap(layer: Layer, device: int) -> tuple[float, int, int]:
    """Return the lowest maximum of two devices after a swap from ``device``, and the two slots."""
    devices = layer.total.size
    per_device = layer.expert.size // devices
    highest = float(layer.total[device])
    lowest, one, other = highest, -1, -1
    for there in range(devices):
        if highest - layer.total[there] <= STEP or highest + layer.total[there] >= 2 * lowest:
            continue
        for target in range(there * per_device, (there + 1) * per_device):
            for slot in range(device * per_device, (device + 1) * per_device):
                moved = layer.weight[slot] - layer.weight[target]
                after = float(max(highest - moved, layer.total[there] + moved))
                if (
                    after < lowest
                    and not layer.held[device, layer.expert[target]]
                    and not layer.held[there, layer.expert[slot]]
                ):
                    lowest, one, other = after, slot, target
    return lowest, one, other


@kernel
def after_replacing(layer: Layer, slot: int, new: int, limit: float) -> float:
    """Return the highest load of the devices that gain when ``new`` takes the slot.

    The slot's own device counts too. Stops early at ``limit``.
    """
    per_device = layer.expert.size // layer.total.size
    device, old = slot // per_device, layer.expert[slot]
    less = layer.load[new] / (layer.replicas[new] + 1)
    highest = float(layer.total[device] - layer.each[old] + less)
    if highest >= limit:
        return highest
    more = layer.load[old] / (layer.replicas[old] - 1) - layer.each[old]
    less -= layer.each[new]
    for i in range(layer.replicas[old]):
        there = layer.home[old, i] // per_device
        if there != device:
            after = layer.total[there] + more
            if layer.held[there, new]:
                after += less
            highest = max(highest, float(after))
            if highest >= limit:
                return highest
    return highest


@kernel
def best_replacement(layer: Layer, device: int) -> tuple[float, int, int]:
    """Return the lowest maximum after a change of replicas that relieves ``device``.

    Either a slot of the device is given to a lighter expert, or an expert of the device gets the
    slot of another one elsewhere; also returns the slot and its new expert.
    """
    devices, experts, slots = layer.total.size, layer.load.size, layer.expert.size
    per_device = slots // devices
    highest = layer.total[device]
    lowest, best_slot, best_expert = highest, -1, -1
    # Where the load of a lost replica hurts most; -1 for an expert that has none to lose.
    spill = np.zeros(experts)
    burdened = np.full(experts, -1)
    for expert in range(experts):
        if layer.replicas[expert] > 1:
            for i in range(layer.replicas[expert]):
                there = layer.home[expert, i] // per_device
                if burdened[expert] < 0 or layer.total[there] > layer.total[burdened[expert]]:
                    burdened[expert] = there
            more = layer.load[expert] / (layer.replicas[expert] - 1) - layer.each[expert]
            spill[expert] = layer.total[burdened[expert]] + more
    for slot in range(device * per_device, (device + 1) * per_device):
        old = layer.expert[slot]
        place = burdened[old]
        if place >= 0:
            for new in range(experts):
                if layer.held[device, new] or layer.replicas[new] == devices:
                    continue
                if place == device or spill[old] < lowest or layer.held[place, new]:
                    after = after_replacing(layer, slot, new, lowest)
                    if after < lowest:
                        lowest, best_slot, best_expert = after, slot, new
        # The device's load with one more replica of this expert elsewhere.
        relieved = highest - layer.each[old] + layer.load[old] / (layer.replicas[old] + 1)
        if relieved >= lowest or layer.replicas[old] == devices:
            continue
        for other in range(slots):
            held, there = layer.expert[other], other // per_device
            place = burdened[held]
            if place < 0 or layer.held[there, old]:
                continue
            if place == there or spill[held] < lowest or layer.held[place, old]:
                after = relieved
                if layer.held[device, held]:
                    after += layer.load[held] / (layer.replicas[held] - 1) - layer.each[held]
                if after < lowest:
                    after = max(after, after_replacing(layer, other, old, lowest))
                    if after < lowest:
                        lowest, best_slot, best_expert = after, other, old
    return lowest, best_slot, best_expert


@kernel
def descend(layer: Layer, target: float, replicas: bool) -> float:
    """Relieve the most loaded device by the best swap, or else the best change of ``replicas``.

    Stops at ``target`` or where nothing relieves it; returns the largest device load. Every move
    lowers the device loads, sorted from the largest, lexicographically.
    """
    while True:
        device = int(np.argmax(layer.total))
        highest = float(layer.total[device])
        if highest <= target:
            return highest
        after, one, other = best_swap(layer, device)
        if after < highest - STEP:
            swap(layer, one, other)
            continue
        if not replicas:
            return highest
        after, slot, expert = best_replacement(layer, device)
        if after >= highest - STEP:
            return highest
        replace(layer, slot, expert)


@kernel
def kick(layer: Layer, swaps: int, draws: NDArray[np.float64], at: int) -> None:
    """Swap random slots, each time one of the most loaded device; reads 2 * swaps draws."""
    devices, slots = layer.total.size, layer.expert.size
    per_device = slots // devices
    for i in range(at, at + 2 * swaps, 2):
        one = int(np.argmax(layer.total)) * per_device + int(draws[i] * per_device)
        other = int(draws[i + 1] * slots)
        if swappable(layer, one, other):
            swap(layer, one, other)


@kernel
def search(
    layer: Layer,
    target: float,
    patience: int,  # kicks without gain after which to stop
    draws: NDArray[np.float64],  # uniform on [0, 1), a power of two of them, read in a circle
) -> float:
    """Descend, then kick and descend again; leave the layer at the lowest maximum, returned.

    Far from the target, or without gain for long, random replicas change with most kicks and the
    best ones in each descent; otherwise rarely, as a swap takes a tenth of the time to find.
    """
    slots, experts = layer.expert.size, layer.load.size
    best = descend(layer, target, True)
    kept = layer.expert.copy()
    idle, at, turn = 0, 0, 0
    while best > target and idle < patience:
        turn += 1
        far = best > target * (1 + FAR) or idle > patience // 4
        changes = turn % (1 + REPLACEMENTS) if far else int(turn % 16 == 0)
        for i in range(at, at + 2 * changes, 2):
            slot, new = int(draws[i] * slots), int(draws[i + 1] * experts)
            if replaceable(layer, slot, new):
                replace(layer, slot, new)
        kick(layer, SWAPS, draws, at + 2 * REPLACEMENTS)
        at = (at + BLOCK) & (draws.size - 1)
        after = descend(layer, target, far)
        idle += 1
        if after < best - STEP:
            best, idle = after, 0
            kept[:] = layer.expert
        elif after > best:
            reset(layer, kept)
    reset(layer, kept)
    return best


@kernel
def search_layers(
    load: NDArray[np.float64],  # [M, E], device mean 1
    target: NDArray[np.float64],  # [M], largest device loads at which to stop
    devices: int,
    patience: int,
    draws: NDArray[np.float64],
    slot_expert: NDArray[np.int32],  # [M, S], the start; written
) -> None:
    """Search each layer with the same draws."""
    for m in range(load.shape[0]):
        layer = set_up(load[m], slot_expert[m], devices)
        search(layer, target[m], patience, draws)
        slot_expert[m] = layer.expert
