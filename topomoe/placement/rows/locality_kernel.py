"""Compiled annealing of which expert each slot holds, for few copies between rows.

The price of a state is what its tokens are expected to send to other rows, in token-expert pairs:
a pair whose expert has a slot in the row where the token starts stays there; any other goes to one
of the expert's slots, each as likely. A token whose experts share a device is sent there once. With
the experts D of a device that a row lacks, the share of the row's tokens that go there is
P(union over D) <= sum of P(e) - a spanning tree of P(e and f) (Hunter 1976, "An upper bound for the
probability of a union"), which two experts meet exactly; Prim's algorithm takes the largest tree.
To it comes ``overload_price`` a pair by which that dispatch would exceed the load that a device may
have (such pairs must go to another row), and ``shortfall_price`` a pair that no shares can place
within it (a maximum flow, kept up to date).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.rows.capacity_flow import augment
from topomoe.topologies.kernel import kernel


@kernel
def device_price(
    device: int,
    per_device: int,
    columns: int,
    slot_expert: NDArray[np.int32],  # [S]
    held: NDArray[np.int64],  # [R, E], slots of the row that hold the expert
    replicas: NDArray[np.int64],  # [E]
    demand: NDArray[np.float64],  # [R, E], pairs by the row where their token starts
    lacking: NDArray[np.float64],  # [E], demand of the rows without the expert
    pairs: NDArray[np.float64],  # [1 or R, E, E], tokens of a row that choose both
    most: float,
    overload_price: float,
    tree: NDArray[np.float64],  # [S/N], scratch
    part: NDArray[np.int64],  # [S/N], scratch
) -> float:
    """Return the expected copies to the device from other rows, and the price of its overload."""
    rows = held.shape[0]
    own = device // columns
    first = device * per_device
    load = 0.0
    for s in range(first, first + per_device):
        e = slot_expert[s]
        load += demand[own, e] / held[own, e] + lacking[e] / replicas[e]
    price = overload_price * max(0.0, load - most)
    for r in range(rows):
        if r == own:
            continue
        g = r if pairs.shape[0] > 1 else 0
        members = 0
        for s in range(first, first + per_device):
            e = slot_expert[s]
            if held[r, e] == 0:
                part[members] = e
                price += demand[r, e] / replicas[e]
                members += 1
        if members < 2:
            continue
        # Prim: tree[i] is the largest tie of member i to those in the tree, -1 once it is in.
        tree[0] = -1.0
        for i in range(1, members):
            tree[i] = pairs[g, part[0], part[i]] / (replicas[part[0]] * replicas[part[i]])
        for _ in range(members - 1):
            best, tie = 0, -1.0
            for i in range(members):
                if tree[i] > tie:
                    best, tie = i, tree[i]
            price -= tie
            tree[best] = -1.0
            for i in range(members):
                if tree[i] >= 0.0:
                    between = pairs[g, part[best], part[i]] / (
                        replicas[part[best]] * replicas[part[i]]
                    )
                    tree[i] = max(tree[i], between)
    return price


@kernel
def anneal(
    slot_expert: NDArray[np.int32],  # [S], the start; the best state found is written
    devices: int,
    columns: int,
    demand: NDArray[np.float64],  # [R, E], of sum N
    pairs: NDArray[np.float64],  # [1 or R, E, E]
    most: float,
    overload_price: float,
    shortfall_price: float,
    before: NDArray[np.bool_],  # [N, E], experts that a device held before
    most_new: int,  # slots that may hold what their device did not hold before
    slot_draw: NDArray[np.int64],  # [X] in 0..S-1, one proposal each
    other_draw: NDArray[np.int64],  # [X] in 0..S+E-1: another slot to swap with, or an expert
    accept_draw: NDArray[np.float64],  # [X] in (0, 1]
    hot: float,  # first temperature, in pairs
    cold: float,  # last temperature
) -> float:
    """Swap the experts of two slots, or give a slot another expert, as Metropolis accepts it.

    No device comes to hold an expert twice, no expert loses its last slot, and no more than
    ``most_new`` slots come to hold what is new to their device (but a start with more may keep
    them). Returns the price of the best state.
    """
    slots, experts, rows = slot_expert.size, demand.shape[1], demand.shape[0]
    per_device = slots // devices
    held = np.zeros((rows, experts), dtype=np.int64)
    replicas = np.zeros(experts, dtype=np.int64)
    where = np.empty((experts, slots), dtype=np.int64)
    new = 0
    for s in range(slots):
        device, e = s // per_device, slot_expert[s]
        held[device // columns, e] += 1
        where[e, replicas[e]] = s
        replicas[e] += 1
        new += 0 if before[device, e] else 1
    lacking = np.zeros(experts)
    left = np.zeros(experts)
    for e in range(experts):
        for r in range(rows):
            left[e] += demand[r, e]
            if held[r, e] == 0:
                lacking[e] += demand[r, e]
    flow = np.zeros(slots)
    load = np.zeros(devices)
    queue, expert_via = np.empty(experts, dtype=np.int64), np.empty(experts, dtype=np.int64)
    device_via = np.empty(devices, dtype=np.int64)
    short = augment(
        slot_expert, where, replicas, per_device, most, flow, load, left, queue, expert_via,
        device_via,
    )  # fmt: skip
    flow_before, load_before, left_before = flow.copy(), load.copy(), left.copy()
    tree = np.empty(per_device)
    part = np.empty(per_device, dtype=np.int64)
    price = np.empty(devices)
    for d in range(devices):
        price[d] = device_price(
            d, per_device, columns, slot_expert, held, replicas, demand, lacking, pairs,
            most, overload_price, tree, part,
        )  # fmt: skip
    total = price.sum() + shortfall_price * short
    best, best_state = total, slot_expert.copy()
    touched = np.empty(devices, dtype=np.int64)
    saved = np.empty(devices)
    cooling = (cold / hot) ** (1.0 / max(1, slot_draw.size - 1))
    temperature = hot / cooling
    for x in range(slot_draw.size):
        temperature *= cooling
        s = slot_draw[x]
        a, here = slot_expert[s], s // per_device
        swap = other_draw[x] < slots
        t = other_draw[x] if swap else s
        b = slot_expert[t] if swap else np.int32(other_draw[x] - slots)
        there = t // per_device
        if a == b or (swap and here == there) or (not swap and replicas[a] == 1):
            continue
        double = False
        for i in range(here * per_device, (here + 1) * per_device):
            double |= slot_expert[i] == b
        if swap:
            for i in range(there * per_device, (there + 1) * per_device):
                double |= slot_expert[i] == a
        if double:
            continue
        change = (0 if before[here, b] else 1) - (0 if before[here, a] else 1)
        if swap:
            change += (0 if before[there, a] else 1) - (0 if before[there, b] else 1)
        if change > 0 and new + change > most_new:
            continue
        # Apply, price the devices that hold either expert, and take it back if it is refused.
        for back in range(2):
            give, take = (a, b) if back == 0 else (b, a)
            _hand(slot_expert, where, replicas, held, s, int(take), here // columns)
            if swap:
                _hand(slot_expert, where, replicas, held, t, int(give), there // columns)
            for e in (a, b):
                lacking[e] = 0.0
                for r in range(rows):
                    if held[r, e] == 0:
                        lacking[e] += demand[r, e]
            if back == 1:
                break
            count, delta = 0, 0.0
            for e in (a, b):
                for i in range(replicas[e]):
                    d = where[e, i] // per_device
                    known = e == b and _holds(slot_expert, d, per_device, int(a))
                    if not known:
                        touched[count] = d
                        count += 1
            if not swap and not _holds(slot_expert, here, per_device, int(b)):
                touched[count] = here
                count += 1
            for i in range(count):
                d = touched[i]
                saved[i] = price[d]
                price[d] = device_price(
                    d, per_device, columns, slot_expert, held, replicas, demand, lacking, pairs,
                    most, overload_price, tree, part,
                )  # fmt: skip
                delta += price[d] - saved[i]
            allowed = -temperature * np.log(accept_draw[x])
            # At best the move ends the shortfall: where even that is too little, no flow is needed.
            if delta - shortfall_price * short <= allowed:
                flow_before[:], load_before[:], left_before[:] = flow, load, left
                load[here] -= flow[s]
                left[a] += flow[s]
                flow[s] = 0.0
                if swap:
                    load[there] -= flow[t]
                    left[b] += flow[t]
                    flow[t] = 0.0
                after = augment(
                    slot_expert, where, replicas, per_device, most, flow, load, left, queue,
                    expert_via, device_via,
                )  # fmt: skip
                delta += shortfall_price * (after - short)
                if delta <= allowed:
                    total += delta
                    new += change
                    short = after
                    if total < best - 1e-9:
                        best = total
                        best_state[:] = slot_expert
                    break
                flow[:], load[:], left[:] = flow_before, load_before, left_before
            for i in range(count):
                price[touched[i]] = saved[i]
    slot_expert[:] = best_state
    return float(best)


@kernel
def _holds(slot_expert: NDArray[np.int32], device: int, per_device: int, expert: int) -> bool:
    for s in range(device * per_device, (device + 1) * per_device):
        if slot_expert[s] == expert:
            return True
    return False


@kernel
def _hand(
    slot_expert: NDArray[np.int32],
    where: NDArray[np.int64],
    replicas: NDArray[np.int64],
    held: NDArray[np.int64],
    slot: int,
    expert: int,
    row: int,
) -> None:
    """Give a slot of the row another expert, in all tables."""
    old = slot_expert[slot]
    slot_expert[slot] = expert
    held[row, old] -= 1
    held[row, expert] += 1
    i = 0
    while where[old, i] != slot:
        i += 1
    replicas[old] -= 1
    where[old, i] = where[old, replicas[old]]
    where[expert, replicas[expert]] = slot
    replicas[expert] += 1
