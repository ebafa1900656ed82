"""Local search on the loads that slots put on devices in several domains at once.

A slot adds ``part[s, :D]`` to its device's load in the D domains, and ``part[s, D]`` to the
variance of that load in a domain not seen. The cost is the sum of (load + standard deviation) to
the power 16 over devices and domains: a smooth stand-in for the worst of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

Floats = NDArray[np.float64]
_LEAST_GAIN = 1e-9  # of the cost: what a step must lower it by, so that rounding cannot cycle


@kernel
def device_cost(loads: Floats) -> float:
    """Return the cost of a device of these loads and variance, [D + 1]."""
    last = loads.size - 1
    deviation = np.sqrt(max(loads[last], 0.0))
    total = 0.0
    for d in range(last):
        load = loads[d] + deviation
        square = load * load
        fourth = square * square
        eighth = fourth * fourth
        total += eighth * eighth
    return total


@kernel
def exchange_cost(loads: Floats, less: Floats, more: Floats) -> float:
    """Return the cost of a device that gives ``less`` and takes ``more``, all [D + 1]."""
    last = loads.size - 1
    deviation = np.sqrt(max(loads[last] - less[last] + more[last], 0.0))
    total = 0.0
    for d in range(last):
        load = loads[d] - less[d] + more[d] + deviation
        square = load * load
        fourth = square * square
        eighth = fourth * fourth
        total += eighth * eighth
    return total


@kernel
def shift_share(loads: Floats, load: Floats, each: float, was: float) -> None:
    """Change a device's ``loads`` [D + 1] as its share of an expert goes from ``was`` to ``each``.

    ``load`` [D + 1] are the expert's loads and its variance, which shares enter squared.
    """
    last = loads.size - 1
    for d in range(last):
        loads[d] += load[d] * (each - was)
    loads[last] += load[last] * (each * each - was * was)


@kernel
def swap_slots(
    slot_expert: NDArray[np.int32],  # [S], written
    part: Floats,  # [S, D + 1], what the slots add; the rows go with the experts; written
    devices: int,
    experts: int,
    sweeps: int,
) -> int:
    """Exchange pairs of slots while that lowers the cost; return how many were exchanged.

    In each sweep every slot takes its best exchange in turn; none puts an expert on a device
    twice.
    """
    slots, columns = part.shape
    per_device = slots // devices
    loads = np.zeros((devices, columns))
    held = np.zeros((devices, experts), dtype=np.bool_)
    for s in range(slots):
        held[s // per_device, slot_expert[s]] = True
        loads[s // per_device] += part[s]
    cost = np.array([device_cost(loads[n]) for n in range(devices)])
    kept = np.empty(columns)
    done = 0
    for _ in range(sweeps):
        before = done
        for i in range(slots):
            a, mine = i // per_device, slot_expert[i]
            best, partner = -_LEAST_GAIN * cost.sum(), -1
            for j in range(slots):
                b, theirs = j // per_device, slot_expert[j]
                if a == b or held[a, theirs] or held[b, mine]:
                    continue
                change = exchange_cost(loads[a], part[i], part[j]) - cost[a] - cost[b]
                if change >= best:  # the other device's new cost is >= 0
                    continue
                change += exchange_cost(loads[b], part[j], part[i])
                if change < best:
                    best, partner = change, j
            if partner < 0:
                continue
            j, b, theirs = partner, partner // per_device, slot_expert[partner]
            for d in range(columns):
                kept[d] = part[i, d]
                loads[a, d] += part[j, d] - kept[d]
                loads[b, d] += kept[d] - part[j, d]
                part[i, d] = part[j, d]
                part[j, d] = kept[d]
            held[a, mine], held[b, theirs] = False, False
            held[a, theirs], held[b, mine] = True, True
            slot_expert[i], slot_expert[j] = theirs, mine
            cost[a], cost[b] = device_cost(loads[a]), device_cost(loads[b])
            done += 1
        if done == before:
            break
    return done


@kernel
def change_replicas(
    slot_expert: NDArray[np.int32],  # [S], written
    load: Floats,  # [E, D + 1], the last column variances
    devices: int,
) -> int:
    """Give slots of replicated experts to other experts while that lowers the cost; even shares.

    One pass over the slots, each of which takes its best other expert; returns how many did.
    """
    slots = slot_expert.size
    experts, columns = load.shape
    per_device = slots // devices
    count = np.zeros(experts, dtype=np.int64)
    holder = np.empty((experts, devices), dtype=np.int64)
    held = np.zeros((devices, experts), dtype=np.bool_)
    for s in range(slots):
        expert, device = slot_expert[s], s // per_device
        holder[expert, count[expert]] = device
        held[device, expert] = True
        count[expert] += 1
    loads = np.zeros((devices, columns))
    for s in range(slots):
        shift_share(loads[s // per_device], load[slot_expert[s]], 1.0 / count[slot_expert[s]], 0.0)
    cost = np.array([device_cost(loads[n]) for n in range(devices)])
    without = np.empty((devices, columns))
    without_cost = np.empty(devices)
    row = np.empty(columns)
    done = 0
    for s in range(slots):
        mine, here = slot_expert[s], s // per_device
        if count[mine] < 2:
            continue
        # What is left where this slot's expert is, once this replica is gone.
        gain = 0.0
        for h in range(count[mine]):
            n = holder[mine, h]
            each = 0.0 if n == here else 1.0 / (count[mine] - 1)
            without[n] = loads[n]
            shift_share(without[n], load[mine], each, 1.0 / count[mine])
            without_cost[n] = device_cost(without[n])
            gain += without_cost[n] - cost[n]
        best, taken = -_LEAST_GAIN * cost.sum(), -1
        for other in range(experts):
            if held[here, other]:
                continue
            each, was = 1.0 / (count[other] + 1), 1.0 / count[other]
            change = gain - without_cost[here]
            row[:] = without[here]
            shift_share(row, load[other], each, 0.0)
            change += device_cost(row)
            for h in range(count[other]):
                if change >= best + cost.sum():
                    break
                n = holder[other, h]
                if held[n, mine]:
                    row[:] = without[n]
                    shift_share(row, load[other], each, was)
                    change += device_cost(row) - without_cost[n]
                else:
                    row[:] = loads[n]
                    shift_share(row, load[other], each, was)
                    change += device_cost(row) - cost[n]
            if change < best:
                best, taken = change, other
        if taken < 0:
            continue
        position = 0
        for h in range(count[mine]):
            if holder[mine, h] != here:
                holder[mine, position] = holder[mine, h]
                position += 1
        for h in range(count[mine] - 1):
            n = holder[mine, h]
            shift_share(loads[n], load[mine], 1.0 / (count[mine] - 1), 1.0 / count[mine])
            cost[n] = device_cost(loads[n])
        shift_share(loads[here], load[mine], 0.0, 1.0 / count[mine])
        shift_share(loads[here], load[taken], 1.0 / (count[taken] + 1), 0.0)
        for h in range(count[taken]):
            n = holder[taken, h]
            shift_share(loads[n], load[taken], 1.0 / (count[taken] + 1), 1.0 / count[taken])
            cost[n] = device_cost(loads[n])
        cost[here] = device_cost(loads[here])
        count[mine] -= 1
        holder[taken, count[taken]] = here
        count[taken] += 1
        held[here, mine], held[here, taken] = False, True
        slot_expert[s] = taken
        done += 1
    return done


@kernel
def spread(
    slot_expert: NDArray[np.int32],  # [S]
    load: Floats,  # [E, D]
    part: Floats,  # [S, D], written: where the last call left it, or even shares
    devices: int,
    sweeps: int,
) -> None:
    """Re-divide each expert's load over its slots, domain by domain, so that devices level.

    Each expert in turn fills up its least loaded devices. This lowers the sum of squares of the
    device loads, whose minimum also has the lowest maximum (Harvey, Ladner, Lovasz and Tamir 2006,
    "Semi-matchings for bipartite graphs and load balancing", for whole units).
    """
    slots, domains = part.shape
    experts = load.shape[0]
    per_device = slots // devices
    count = np.zeros(experts, dtype=np.int64)
    for expert in slot_expert:
        count[expert] += 1
    first = np.zeros(experts + 1, dtype=np.int64)
    first[1:] = np.cumsum(count)
    order = np.argsort(slot_expert, kind="mergesort")
    loads = np.zeros((devices, domains))
    for s in range(slots):
        loads[s // per_device] += part[s]
    rest = np.empty(slots)
    for _ in range(sweeps):
        for expert in range(experts):
            if count[expert] < 2:
                continue
            mine = order[first[expert] : first[expert + 1]]
            for d in range(domains):
                for h in range(mine.size):
                    rest[h] = loads[mine[h] // per_device, d] - part[mine[h], d]
                levels = np.sort(rest[: mine.size])
                total, level = load[expert, d], 0.0
                for h in range(mine.size):
                    total += levels[h]
                    level = total / (h + 1)
                    if h + 1 == mine.size or level <= levels[h + 1]:
                        break
                for h in range(mine.size):
                    given = max(level - rest[h], 0.0)
                    part[mine[h], d] = given
                    loads[mine[h] // per_device, d] = rest[h] + given
