"""A capacity per expert: what comes too late is dropped, or goes to the next expert with room."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel

DROPPED = np.uint16(65535)  # instead of an expert id: beyond every model's, and what -1 becomes


@kernel
def limit_experts(
    picks: NDArray[np.uint16],
    count: NDArray[np.int64],
    top_k: int,
    num_experts: int,
    capacity: int,
    reroute: bool,
) -> tuple[int, int]:
    """Keep every expert's load within its capacity, first come in batch order.

    picks [T, >= K] and count [>= E] are changed; the first K columns and E experts count, so that
    a routed shared expert is never dropped. Tokens come in the order of the batch, the picks of a
    token in the order of the trace. With ``reroute`` a pair goes to the next id (cyclic) that has
    room and that the token has not got: a trace records no more than the top K, so that the true
    next choice is not known. Returns the dropped and the re-routed pairs.
    """
    dropped, rerouted = 0, 0
    fits = True
    for e in range(num_experts):
        fits &= count[e] <= capacity
    if fits:
        return dropped, rerouted
    taken = np.zeros(num_experts, dtype=np.int64)
    for t in range(len(picks)):
        for k in range(top_k):
            if picks[t, k] == DROPPED:  # the token has no expert there
                continue
            expert = int(picks[t, k])
            if taken[expert] >= capacity:
                found = -1
                if reroute:
                    for step in range(1, num_experts):
                        other = (expert + step) % num_experts
                        if taken[other] >= capacity:
                            continue
                        has = False
                        for j in range(top_k):
                            has |= int(picks[t, j]) == other
                        if not has:
                            found = other
                            break
                if found < 0:
                    picks[t, k] = DROPPED
                    dropped += 1
                    continue
                picks[t, k] = found
                rerouted += 1
                expert = found
            taken[expert] += 1
    count[:num_experts] = taken
    return dropped, rerouted
