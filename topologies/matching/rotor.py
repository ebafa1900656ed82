"""Rotor: fixed matchings in turn, whatever the demand.

Mellette et al., "RotorNet: a scalable, low-complexity, optical datacenter network", SIGCOMM 2017:
N-1 matchings join every pair once a cycle, so nothing has to be computed or controlled; traffic
waits for its circuit or takes two hops where circuits have room (RotorLB).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from topomoe.topologies.matching.schedule import Carry, Step
from topomoe.topologies.topology import FloatArray, IntArray


def rotor_cycle(devices: int, degree: int) -> tuple[IntArray, ...]:
    """Return the slots of one cycle, each [X, 2]: every ordered pair is lit in exactly one.

    A slot holds ``degree`` cyclic shifts of the devices; the last may hold fewer.
    """
    device = np.arange(devices)
    shifts = [np.stack([device, (device + s) % devices], axis=-1) for s in range(1, devices)]
    return tuple(np.concatenate(shifts[s : s + degree]) for s in range(0, devices - 1, degree))


def rotor(devices: int, degree: int, slot: float) -> Iterator[Step]:
    """Yield the slots of the cycle without end, each for ``slot`` seconds."""
    cycle = rotor_cycle(devices, degree)
    while True:
        for circuits in cycle:
            yield circuits, slot


def relaying_carry(demand: FloatArray, per_cycle: float) -> Carry:
    """Return a carry that sends over two hops what a pair's next slot cannot take, as a fluid.

    A circuit first sends what its head is to receive, then, with the room left, traffic of its tail
    for other devices. The tail offers what exceeds ``per_cycle`` bytes, the most that its own
    circuit takes in a cycle; the head takes what leaves its own queue for that device at or below
    as much. Nothing is relayed twice.
    """
    own = demand.copy()  # not moved yet; the rest of what is queued at a device came from another

    def carry(queued: FloatArray, circuits: IntArray, room: FloatArray) -> FloatArray:
        moved = np.zeros(len(circuits))
        devices = len(queued)
        # Circuits of one shift at a time: each device is in it once as tail and once as head.
        shift = (circuits[:, 1] - circuits[:, 0]) % devices
        for s in np.unique(shift):
            at = np.flatnonzero(shift == s)
            tail, head = circuits[at].T
            direct = np.minimum(queued[tail, head], room[at])
            queued[tail, head] -= direct
            own[tail, head] = np.minimum(own[tail, head], queued[tail, head])
            offered = np.maximum(own[tail] - per_cycle, 0.0)
            accepted = np.maximum(per_cycle - queued[head], 0.0)
            relayed = np.minimum(offered, accepted)
            relayed[np.arange(len(at)), head] = 0.0
            total = relayed.sum(axis=1)
            left = room[at] - direct
            share = np.divide(left, total, out=np.ones_like(total), where=total > left)
            relayed *= share[:, None]
            queued[tail] -= relayed
            own[tail] -= relayed
            queued[head] += relayed
            moved[at] = direct + relayed.sum(axis=1)
        return moved

    return carry
