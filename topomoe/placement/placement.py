"""Where the experts and their replicas sit: slots on devices, and each replica's share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.errors import InputError

SHARE_TOLERANCE = 1e-9  # how far an expert's shares may be from a sum of 1


@dataclass(frozen=True, eq=False)
class LayerPlacement:
    """The placement of one MoE layer; slot s is on device s // (S/N)."""

    slot_expert: NDArray[np.int32]  # [S], the expert that each slot holds
    slot_share: NDArray[np.float64]  # [S], the share of the expert's tokens that the slot computes
    num_devices: int  # N
    num_experts: int  # E

    def __post_init__(self) -> None:
        if np.ndim(self.slot_expert) != 1:
            raise InputError(f"slot_expert must be [S], got shape {np.shape(self.slot_expert)}")
        expert, share = _checked(
            np.asarray(self.slot_expert)[None],
            np.asarray(self.slot_share)[None],
            self.num_devices,
            self.num_experts,
        )
        object.__setattr__(self, "slot_expert", expert[0])
        object.__setattr__(self, "slot_share", share[0])

    @property
    def num_slots(self) -> int:
        """S, the slots on all devices."""
        return len(self.slot_expert)

    @property
    def slot_device(self) -> NDArray[np.int64]:
        """The device of each slot, [S]."""
        return _slot_device(self.num_slots, self.num_devices)

    def device_load(self, load: ArrayLike) -> NDArray[np.float64]:
        """Return the load [N] of each device when the experts have ``load[E]``."""
        loads = np.asarray(load, dtype=np.float64)
        if loads.shape != (self.num_experts,):
            raise InputError(f"load must be [E] = [{self.num_experts}], got shape {loads.shape}")
        slots = loads[self.slot_expert] * self.slot_share
        total: NDArray[np.float64] = slots.reshape(self.num_devices, -1).sum(axis=1)
        return total


@dataclass(frozen=True, eq=False)
class Placement:
    """The placement of every MoE layer; slot s is on device s // (S/N).

    The arrays are copied and made read-only. Raises InputError unless S is a multiple of N, every
    id lies in 0..E-1, every expert of every layer has a slot, and every expert's shares are >= 0
    and sum to 1 (to 1e-9).
    """

    slot_expert: NDArray[np.int32]  # [M, S], the expert that each slot holds
    slot_share: NDArray[np.float64]  # [M, S], the share of the expert's tokens the slot computes
    num_devices: int  # N
    num_experts: int  # E, the columns of the loads; a routed shared expert is one more

    def __post_init__(self) -> None:
        expert, share = _checked(
            self.slot_expert, self.slot_share, self.num_devices, self.num_experts
        )
        object.__setattr__(self, "slot_expert", expert)
        object.__setattr__(self, "slot_share", share)

    @property
    def num_layers(self) -> int:
        """M, the MoE layers."""
        return len(self.slot_expert)

    @property
    def num_slots(self) -> int:
        """S, the slots on all devices."""
        return len(self.slot_expert[0])

    @property
    def slot_device(self) -> NDArray[np.int64]:
        """The device of each slot, [S]: s // (S/N)."""
        return _slot_device(self.num_slots, self.num_devices)

    def __len__(self) -> int:
        return self.num_layers

    def __getitem__(self, layer: int) -> LayerPlacement:
        return LayerPlacement(
            self.slot_expert[layer], self.slot_share[layer], self.num_devices, self.num_experts
        )

    def __iter__(self) -> Iterator[LayerPlacement]:
        return (self[layer] for layer in range(self.num_layers))

    def device_load(self, load: ArrayLike) -> NDArray[np.float64]:
        """Return the load [M, N] of each device when the experts have ``load[M, E]``.

        A single layer takes ``load[E]`` too. Raises InputError for another shape.
        """
        loads = np.asarray(load, dtype=np.float64)
        if loads.ndim == 1 and self.num_layers == 1:
            loads = loads[None]
        if loads.shape != (self.num_layers, self.num_experts):
            raise InputError(
                f"load must be [M, E] = [{self.num_layers}, {self.num_experts}], "
                f"got shape {loads.shape}"
            )
        slots = np.take_along_axis(loads, self.slot_expert, axis=1) * self.slot_share
        total: NDArray[np.float64] = slots.reshape(self.num_layers, self.num_devices, -1).sum(
            axis=2
        )
        return total

    def balancedness(self, load: ArrayLike) -> NDArray[np.float64]:
        """Return mean over maximum device load of each layer, [M]; 1 for a layer without load."""
        device_load = self.device_load(load)
        highest = device_load.max(axis=1)
        ratio = np.ones(self.num_layers)
        np.divide(device_load.mean(axis=1), highest, out=ratio, where=highest > 0)
        return ratio

    def replicas(self) -> NDArray[np.int64]:
        """Return how many slots hold each expert, [M, E], slots of share 0 included."""
        return _count(self.slot_expert, self.num_experts)

    def migration_slots(self, other: Placement) -> NDArray[np.int64]:
        """Return how many slots of each device hold an expert new to it, [M, N].

        New: not on that device under ``other``, the placement served before. Raises InputError
        where the two differ in layers, devices or experts; their slots may differ.
        """
        ours = (self.num_layers, self.num_devices, self.num_experts)
        theirs = (other.num_layers, other.num_devices, other.num_experts)
        if ours != theirs:
            raise InputError(
                f"placements must share (layers, devices, experts), got {ours} and {theirs}"
            )
        layers = np.arange(self.num_layers)[:, None]
        held = np.zeros(ours, dtype=bool)
        held[layers, other.slot_device, other.slot_expert] = True
        new = ~held[layers, self.slot_device, self.slot_expert]
        moved: NDArray[np.int64] = new.reshape(*ours[:2], -1).sum(axis=2)
        return moved


def _slot_device(num_slots: int, num_devices: int) -> NDArray[np.int64]:
    return np.arange(num_slots) // (num_slots // num_devices)


def _count(slot_expert: NDArray[np.int32], num_experts: int) -> NDArray[np.int64]:
    layers = slot_expert.shape[0]
    flat = slot_expert + num_experts * np.arange(layers)[:, None]
    counts = np.bincount(flat.ravel(), minlength=layers * num_experts)
    return counts.reshape(layers, num_experts)


def _checked(
    slot_expert: NDArray[np.int32],
    slot_share: NDArray[np.float64],
    num_devices: int,
    num_experts: int,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return read-only copies of the arrays, or raise InputError naming what is wrong."""
    ids = np.asarray(slot_expert)
    share = np.array(slot_share, dtype=np.float64, order="C")
    if num_devices < 1:
        raise InputError(f"num_devices must be >= 1, got {num_devices}")
    if ids.ndim != 2 or 0 in ids.shape:
        raise InputError(f"slot_expert must be [M, S] with M, S >= 1, got shape {ids.shape}")
    if not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"slot_expert must hold integers, got {ids.dtype}")
    if share.shape != ids.shape:
        raise InputError(f"slot_share must be shaped {ids.shape}, got {share.shape}")
    if ids.shape[1] % num_devices:
        raise InputError(
            f"slots must be a multiple of devices, got slots={ids.shape[1]} and "
            f"devices={num_devices}"
        )
    if ids.min() < 0 or ids.max() >= num_experts:
        wrong = int(ids.min() if ids.min() < 0 else ids.max())
        raise InputError(f"slot_expert must lie in 0..{num_experts - 1}, got {wrong}")
    if not (share >= 0).all():  # false for NaN too
        raise InputError("slot_share must be >= 0")
    experts = np.array(ids, dtype=np.int32, order="C")
    flat = (experts + num_experts * np.arange(len(experts))[:, None]).ravel()
    cells = len(experts) * num_experts
    placed = np.bincount(flat, minlength=cells) > 0
    if not placed.all():
        layer, expert = divmod(int(np.argmin(placed)), num_experts)
        raise InputError(f"every expert needs a slot: layer {layer} lacks expert {expert}")
    total = np.bincount(flat, weights=share.ravel(), minlength=cells)
    off = np.abs(total - 1.0)
    if off.max() > SHARE_TOLERANCE:
        layer, expert = divmod(int(np.argmax(off)), num_experts)
        raise InputError(
            f"slot_share must sum to 1 for each expert, got {total[np.argmax(off)]:.9g} for "
            f"expert {expert} of layer {layer}"
        )
    experts.setflags(write=False)
    share.setflags(write=False)
    return experts, share
