"""Max-min fair rates by progressive filling, refilled only above the lowest level that changes.

All rates rise together; a link that saturates fixes the rate of those of its flows that still rise
(Bertsekas and Gallager, Data Networks, 2nd ed., section 6.5.2). The flows that a link fixes are its
group and share one rate, the link's level. Kept from one filling to the next is what each group
uses of every link: as long as the links saturate in the same order, a filling is one short pass
over these rows and touches no flow. A flow that leaves changes nothing below the level that fixed
it, one that joins nothing below the level at which its own links would saturate: the steps above
are undone, those below stay.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topomoe.network.pairing_heap import Heap, empty_heap, meld, remove
from topomoe.topologies.kernel import kernel, nan_free_kernel
from topomoe.topologies.topology import FloatArray, IntArray

WAITING, DONE = -1, -2  # in place of a group
BLOCK = 32  # candidates of which the lowest is found at once


class Filling(NamedTuple):
    """The state: F flows over L links, the first of ``order`` saturated.

    A flow's path is links[ptr[f]:ptr[f+1]], of which its rate takes ``weight`` each. Weights are
    whole multiples of a power of two per link, so that their sums and differences are exact.
    """

    ptr: IntArray
    links: IntArray
    weight: FloatArray
    volume: FloatArray  # [F] bytes
    group: IntArray  # [F] the link that fixes the flow's rate, or WAITING or DONE
    heap: Heap  # [F] by link; the key is what ``sent`` of the group will be when the flow is done
    member_ptr: IntArray  # [L] where a link's flows begin in ``member``
    member: IntArray
    members: IntArray  # [L] how many were put there and not yet dropped
    left: FloatArray  # [L] capacity that the saturated links' groups leave
    rising: FloatArray  # [L] weight of the flows in no saturated link's group
    candidate: FloatArray  # [L, then infinity] the level at which a link would saturate next
    order: IntArray  # [L] saturated links, by level
    level: FloatArray  # [L] their levels, bytes/s
    position: IntArray  # [L] place in ``order``, -1 while not saturated
    root: IntArray  # [L] of the group's heap
    sent: FloatArray  # [L] bytes that a flow of the group has sent since the group began
    size: IntArray  # [L] flows in the group
    row: IntArray  # [L] the group's row of the arrays below, -1 for none
    spare: IntArray  # [L+1] rows not taken; the last entry counts them
    used: NDArray[np.int32]  # [rows, L] the links that the group uses, ``used_count`` of them
    use: FloatArray  # [rows, L] the group's summed weight on each of these
    before: FloatArray  # [rows, L] ``left`` of these before the group was fixed
    used_count: IntArray  # [rows]
    place: NDArray[np.int32]  # [rows, L] where a link is in ``used``, plus 1; 0 for nowhere


def empty_filling(
    capacity: FloatArray, ptr: IntArray, links: IntArray, weight: FloatArray, volume: FloatArray
) -> Filling:
    """Return the state without any flow under way."""
    count, flows = len(capacity), len(volume)
    member_ptr = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(links, minlength=count), out=member_ptr[1:])
    # Pages of the [rows, L] arrays that are never touched cost nothing: few links saturate at once.
    return Filling(
        ptr=ptr,
        links=links,
        weight=weight,
        volume=volume,
        group=np.full(flows, WAITING),
        heap=empty_heap(flows),
        member_ptr=member_ptr,
        member=np.zeros(len(links), dtype=np.int64),
        members=np.zeros(count, dtype=np.int64),
        left=capacity.copy(),
        rising=np.zeros(count),
        candidate=np.full(-(-count // BLOCK) * BLOCK, np.inf),
        order=np.zeros(count, dtype=np.int64),
        level=np.zeros(count),
        position=np.full(count, -1),
        root=np.full(count, -1),
        sent=np.zeros(count),
        size=np.zeros(count, dtype=np.int64),
        row=np.full(count, -1),
        spare=np.append(np.arange(count)[::-1], count),
        used=np.zeros((count, count), dtype=np.int32),
        use=np.zeros((count, count)),
        before=np.zeros((count, count)),
        used_count=np.zeros(count, dtype=np.int64),
        place=np.zeros((count, count), dtype=np.int32),
    )


@kernel
def undo(state: Filling, keep: int, saturated: int) -> int:
    """Take the filling back to its first ``keep`` saturated links; return keep."""
    for k in range(saturated - 1, keep - 1, -1):
        link = state.order[k]
        state.position[link] = -1
        row = state.row[link]
        use, used, before = state.use[row], state.used[row], state.before[row]
        for i in range(state.used_count[row]):
            state.left[used[i]] = before[i]
            state.rising[used[i]] += use[i]
    return keep


@kernel
def leave(state: Filling, flow: int) -> None:
    """Take a finished flow, already out of its group's heap, from a group that is not fixed."""
    _take_use(state, flow, state.group[flow])
    state.group[flow] = DONE
    for entry in range(state.ptr[flow], state.ptr[flow + 1]):
        state.rising[state.links[entry]] -= state.weight[entry]


@kernel
def join(state: Filling, flow: int, saturated: int) -> int:
    """Put a flow under way; return how many saturated links stay as they are."""
    begin, end = state.ptr[flow], state.ptr[flow + 1]
    keep = saturated
    for entry in range(begin, end):
        link = state.links[entry]
        if state.position[link] >= 0:
            keep = min(keep, state.position[link])
        state.rising[link] += state.weight[entry]
        state.member[state.member_ptr[link] + state.members[link]] = flow
        state.members[link] += 1
    undo(state, keep, saturated)
    fits = False
    while keep > 0 and not fits:
        # What a link has left at a level falls as the level rises: the first that fits, from above.
        fits = True
        level = state.level[keep - 1]
        for entry in range(begin, end):
            link = state.links[entry]
            if state.left[link] < level * state.rising[link]:
                fits = False
        if not fits:
            keep = undo(state, keep - 1, keep)
    return keep


@kernel
def refill(state: Filling, keep: int) -> int:
    """Fill anew above the first ``keep`` saturated links; return how many are saturated now."""
    _candidates(state.left, state.rising, state.candidate)
    k = keep
    while True:
        link = _lowest(state.candidate)
        if link < 0:
            return k
        level = state.candidate[link]
        if k > 0:  # links that saturate together differ by rounding
            level = max(level, state.level[k - 1])
        state.order[k], state.level[k], state.position[link] = link, level, k
        row = state.row[link]
        if row < 0 or state.use[row, state.place[row, link] - 1] != state.rising[link]:
            _gather(state, link)
            row = state.row[link]
        _fix(state, row, level)
        k += 1


@nan_free_kernel
def _candidates(left: FloatArray, rising: FloatArray, candidate: FloatArray) -> None:
    """Write at which level each link would saturate, infinity where nothing rises."""
    for link in range(len(left)):
        candidate[link] = left[link] / rising[link] if rising[link] > 0 else np.inf


@nan_free_kernel
def _lowest(candidate: FloatArray) -> int:
    """Return the link with the lowest candidate, -1 if all are infinite."""
    best, start = np.inf, -1
    for begin in range(0, len(candidate), BLOCK):
        lowest = np.inf
        for i in range(BLOCK):
            lowest = min(lowest, candidate[begin + i])
        if lowest < best:
            best, start = lowest, begin
    link = start
    if start >= 0:
        while candidate[link] != best:
            link += 1
    return link


@kernel
def _fix(state: Filling, row: int, level: float) -> None:
    """Fix a group's rate: take what it uses from every link."""
    use, used, before = state.use[row], state.used[row], state.before[row]
    left, rising, candidate = state.left, state.rising, state.candidate
    count = 0
    for i in range(state.used_count[row]):
        link, weight = used[i], use[i]
        if weight == 0:  # the flows that used it have gone
            state.place[row, link] = 0
            continue
        if count < i:
            used[count], use[count] = link, weight
            state.place[row, link] = count + 1
        before[count] = left[link]
        count += 1
        left[link] -= level * weight
        rising[link] -= weight
        candidate[link] = left[link] / rising[link] if rising[link] > 0 else np.inf
    state.used_count[row] = count


@kernel
def _gather(state: Filling, link: int) -> None:
    """Move every flow on the link that still rises into its group, and drop those that are done."""
    begin = state.member_ptr[link]
    end = begin + state.members[link]
    kept = begin
    for at in range(begin, end):
        flow = state.member[at]
        group = state.group[flow]
        if group == DONE:
            continue
        state.member[kept] = flow
        kept += 1
        if group == WAITING:
            _give(state, flow, link, state.volume[flow])
        elif group != link and state.position[group] < 0:
            remaining = state.heap.key[flow] - state.sent[group]
            state.root[group] = remove(state.heap, state.root[group], flow)
            _take_use(state, flow, group)
            _give(state, flow, link, remaining)
    state.members[link] = kept - begin


@kernel
def _give(state: Filling, flow: int, link: int, remaining: float) -> None:
    """Put a flow with so many bytes to go into the link's group."""
    if state.size[link] == 0:
        state.spare[-1] -= 1
        row = state.spare[state.spare[-1]]
        state.row[link] = row
        state.sent[link] = 0.0
    state.size[link] += 1
    state.group[flow] = link
    state.heap.key[flow] = state.sent[link] + remaining
    state.root[link] = meld(state.heap, state.root[link], flow)
    row = state.row[link]
    for entry in range(state.ptr[flow], state.ptr[flow + 1]):
        crossed = state.links[entry]
        if state.place[row, crossed] == 0:
            count = state.used_count[row]
            state.used[row, count], state.use[row, count] = crossed, 0.0
            state.used_count[row] = state.place[row, crossed] = count + 1
        state.use[row, state.place[row, crossed] - 1] += state.weight[entry]


@kernel
def _take_use(state: Filling, flow: int, link: int) -> None:
    """Take what a flow uses out of the link's group, and the group's row when it was the last."""
    row = state.row[link]
    for entry in range(state.ptr[flow], state.ptr[flow + 1]):
        state.use[row, state.place[row, state.links[entry]] - 1] -= state.weight[entry]
    state.size[link] -= 1
    if state.size[link] == 0:
        for i in range(state.used_count[row]):
            state.place[row, state.used[row, i]] = 0
        state.used_count[row] = 0
        state.spare[state.spare[-1]] = row
        state.spare[-1] += 1
        state.row[link] = -1
