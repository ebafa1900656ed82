"""The assignment of one batch's tokens to replicas that minimises the largest device load, exactly.

An expert's tokens may go to any device that holds it; a batch gives whole counts per expert. Under
a cap on every device's load this is a flow from experts over slots to devices, and whole capacities
have whole flows. The solver starts from any assignment and the least cap that the mean and each
single device allow. It pushes tokens in bulk from devices above the cap to devices below it, along
shortest paths (Dinic 1970). Where that no longer helps, the devices X still reached from those
above the cap hold experts that have no replica outside X: whatever the assignment, one of X carries
at least ceil(load(X) / |X|). That is the next cap (Newton's step for a ratio, Dinkelbach 1967), and
the present flow is kept. The last X proves the optimum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

IntArray = NDArray[np.int64]


@kernel
def by_device(device: IntArray, num_devices: int) -> tuple[IntArray, IntArray]:
    """Return the replicas [X] of each device, one device after another, and their starts [N+1]."""
    start = np.zeros(num_devices + 1, dtype=np.int64)
    for d in device:
        start[d + 1] += 1
    for d in range(num_devices):
        start[d + 1] += start[d]
    at = start[:-1].copy()
    replica = np.empty(len(device), dtype=np.int64)
    for x in range(len(device)):
        replica[at[device[x]]] = x
        at[device[x]] += 1
    return replica, start


@kernel
def device_sums(quota: IntArray, device: IntArray, num_devices: int) -> IntArray:
    """Return the load [N] of each device."""
    load = np.zeros(num_devices, dtype=np.int64)
    for x in range(len(quota)):
        load[device[x]] += quota[x]
    return load


@kernel
def _levels(
    cap: int,
    quota: IntArray,
    lower: IntArray,
    load: IntArray,
    start: IntArray,
    device: IntArray,
    expert: IntArray,
    held: IntArray,
    held_start: IntArray,
    device_level: IntArray,
    expert_level: IntArray,
    queue: IntArray,
) -> bool:
    """Fill distances from the devices above the cap; whether one below it is reached."""
    device_level[:] = -1
    expert_level[:] = -1
    tail = 0
    for d in range(len(load)):
        if load[d] > cap:
            device_level[d] = 0
            queue[tail] = d
            tail += 1
    found = False
    head = 0
    while head < tail:
        d = queue[head]
        head += 1
        for i in range(held_start[d], held_start[d + 1]):
            x = held[i]
            e = expert[x]
            if expert_level[e] >= 0 or quota[x] <= lower[x]:
                continue
            expert_level[e] = device_level[d]
            for y in range(start[e], start[e + 1]):
                other = device[y]
                if device_level[other] < 0:
                    device_level[other] = device_level[d] + 1
                    queue[tail] = other
                    tail += 1
                    if load[other] < cap:
                        found = True
    return found


@kernel
def _push(
    cap: int,
    quota: IntArray,
    lower: IntArray,
    load: IntArray,
    start: IntArray,
    device: IntArray,
    expert: IntArray,
    held: IntArray,
    held_start: IntArray,
    device_level: IntArray,
    expert_level: IntArray,
    device_at: IntArray,
    expert_at: IntArray,
    leave: IntArray,
    enter: IntArray,
) -> None:
    """Move tokens along all shortest paths of these levels, as many as fit at a time."""
    num_devices = len(load)
    device_at[:] = held_start[:num_devices]
    expert_at[:] = start[: len(expert_at)]
    for source in range(num_devices):
        if load[source] <= cap:
            continue
        depth = 0
        d = source
        while True:
            if load[d] < cap:
                amount = min(load[source] - cap, cap - load[d])
                for i in range(depth):
                    amount = min(amount, quota[leave[i]] - lower[leave[i]])
                full = depth
                for i in range(depth - 1, -1, -1):
                    quota[leave[i]] -= amount
                    quota[enter[i]] += amount
                    if quota[leave[i]] == lower[leave[i]]:
                        full = i
                load[source] -= amount
                load[d] += amount
                if load[source] <= cap:
                    break
                if full < depth:
                    depth = full
                    d = device[leave[full]]
                continue
            advanced = False
            while device_at[d] < held_start[d + 1]:
                x = held[device_at[d]]
                e = expert[x]
                if expert_level[e] == device_level[d] and quota[x] > lower[x]:
                    while expert_at[e] < start[e + 1]:
                        other = device[expert_at[e]]
                        if device_level[other] == device_level[d] + 1:
                            break
                        expert_at[e] += 1
                    if expert_at[e] < start[e + 1]:
                        leave[depth] = x
                        enter[depth] = expert_at[e]
                        depth += 1
                        d = other
                        advanced = True
                        break
                device_at[d] += 1
            if advanced:
                continue
            if depth == 0:
                break
            device_level[d] = -1  # a dead end
            depth -= 1
            d = device[leave[depth]]


@kernel
def repair(
    cap: int,
    newton: bool,
    quota: IntArray,
    lower: IntArray,
    load: IntArray,
    start: IntArray,
    device: IntArray,
    proof: NDArray[np.bool_],
) -> int:
    """Move tokens in quota [X] until no device load [N] exceeds the cap; return the cap reached.

    A replica keeps at least lower [X]. Where the cap cannot be kept, ``newton`` raises it to what
    the devices still reached have to carry, with those in proof [N], and goes on; without it, what
    could be moved has been.
    """
    num_devices, num_experts = len(load), len(start) - 1
    expert = np.empty(len(quota), dtype=np.int64)
    for e in range(num_experts):
        expert[start[e] : start[e + 1]] = e
    held, held_start = by_device(device, num_devices)
    device_level = np.empty(num_devices, dtype=np.int64)
    expert_level = np.empty(num_experts, dtype=np.int64)
    device_at = np.empty(num_devices, dtype=np.int64)
    expert_at = np.empty(num_experts, dtype=np.int64)
    queue = np.empty(num_devices, dtype=np.int64)
    leave = np.empty(num_devices, dtype=np.int64)
    enter = np.empty(num_devices, dtype=np.int64)
    while True:
        while _levels(
            cap,
            quota,
            lower,
            load,
            start,
            device,
            expert,
            held,
            held_start,
            device_level,
            expert_level,
            queue,
        ):
            _push(
                cap,
                quota,
                lower,
                load,
                start,
                device,
                expert,
                held,
                held_start,
                device_level,
                expert_level,
                device_at,
                expert_at,
                leave,
                enter,
            )
        total, size = 0, 0
        for d in range(num_devices):
            if device_level[d] >= 0:
                total += load[d]
                size += 1
        if size == 0 or not newton:
            return cap
        cap = -(-total // size)
        for d in range(num_devices):
            proof[d] = device_level[d] >= 0


@kernel
def least_cap(
    quota: IntArray, start: IntArray, device: IntArray, num_devices: int, proof: NDArray[np.bool_]
) -> int:
    """Return the larger of the mean and what some device alone must carry, rounded up."""
    alone = np.zeros(num_devices, dtype=np.int64)
    total = 0
    for e in range(len(start) - 1):
        home = device[start[e]]
        count, confined = 0, True
        for x in range(start[e], start[e + 1]):
            count += quota[x]
            confined &= device[x] == home
        total += count
        if confined:
            alone[home] += count
    cap = -(-total // num_devices)
    proof[:] = True
    most = 0
    for d in range(num_devices):
        if alone[d] > alone[most]:
            most = d
    if alone[most] > cap:
        proof[:] = False
        proof[most] = True
        cap = alone[most]
    return cap


@kernel
def minimise_largest(
    quota: IntArray, start: IntArray, device: IntArray, num_devices: int, proof: NDArray[np.bool_]
) -> int:
    """Move tokens in quota [X] to the least largest device load; return it, its proof in [N].

    quota [X]: a first assignment, replica after replica by expert; start [E+1] into it, with at
    least one replica each; device [X].
    """
    cap = least_cap(quota, start, device, num_devices, proof)
    load = device_sums(quota, device, num_devices)
    return repair(cap, True, quota, np.zeros_like(quota), load, start, device, proof)


@kernel
def drop_slivers(
    cap: int, least: int, quota: IntArray, load: IntArray, start: IntArray, device: IntArray
) -> None:
    """Empty replicas of fewer than ``least`` tokens into others of the expert, within the cap.

    A replica with a token reads all its weights. An expert gives up its smallest replica first, to
    the serving one whose device has the most room.
    """
    for e in range(len(start) - 1):
        while start[e + 1] - start[e] > 1:
            least_x = -1
            for x in range(start[e], start[e + 1]):
                if 0 < quota[x] < least and (least_x < 0 or quota[x] < quota[least_x]):
                    least_x = x
            if least_x < 0:
                break
            to = -1
            for y in range(start[e], start[e + 1]):
                if y != least_x and quota[y] > 0 and (to < 0 or load[device[y]] < load[device[to]]):
                    to = y
            if to < 0 or load[device[to]] + quota[least_x] > cap:
                break
            amount = quota[least_x]
            load[device[least_x]] -= amount
            load[device[to]] += amount
            quota[to] += amount
            quota[least_x] = 0
