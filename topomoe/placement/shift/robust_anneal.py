"""Simulated annealing of slots at even shares, on the cost of ``robust_kernel``.

Source: Kirkpatrick, Gelatt and Vecchi 1983, "Optimization by simulated annealing". In units of the
mean device load a device at the mean costs 1, so temperatures need no fitting to the problem.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.shift.robust_kernel import device_cost, exchange_cost, shift_share
from topomoe.topologies.kernel import kernel

Floats = NDArray[np.float64]
HOT, COLD = 1.0, 0.02  # temperatures at the start and at the end
_REPLICA_CHANGES = 0.15  # part of the proposals; the others are exchanges
_STEP = 512  # proposals at one temperature


@kernel
def anneal_slots(
    slot_expert: NDArray[np.int32],  # [S], written
    load: Floats,  # [E, D + 1], the last column variances
    devices: int,
    proposals: int,
    draws: Floats,  # uniform on [0, 1), read in a circle, four a proposal
) -> None:
    """Propose to exchange two slots, or to give one to another expert, and accept by chance.

    No device gets an expert twice, and no expert loses its last slot.
    """
    slots = slot_expert.size
    experts, columns = load.shape
    per_device = slots // devices
    count = np.zeros(experts, dtype=np.int64)
    holder = np.empty((experts, devices), dtype=np.int64)
    held = np.zeros((devices, experts), dtype=np.bool_)
    for s in range(slots):
        expert, device = slot_expert[s], s // per_device
        if held[device, expert]:
            return  # forced doubles: there is nothing to choose
        holder[expert, count[expert]] = device
        held[device, expert] = True
        count[expert] += 1
    part = np.zeros((experts, columns))  # what one replica adds
    for expert in range(experts):
        if count[expert]:
            shift_share(part[expert], load[expert], 1.0 / count[expert], 0.0)
    loads = np.zeros((devices, columns))
    for s in range(slots):
        loads[s // per_device] += part[slot_expert[s]]
    cost = np.array([device_cost(loads[n]) for n in range(devices)])
    after = np.empty((devices, columns))
    touched = np.zeros(devices, dtype=np.bool_)
    changed = np.empty(devices, dtype=np.int64)
    at, temperature = 0, HOT
    for proposal in range(proposals):
        if proposal % _STEP == 0:
            temperature = HOT * (COLD / HOT) ** (proposal / proposals)
        if at + 4 > draws.size:
            at = (at + 4) % draws.size
        kind, one, two, chance = draws[at], draws[at + 1], draws[at + 2], draws[at + 3]
        at += 4
        limit = -temperature * np.log(chance + 1e-300)
        i = int(one * slots)
        a, mine = i // per_device, slot_expert[i]
        if kind >= _REPLICA_CHANGES:
            j = int(two * slots)
            b, theirs = j // per_device, slot_expert[j]
            if a == b or held[a, theirs] or held[b, mine]:
                continue
            new_a = exchange_cost(loads[a], part[mine], part[theirs])
            if new_a - cost[a] - cost[b] >= limit:  # the other's new cost is >= 0
                continue
            new_b = exchange_cost(loads[b], part[theirs], part[mine])
            if new_a + new_b - cost[a] - cost[b] >= limit:
                continue
            for c in range(columns):
                moved = part[theirs, c] - part[mine, c]
                loads[a, c] += moved
                loads[b, c] -= moved
            cost[a], cost[b] = new_a, new_b
            _rehouse(holder[mine], a, b)
            _rehouse(holder[theirs], b, a)
            held[a, mine], held[b, theirs] = False, False
            held[a, theirs], held[b, mine] = True, True
            slot_expert[i], slot_expert[j] = theirs, mine
            continue
        taken = int(two * experts)
        if count[mine] < 2 or held[a, taken]:
            continue
        number = 0
        less, more = 1.0 / (count[mine] - 1), 1.0 / (count[taken] + 1)
        for h in range(count[mine]):
            n = holder[mine, h]
            after[n] = loads[n]
            shift_share(after[n], load[mine], 0.0 if n == a else less, 1.0 / count[mine])
            touched[n] = True
            changed[number] = n
            number += 1
        shift_share(after[a], load[taken], more, 0.0)
        for h in range(count[taken]):
            n = holder[taken, h]
            if not touched[n]:
                after[n] = loads[n]
                changed[number] = n
                number += 1
            shift_share(after[n], load[taken], more, 1.0 / count[taken])
        change = 0.0
        for h in range(number):
            touched[changed[h]] = False
            change += device_cost(after[changed[h]]) - cost[changed[h]]
        if change >= limit:
            continue
        for h in range(number):
            loads[changed[h]] = after[changed[h]]
            cost[changed[h]] = device_cost(after[changed[h]])
        _rehouse(holder[mine], a, holder[mine, count[mine] - 1])
        holder[taken, count[taken]] = a
        count[mine] -= 1
        count[taken] += 1
        part[mine], part[taken] = 0.0, 0.0
        shift_share(part[mine], load[mine], less, 0.0)
        shift_share(part[taken], load[taken], more, 0.0)
        held[a, mine], held[a, taken] = False, True
        slot_expert[i] = taken


@kernel
def _rehouse(homes: NDArray[np.int64], old: int, new: int) -> None:
    """Write ``new`` over the first ``old``, which is there."""
    h = 0
    while homes[h] != old:
        h += 1
    homes[h] = new
