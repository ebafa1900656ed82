"""Groups of devices and experts for the exact method where slots are too few for one group.

The problem is theorem 2 of ``exact``: with G = E + N - S groups of n_g devices (sum N) and exactly
n_g(S/N - 1) + 1 experts each, lower the largest group mean. It contains number partitioning, so it
is searched: two starts, each packed greedily from the heaviest expert down and then improved by
swaps. The better of the two is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel


def group_experts(
    load: NDArray[np.float64], num_devices: int, num_slots: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the group [M, E] of each expert and the devices [M, G] of each group."""
    groups = load.shape[1] + num_devices - num_slots
    group = np.empty(load.shape, dtype=np.int64)
    size = np.empty((len(load), groups), dtype=np.int64)
    order = np.argsort(-load, axis=1, kind="stable")
    _search(load, order, num_devices, num_slots // num_devices, group, size)
    return group, size


@kernel
def _search(
    load: NDArray[np.float64],  # [M, E]
    order: NDArray[np.int64],  # [M, E], experts by descending load
    devices: int,
    per_device: int,
    group: NDArray[np.int64],  # [M, E], written
    size: NDArray[np.int64],  # [M, G], written
) -> None:
    layers, experts = load.shape
    groups = size.shape[1]
    surplus = devices - groups
    trial_group = np.empty(experts, dtype=np.int64)
    trial_size = np.empty(groups, dtype=np.int64)
    mean = np.empty(experts)
    for layer in range(layers):
        best = np.inf
        for start in range(2 if surplus else 1):
            # Sizes: the surplus devices to the G heaviest experts by load per device, or all of
            # them to one group that takes in whatever the single devices cannot.
            trial_size[:] = 1
            if start == 0:
                mean[:] = -1.0
                for expert in order[layer, :groups]:
                    mean[expert] = load[layer, expert]
                used = np.ones(experts, dtype=np.int64)
                for _ in range(surplus):
                    hottest = int(np.argmax(mean))
                    used[hottest] += 1
                    mean[hottest] = load[layer, hottest] / used[hottest]
                core = 0
                for expert in order[layer]:
                    if used[expert] > 1:
                        trial_size[core] = used[expert]
                        core += 1
            else:
                trial_size[0] += surplus
            _pack(load[layer], order[layer], per_device, trial_group, trial_size)
            highest = _improve(load[layer], trial_group, trial_size)
            if highest < best:
                best = highest
                group[layer] = trial_group
                size[layer] = trial_size


@kernel
def _pack(
    load: NDArray[np.float64],
    order: NDArray[np.int64],
    per_device: int,
    group: NDArray[np.int64],  # written
    size: NDArray[np.int64],
) -> None:
    """Put experts, the heaviest first, into the group of least mean after it that has room."""
    total = np.zeros(size.size)
    room = size * (per_device - 1) + 1
    for expert in order:
        best, lowest = -1, np.inf
        for g in range(size.size):
            after = (total[g] + load[expert]) / size[g]
            if room[g] > 0 and after < lowest:
                best, lowest = g, after
        group[expert] = best
        total[best] += load[expert]
        room[best] -= 1


@kernel
def _improve(load: NDArray[np.float64], group: NDArray[np.int64], size: NDArray[np.int64]) -> float:
    """Swap experts out of the group of largest mean while that lowers it; return that mean."""
    experts = load.size
    total = np.zeros(size.size)
    for expert in range(experts):
        total[group[expert]] += load[expert]
    while True:
        worst = int(np.argmax(total / size))
        highest = total[worst] / size[worst]
        best, give, take = highest * (1.0 - 1e-12), -1, -1
        for a in range(experts):
            if group[a] != worst:
                continue
            for b in range(experts):
                g, change = group[b], load[a] - load[b]
                if g == worst or change <= 0.0:
                    continue
                after = max((total[worst] - change) / size[worst], (total[g] + change) / size[g])
                if after < best:
                    best, give, take = after, a, b
        if give < 0:
            return float(highest)
        change = load[give] - load[take]
        total[worst] -= change
        total[group[take]] += change
        group[give], group[take] = group[take], group[give]
