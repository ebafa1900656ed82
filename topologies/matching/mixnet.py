"""The greedy of MixNet: circuit after circuit to the pair that would finish last.

Liao et al., "MixNet: A Runtime Reconfigurable Optical-Electrical Fabric for Distributed
Mixture-of-Experts Training", SIGCOMM 2025, Algorithm 1.
"""

from __future__ import annotations

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.topology import FloatArray, IntArray


def mixnet(
    demand: FloatArray,
    degree: int,
    bidirectional: bool = False,
    base: float = 0.0,
    as_printed: bool = False,
) -> IntArray:
    """Return circuits [X, 2]: each in turn to the pair with the largest completion time.

    demand [N, N] bytes. The completion time is T = D / C, with D the pair's demand and C its
    circuits so far, plus ``base``: how many circuits the electrical base is worth to a pair. With
    C = 0 it is infinite: such pairs come first, the largest demand before the others. A pair may
    get several circuits. ``bidirectional`` sums what a pair sends both ways, as the paper does.

    As printed, the algorithm ends as soon as the slowest pair has no free port, which on dense
    demand leaves most ports of the other devices dark (``as_printed``). Here exhausted devices are
    skipped, and the greedy ends when no pair with demand has a free port at both ends.
    """
    if not 0 <= base < np.inf:
        raise InputError(f"mixnet: base must be finite and >= 0, got {base}")
    weight = np.triu(demand + demand.T) if bidirectional else demand
    lit = np.zeros(weight.shape)
    free_out = np.full(len(weight), degree)
    # A port that works both ways is one count; else transmit and receive ports are two.
    free_in = free_out if bidirectional else free_out.copy()
    chosen: list[tuple[int, int]] = []
    while True:
        open_pair = (free_out > 0)[:, None] & (free_in > 0)[None] & (weight > 0)
        candidate = weight > 0 if as_printed else open_pair
        unserved = candidate & (lit + base == 0)
        if unserved.any():
            time = np.where(unserved, weight, 0.0)
        else:
            time = np.divide(weight, lit + base, out=np.zeros_like(weight), where=candidate)
        pair = np.unravel_index(int(np.argmax(time)), time.shape)
        if not open_pair[pair]:
            break
        tail, head = int(pair[0]), int(pair[1])
        lit[pair] += 1
        free_out[tail] -= 1
        free_in[head] -= 1
        chosen.append((tail, head))
    circuits = np.array(chosen, dtype=np.int64).reshape(-1, 2)
    return np.concatenate([circuits, circuits[:, ::-1]]) if bidirectional else circuits
