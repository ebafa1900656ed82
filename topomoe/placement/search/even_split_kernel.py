"""The state of one layer under search with even shares, and the two moves that change it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel


class Layer(NamedTuple):
    """A placement of one layer and what its moves change; device mean 1."""

    load: NDArray[np.float64]  # [E]
    expert: NDArray[np.int32]  # [S], in each slot
    total: NDArray[np.float64]  # [N], load of each device
    each: NDArray[np.float64]  # [E], load per replica
    weight: NDArray[np.float64]  # [S], each[expert]
    replicas: NDArray[np.int64]  # [E], slots that hold it
    home: NDArray[np.int32]  # [E, N], the slots of each expert, `replicas` of them, in any order
    at: NDArray[np.int32]  # [S], where in its expert's homes a slot is
    held: NDArray[np.bool_]  # [N, E], experts of each device


@kernel
def set_up(load: NDArray[np.float64], expert: NDArray[np.int32], devices: int) -> Layer:
    """Return the state of the placement ``expert`` [S] of ``load`` [E], device mean 1."""
    experts, slots = load.size, expert.size
    layer = Layer(
        load,
        np.empty(slots, dtype=np.int32),
        np.empty(devices),
        np.empty(experts),
        np.empty(slots),
        np.empty(experts, dtype=np.int64),
        np.empty((experts, devices), dtype=np.int32),
        np.empty(slots, dtype=np.int32),
        np.zeros((devices, experts), dtype=np.bool_),
    )
    layer.expert[:] = expert
    fill(layer)
    return layer


@kernel
def reset(layer: Layer, expert: NDArray[np.int32]) -> None:
    """Make the layer hold the placement ``expert`` [S]."""
    per_device = expert.size // layer.total.size
    for slot in range(expert.size):
        layer.held[slot // per_device, layer.expert[slot]] = False
    layer.expert[:] = expert
    fill(layer)


@kernel
def fill(layer: Layer) -> None:
    """Compute all from ``load`` and ``expert``, where ``held`` is all False."""
    devices, slots = layer.total.size, layer.expert.size
    layer.replicas[:] = 0
    for slot in range(slots):
        expert = layer.expert[slot]
        layer.home[expert, layer.replicas[expert]] = slot
        layer.at[slot] = layer.replicas[expert]
        layer.replicas[expert] += 1
        layer.held[slot // (slots // devices), expert] = True
    for expert in range(layer.load.size):
        layer.each[expert] = layer.load[expert] / layer.replicas[expert]
    for slot in range(slots):
        layer.weight[slot] = layer.each[layer.expert[slot]]
    for device in range(devices):
        weigh(layer, device)


@kernel
def weigh(layer: Layer, device: int) -> None:
    """Add up the load of a device anew: differences would gather rounding."""
    per_device = layer.expert.size // layer.total.size
    total = 0.0
    for slot in range(device * per_device, (device + 1) * per_device):
        total += layer.weight[slot]
    layer.total[device] = total


@kernel
def share(layer: Layer, expert: int) -> None:
    """Split an expert's load over its replicas."""
    per_device = layer.expert.size // layer.total.size
    layer.each[expert] = layer.load[expert] / layer.replicas[expert]
    for i in range(layer.replicas[expert]):
        slot = layer.home[expert, i]
        layer.weight[slot] = layer.each[expert]
        weigh(layer, slot // per_device)


@kernel
def swappable(layer: Layer, one: int, other: int) -> bool:
    """Return whether the experts of two slots may be exchanged: no device then has one twice."""
    per_device = layer.expert.size // layer.total.size
    here, there = one // per_device, other // per_device
    return not (layer.held[here, layer.expert[other]] or layer.held[there, layer.expert[one]])


@kernel
def swap(layer: Layer, one: int, other: int) -> None:
    """Exchange the experts of two slots of different devices."""
    per_device = layer.expert.size // layer.total.size
    a, b = layer.expert[one], layer.expert[other]
    here, there = one // per_device, other // per_device
    layer.held[here, a], layer.held[here, b] = False, True
    layer.held[there, b], layer.held[there, a] = False, True
    layer.expert[one], layer.expert[other] = b, a
    layer.weight[one], layer.weight[other] = layer.weight[other], layer.weight[one]
    layer.at[one], layer.at[other] = layer.at[other], layer.at[one]
    layer.home[b, layer.at[one]], layer.home[a, layer.at[other]] = one, other
    weigh(layer, here)
    weigh(layer, there)


@kernel
def replaceable(layer: Layer, slot: int, new: int) -> bool:
    """Return whether a slot may be given to the expert ``new``: the old one keeps another."""
    per_device = layer.expert.size // layer.total.size
    return layer.replicas[layer.expert[slot]] > 1 and not layer.held[slot // per_device, new]


@kernel
def replace(layer: Layer, slot: int, new: int) -> None:
    """Give the slot of an expert of several replicas to the expert ``new``, not on its device."""
    per_device = layer.expert.size // layer.total.size
    device, old = slot // per_device, layer.expert[slot]
    last = layer.replicas[old] - 1
    moved = layer.home[old, last]
    layer.home[old, layer.at[slot]], layer.at[moved] = moved, layer.at[slot]
    layer.replicas[old] = last
    layer.home[new, layer.replicas[new]], layer.at[slot] = slot, layer.replicas[new]
    layer.replicas[new] += 1
    layer.expert[slot] = new
    layer.held[device, old], layer.held[device, new] = False, True
    share(layer, old)
    share(layer, new)
    weigh(layer, device)
