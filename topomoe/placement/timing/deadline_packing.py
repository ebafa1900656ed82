"""Experts packed whole, or split where they must be, so that every device meets a deadline.

Units as in ``piece_cost``: a piece of x tokens takes max(x, knee) of its device's time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.placement.timing.piece_cost import plain_cost
from topomoe.topologies.kernel import kernel

_HALVINGS = 12  # of the interval of deadlines


@kernel
def pack_by_deadline(
    tokens: NDArray[np.float64],  # [E], expected
    order: NDArray[np.int64],  # [E], from the heaviest expert down
    poured: int,
    knee: float,
    low: float,  # no deadline below is met
    high: float,
    devices: int,
    expert: NDArray[np.int32],  # [S], written; -1 where a slot has no piece
    share: NDArray[np.float64],  # [S], written
) -> bool:
    """Fill expert and share with a packing for the least deadline found; False if ``high`` fails.

    With ``poured`` = 0, best fit from the heaviest expert down: each to the device with the least
    room that has enough; where none has, a part fills the device with the most room. Otherwise the
    others come first, each to the device with the most room, and leave a slot on every device,
    where the ``poured`` heaviest then fill what room there is. Only experts below two knees are
    split into pieces below one.
    """
    room = np.empty(devices)
    used = np.empty(devices, dtype=np.int64)
    if not _pack(tokens, order, poured, knee, high, room, used, expert, share):
        return False
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if _pack(tokens, order, poured, knee, middle, room, used, expert, share):
            high = middle
        else:
            low = middle
    return _pack(tokens, order, poured, knee, high, room, used, expert, share)


@kernel
def _pack(
    tokens: NDArray[np.float64],
    order: NDArray[np.int64],
    poured: int,
    knee: float,
    deadline: float,
    room: NDArray[np.float64],  # [N], time left
    used: NDArray[np.int64],  # [N], slots taken
    expert: NDArray[np.int32],
    share: NDArray[np.float64],
) -> bool:
    """Pack for one deadline; False where that fails."""
    devices = len(room)
    per_device = len(expert) // devices
    room[:] = deadline
    used[:] = 0
    expert[:] = -1
    share[:] = 0.0
    free = len(expert)
    for rank in range(len(order)):
        first = rank < len(order) - poured
        e = order[(rank + poured) % len(order)]
        usable = max(per_device - 1, 1) if first and poured > 0 else per_device
        left, held = tokens[e], 0.0
        while True:
            cost = plain_cost(left, knee)
            least, most = -1, -1
            for d in range(devices):
                if used[d] >= usable:
                    continue
                if used[d] > 0 and expert[d * per_device + used[d] - 1] == e:
                    continue
                if room[d] >= cost and (least < 0 or room[d] < room[least]):
                    least = d
                if most < 0 or room[d] > room[most]:
                    most = d
            whole = least >= 0
            d, part = least, left
            if first and poured > 0:
                d = most
                if not whole:
                    return False
            elif not whole:
                waiting = len(order) - rank - 1  # experts that still need a slot each
                if most < 0 or free - 1 <= waiting:
                    return False
                d = most
                if room[d] < knee:
                    return False
                part = min(room[d], left - knee if left >= 2.0 * knee else 0.5 * left)
            slot = d * per_device + used[d]
            expert[slot] = e
            share[slot] = 1.0 - held if whole else part / tokens[e]
            held += share[slot]
            left -= part
            used[d] += 1
            free -= 1
            room[d] -= plain_cost(part, knee)
            if whole:
                break
    return True
