"""The next expert copies to move: one slot takes another expert, or two slots exchange theirs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.shift.robust_kernel import spread
from topomoe.topologies.kernel import kernel

Floats = NDArray[np.float64]
_DONORS = 8  # slots of the most loaded devices whose experts are tried elsewhere
_TAKERS = 8  # least loaded devices they are tried on
_SWEEPS = 8  # of levelling, to judge a trial
_SETTLE = 100  # of levelling, before the next step
_LEAST_GAIN = 1e-6


@kernel
def _height(part: Floats, devices: int) -> float:
    """Return the sum of device loads (mean 1) to the power 16, less what equal loads have."""
    per_device = part.shape[0] // devices
    total = 0.0
    for n in range(devices):
        load = part[n * per_device : (n + 1) * per_device, 0].sum()
        square = load * load
        fourth = square * square
        total += fourth * fourth * fourth * fourth
    return total - devices


@kernel
def _replace(
    slot_expert: NDArray[np.int32], part: Floats, load: Floats, slot: int, expert: int
) -> None:
    """Put ``expert`` in ``slot``; what the slot carried goes to its expert's next other slot."""
    before = slot_expert[slot]
    for s in range(slot_expert.size):
        if s != slot and slot_expert[s] == before:
            part[s, 0] += part[slot, 0]
            break
    slot_expert[slot] = expert
    part[slot, 0] = 0.0


@kernel
def plan_moves(
    slot_expert: NDArray[np.int32],  # [S], the slots served so far
    load: Floats,  # [E, 1], device mean 1
    devices: int,
    limit: int,
    path: NDArray[np.int32],  # [limit + 1, S], written: the slots after each step
    cost: NDArray[np.int64],  # [limit + 1], written: copies newly placed up to there
) -> int:
    """Write the slots after each step of steepest descent; return the number of steps.

    A step is judged after shares were levelled again, by its gain a copy. It takes the expert of a
    slot on the most loaded devices to one of the least loaded, in a slot whose expert has others,
    or exchanges the two, which is two copies.
    """
    slots, experts = slot_expert.size, load.shape[0]
    per_device = slots // devices
    now = slot_expert.copy()
    count = np.bincount(now, minlength=experts)
    part = np.empty((slots, 1))
    for s in range(slots):
        part[s, 0] = load[now[s], 0] / count[now[s]]
    trial_slots, trial_part = now.copy(), part.copy()
    path[0], cost[0] = now, 0
    steps = 0
    while cost[steps] < limit:
        spread(now, load, part, devices, _SETTLE)
        height = _height(part, devices)
        loads = part.reshape(devices, per_device).sum(axis=1)
        by_load = np.argsort(loads, kind="mergesort")
        carried = np.empty(slots)
        for s in range(slots):
            high = loads[s // per_device] >= loads.max() * (1.0 - 1e-3)
            carried[s] = part[s, 0] if high else -1.0
        donors = np.argsort(-carried, kind="mergesort")[: min(_DONORS, slots)]
        best, best_slot, best_other, copies = _LEAST_GAIN * (height + 1e-9), -1, -1, 0
        for donor in donors:
            expert, source = now[donor], donor // per_device
            if carried[donor] <= 0.0:
                continue
            for taker in by_load[: min(_TAKERS, devices)]:
                if taker == source:
                    continue
                spare, least, known = -1, np.inf, False
                for s in range(taker * per_device, (taker + 1) * per_device):
                    known = known or now[s] == expert
                    if count[now[s]] > 1 and part[s, 0] < least:
                        spare, least = s, part[s, 0]
                if known:
                    continue
                if spare >= 0:
                    trial_slots[:] = now
                    trial_part[:] = part
                    _replace(trial_slots, trial_part, load, spare, expert)
                    spread(trial_slots, load, trial_part, devices, _SWEEPS)
                    gain = height - _height(trial_part, devices)
                    if gain > best:
                        best, best_slot, best_other, copies = gain, spare, donor, 1
                if limit - cost[steps] < 2:
                    continue
                # The lightest slot there whose expert the source lacks comes back in exchange.
                other, least = -1, np.inf
                for s in range(taker * per_device, (taker + 1) * per_device):
                    if part[s, 0] < least:
                        at_home = False
                        for t in range(source * per_device, (source + 1) * per_device):
                            at_home = at_home or now[t] == now[s]
                        if not at_home:
                            other, least = s, part[s, 0]
                if other < 0 or part[other, 0] >= part[donor, 0]:
                    continue
                trial_slots[:] = now
                trial_part[:] = part
                trial_slots[donor], trial_slots[other] = now[other], expert
                trial_part[donor, 0], trial_part[other, 0] = part[other, 0], part[donor, 0]
                spread(trial_slots, load, trial_part, devices, _SWEEPS)
                gain = (height - _height(trial_part, devices)) / 2.0
                if gain > best:
                    best, best_slot, best_other, copies = gain, other, donor, 2
        if best_slot < 0:
            break
        if copies == 1:
            count[now[best_slot]] -= 1
            count[now[best_other]] += 1
            _replace(now, part, load, best_slot, now[best_other])
        else:
            now[best_slot], now[best_other] = now[best_other], now[best_slot]
            kept = part[best_slot, 0]
            part[best_slot, 0], part[best_other, 0] = part[best_other, 0], kept
        steps += 1
        path[steps], cost[steps] = now, cost[steps - 1] + copies
    return steps
