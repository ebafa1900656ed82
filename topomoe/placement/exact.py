"""Equal device loads by weighted shares: Walker's alias method with S/N slots a device.

Scale loads so that the device mean is 1 and write s = S/N. Source: A. J. Walker (1977), "An
efficient method for generating discrete random variables with general distributions", where s = 2;
the two theorems below extend it to any s and to fewer slots.

**Theorem 1.** With s >= 2 and S >= E + N - 1, every load has a placement under which all devices
have load 1.

Proof. Pad the experts with items of load 0 to N(s-1) + 1 = S - N + 1 >= E items. By induction on
n, the devices left, there are n(s-1) + 1 items of total n. Let the heaviest have load M. The other
n(s-1) make n groups of s-1, of mean total (n - M)/n <= 1, so the s-1 smallest sum to at most 1.
Let W be the sum of the s-1 largest of them. The (n-1)(s-1) remaining items make n-1 groups of at
most W each, so n <= M + W + (n-1)W <= n(M + W): W >= 1 - M. Slide a window of s-1 items over the
others, sorted, from the smallest to the largest: a step changes the sum by a difference of two
loads, at most M. So the first window to reach 1 - M has a sum w <= 1. Put its items on a device
whole, complete it with 1 - w <= M of the heaviest, and keep the remainder as an item, even at 0:
(n-1)(s-1) + 1 items of total n-1 are left. At n = 1 the s items left have total 1. QED.

A device takes distinct items, thus distinct experts. An item of padding is a slot left over: it
holds a replica of share 0 of an expert that its device lacks, the one of largest load per replica.

**Theorem 2.** For any s and S, the lowest maximum load over all placements with shares is the
minimum, over all partitions of devices and experts into groups of n_g devices and at most
n_g(s-1) + 1 experts, of the largest group mean (load of its experts)/n_g.

Proof. Join a device and an expert where a slot holds the one on the other. A connected component
of n devices and e experts has at most n s joins and at least n + e - 1, so e <= n(s-1) + 1, and
one of its devices carries at least its mean: components are such a partition. Conversely theorem 1
balances each group by itself (with s = 1, one expert shared evenly). QED.

As E <= N(s-1) + (number of groups), fewer than E + N - 1 slots force at least E + N - S groups,
and what is left is bin packing: ``grouping`` searches for groups, and ``certificate`` says how far
from a proven bound the result is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.grouping import group_experts
from topomoe.placement.problem import PlacementProblem, Slots
from topomoe.topologies.kernel import kernel


def assign(problem: PlacementProblem) -> Slots:
    """Return weighted shares under which every device has the mean load, if S >= E + N - 1.

    With fewer slots, every device has the mean load of its group of devices, for the best groups
    found (theorem 2 above).
    """
    load = problem.load / problem.load.max(axis=1, keepdims=True)
    load *= problem.num_devices / load.sum(axis=1, keepdims=True)
    order = np.argsort(load, axis=1, kind="stable")
    shape = (problem.num_layers, problem.num_slots)
    slot_expert = np.empty(shape, dtype=np.int32)
    slot_share = np.empty(shape)
    groups = problem.num_experts + problem.num_devices - problem.num_slots
    if groups <= 1:
        group = np.zeros(load.shape, dtype=np.int64)
        size = np.full((problem.num_layers, 1), problem.num_devices, dtype=np.int64)
    else:
        group, size = group_experts(load, problem.num_devices, problem.num_slots)
    _balance(load, order, group, size, problem.slots_per_device, slot_expert, slot_share)
    return slot_expert, slot_share


@kernel
def _balance(
    load: NDArray[np.float64],  # [M, E], device mean 1
    order: NDArray[np.int64],  # [M, E], experts by ascending load
    group: NDArray[np.int64],  # [M, E], group of each expert
    size: NDArray[np.int64],  # [M, G], devices of each group
    per_device: int,
    slot_expert: NDArray[np.int32],  # [M, S], written
    slot_share: NDArray[np.float64],  # [M, S], written
) -> None:
    """Balance each group of each layer within itself, groups on consecutive devices."""
    layers, slots = slot_expert.shape
    experts = load.shape[1]
    amount = np.empty(slots + 1)
    item = np.empty(slots + 1, dtype=np.int32)
    share_left = np.empty(experts)
    for layer in range(layers):
        share_left[:] = 1.0
        slot = 0
        for g in range(size.shape[1]):
            total, real = 0.0, 0
            for expert in range(experts):
                if group[layer, expert] == g:
                    total += load[layer, expert]
                    real += 1
            unit = total / size[layer, g] if total > 0 else 1.0
            items = size[layer, g] * (per_device - 1) + 1
            padding = items - real
            amount[:padding] = 0.0
            item[:padding] = -1
            at = padding
            for expert in order[layer]:
                if group[layer, expert] == g:
                    amount[at], item[at] = load[layer, expert] / unit, expert
                    at += 1
            end = slot + size[layer, g] * per_device
            _alias(
                amount,
                item,
                items,
                per_device,
                unit,
                load[layer],
                share_left,
                slot_expert[layer, slot:end],
                slot_share[layer, slot:end],
            )
            slot = end
        fill_slots(load[layer], per_device, slot_expert[layer], slot_share[layer])


@kernel
def _alias(
    amount: NDArray[np.float64],  # loads of the items, ascending, the group's device mean 1
    item: NDArray[np.int32],  # their experts; -1 for padding
    items: int,
    per_device: int,
    unit: float,  # the group's device mean
    load: NDArray[np.float64],  # [E]
    share_left: NDArray[np.float64],  # [E], the part of each expert not yet on a device
    slot_expert: NDArray[np.int32],  # the group's slots, written
    slot_share: NDArray[np.float64],
) -> None:
    """Run theorem 1 on one group: a device a turn, the heaviest item in the last of its slots."""
    window = per_device - 1
    slot = 0
    while slot + per_device < slot_share.size:
        heaviest, most = item[items - 1], amount[items - 1]
        # The first window with a sum of 1 - M or more; rounding alone can leave the last one short.
        low, high = 0, items - per_device
        while low < high:
            middle = (low + high) // 2
            if amount[middle : middle + window].sum() >= 1.0 - most:
                high = middle
            else:
                low = middle + 1
        whole = amount[low : low + window].sum()
        for position in range(low, low + window):
            expert = item[position]
            slot_expert[slot] = expert
            slot_share[slot] = 0.0
            if expert >= 0:
                slot_share[slot] = share_left[expert]
                share_left[expert] = 0.0
            slot += 1
        taken = min(max(1.0 - whole, 0.0), most)
        rest = most - taken
        share = 0.0
        if rest == 0.0:
            share = share_left[heaviest]
        elif load[heaviest] > 0.0:
            share = min(taken * unit / load[heaviest], share_left[heaviest])
        slot_expert[slot], slot_share[slot] = heaviest, share
        share_left[heaviest] -= share
        slot += 1

        # Close the gap of the window, then put the remainder where it sorts.
        last = items - 1 - window
        for position in range(low, last):
            amount[position] = amount[position + window]
            item[position] = item[position + window]
        position = last
        while position > 0 and amount[position - 1] > rest:
            amount[position] = amount[position - 1]
            item[position] = item[position - 1]
            position -= 1
        amount[position], item[position] = rest, heaviest
        items = last + 1
    for position in range(items):
        expert = item[position]
        slot_expert[slot] = expert
        slot_share[slot] = 0.0
        if expert >= 0:
            slot_share[slot] = share_left[expert]
        slot += 1


@kernel
def fill_slots(
    load: NDArray[np.float64],  # [E]
    per_device: int,
    slot_expert: NDArray[np.int32],  # [S], -1 where a slot is left over; written
    slot_share: NDArray[np.float64],  # [S]
) -> None:
    """Give each slot left over the expert of largest load per replica that its device lacks."""
    count = np.zeros(load.size)
    for expert in slot_expert:
        if expert >= 0:
            count[expert] += 1
    for slot in range(slot_expert.size):
        if slot_expert[slot] >= 0:
            continue
        first = slot - slot % per_device
        best, highest = -1, -1.0
        for expert in range(load.size):
            if load[expert] > highest * count[expert]:
                for held in slot_expert[first : first + per_device]:
                    if held == expert:
                        break
                else:
                    best, highest = expert, load[expert] / count[expert]
        slot_expert[slot], slot_share[slot] = best, 0.0
        count[best] += 1
