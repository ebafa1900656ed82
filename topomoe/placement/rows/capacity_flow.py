"""A maximum flow from experts to devices that is kept up to date while slots change hands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

NOTHING = 1e-9  # loads below this, against a device mean of 1, count as none


@kernel
def augment(
    slot_expert: NDArray[np.int32],  # [S]
    where: NDArray[np.int64],  # [E, N], the slots of each expert, the first replicas[e] in use
    replicas: NDArray[np.int64],  # [E]
    per_device: int,
    most: float,
    flow: NDArray[np.float64],  # [S], load that each slot takes; changed
    load: NDArray[np.float64],  # [N], of each device; changed
    left: NDArray[np.float64],  # [E], load that no slot takes; changed
    queue: NDArray[np.int64],  # [E], scratch
    expert_via: NDArray[np.int64],  # [E], scratch
    device_via: NDArray[np.int64],  # [N], scratch
) -> float:
    """Push what is left along shortest augmenting paths until none is; return what stays left.

    Edmonds and Karp (1972) on expert -> slot -> device, devices of capacity ``most``. What stays
    left no shares can place: the maximum flow is the minimum cut.
    """
    experts = left.size
    while True:
        filled, end = 0, -1
        device_via[:] = -1
        for e in range(experts):
            expert_via[e] = -2
            if left[e] > NOTHING:
                expert_via[e] = -1
                queue[filled] = e
                filled += 1
        head = 0
        while head < filled and end < 0:
            e = queue[head]
            head += 1
            for i in range(replicas[e]):
                s = where[e, i]
                d = s // per_device
                if device_via[d] >= 0:
                    continue
                device_via[d] = s
                if load[d] < most - NOTHING:
                    end = d
                    break
                for other in range(d * per_device, (d + 1) * per_device):
                    o = slot_expert[other]
                    if expert_via[o] == -2 and flow[other] > NOTHING:
                        expert_via[o] = other
                        queue[filled] = o
                        filled += 1
        if end < 0:
            break
        amount = most - load[end]
        e = slot_expert[device_via[end]]
        while expert_via[e] >= 0:
            amount = min(amount, flow[expert_via[e]])
            e = slot_expert[device_via[expert_via[e] // per_device]]
        amount = min(amount, left[e])
        load[end] += amount
        s = device_via[end]
        flow[s] += amount
        e = slot_expert[s]
        while expert_via[e] >= 0:
            flow[expert_via[e]] -= amount
            s = device_via[expert_via[e] // per_device]
            flow[s] += amount
            e = slot_expert[s]
        left[e] -= amount
    total = 0.0
    for e in range(experts):
        total += left[e] if left[e] > NOTHING else 0.0
    return total
