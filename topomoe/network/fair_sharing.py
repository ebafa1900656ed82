"""Completion times of flows that share links max-min fairly, from one event to the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from topomoe.network.pairing_heap import remove
from topomoe.network.progressive_filling import Filling, empty_filling, join, leave, refill, undo
from topomoe.topologies.checked import numbers, whole_numbers
from topomoe.topologies.errors import InputError
from topomoe.topologies.kernel import kernel
from topomoe.topologies.topology import FloatArray, IntArray

# Completions this close, relative to the clock, are one event even where the result is exact:
# times that are equal differ by their rounding, which is less.
SIMULTANEOUS = 1e-12
# What a flow that retires early may lack of its bytes, in rtol: a rate that is high for a moment
# only must not end a flow that has hardly begun.
LACKING = 25.0


def completion_times(
    capacity: ArrayLike,
    ptr: ArrayLike,
    links: ArrayLike,
    sizes: ArrayLike,
    start: ArrayLike = 0.0,
    fraction: ArrayLike | None = None,
    rtol: float = 0.0,
) -> FloatArray:
    """Return when each flow is done, [F] seconds on the clock (start included), under max-min.

    capacity [L] bytes/s; flow f sends sizes[f] bytes from start (a number or [F] seconds) on over
    the link ids links[ptr[f]:ptr[f+1]], all at once, and takes its rate times ``fraction`` (one
    entry a link id, 1 by default) of each. At every moment the rates are max-min fair: none can
    rise without lowering one that is no higher (Bertsekas and Gallager, Data Networks, 2nd ed.,
    section 6.5.2). A flow without bytes or without links is done when it starts.

    With ``rtol`` (e.g. 1e-3), the next flow and all that would be done rtol/2 of the clock later
    retire together, at their mean completion time weighted by rate: what the early ones leave idle
    the late ones make up for. Each is given its own completion time at the rates of that moment. No
    window reaches over a start, and no flow that lacks more than 25 rtol of its bytes retires
    early. So the schedule is exact for sizes that differ by at most as much, and by at most the
    flow's last rate x rtol/2 x its time. The times are within rtol of the exact ones on all
    reference cases and makespans within rtol/2 (docs/validation.md); there is no such bound for
    every network, as a smaller flow can make another one later.

    Raises InputError for capacities that are not above 0, sizes, starts or fractions below 0,
    unknown link ids and a ptr that does not divide them.
    """
    rate = numbers(capacity, "capacity")
    _check_entries(rate, "capacity", "bytes/s", "link", above_zero=True)
    volume = numbers(sizes, "sizes")
    _check_entries(volume, "sizes", "bytes", "flow")
    begin, ids, weight = _checked_paths(ptr, links, fraction, len(rate), len(volume))
    clock = numbers(start, "start")
    if clock.shape not in ((), volume.shape):
        raise InputError(
            f"start must be a number or have one entry a flow ({len(volume)}), "
            f"got shape {list(clock.shape)}"
        )
    fct = np.broadcast_to(clock, volume.shape).copy()
    _check_entries(fct, "start", "seconds", "flow")
    if not (isinstance(rtol, int | float) and 0 <= rtol < 1):
        raise InputError(f"rtol must be >= 0 and < 1, got {rtol!r}")

    taken = np.bincount(ids, minlength=len(rate)) > 0
    # For read-only arrays numba would compile every kernel once more.
    volume = np.require(volume, requirements=["C", "W"])
    begin = np.require(begin, requirements=["C", "W"])
    state = empty_filling(rate[taken], begin, (np.cumsum(taken) - 1)[ids], weight, volume)
    sent = np.flatnonzero((volume > 0) & (np.diff(begin) > 0))
    queue = sent[np.argsort(fct[sent], kind="stable")]
    _run(state, fct.copy(), queue, max(rtol / 2, SIMULTANEOUS), fct)
    return fct


def _check_entries(
    values: FloatArray, field: str, unit: str, owner: str, above_zero: bool = False
) -> None:
    """Raise InputError unless all values are finite, in one row and >= 0 (or > 0)."""
    if values.ndim != 1:
        raise InputError(f"{field} must have one entry a {owner}, got shape {list(values.shape)}")
    good = np.isfinite(values) & ((values > 0) if above_zero else (values >= 0))
    if not good.all():
        at = int(np.argmin(good))
        relation = "> 0" if above_zero else ">= 0"
        raise InputError(
            f"{field} must be finite and {relation} {unit}, {owner} {at} has {values[at]:g}"
        )


def _checked_paths(
    ptr: ArrayLike, links: ArrayLike, fraction: ArrayLike | None, num_links: int, flows: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return ptr, links and the weight of each entry, without entries of fraction 0."""
    begin, ids = whole_numbers(ptr, "ptr"), whole_numbers(links, "links")
    if ids.ndim != 1:
        raise InputError(f"links must be one row of link ids, got shape {list(ids.shape)}")
    if begin.shape != (flows + 1,):
        raise InputError(
            f"ptr must have one entry more than there are sizes ({flows + 1}), "
            f"got shape {list(begin.shape)}"
        )
    if begin[0] != 0 or begin[-1] != len(ids):
        raise InputError(
            f"ptr must start at 0 and end at the number of link ids ({len(ids)}), "
            f"runs from {begin[0]} to {begin[-1]}"
        )
    if (np.diff(begin) < 0).any():
        raise InputError(f"ptr must not decrease, does after flow {np.argmax(np.diff(begin) < 0)}")
    outside = (ids < 0) | (ids >= num_links)
    if outside.any():
        raise InputError(
            f"link ids must be in 0..{num_links - 1}, entry {np.argmax(outside)} "
            f"is {ids[np.argmax(outside)]}"
        )
    if fraction is None:
        return begin, ids, np.ones(len(ids))
    part = numbers(fraction, "fraction")
    _check_entries(part, "fraction", "of the flow", "link id")
    if part.shape != ids.shape:
        raise InputError(f"fraction must have one entry a link id ({len(ids)}), got {len(part)}")
    used = part > 0
    kept = np.concatenate([[0], np.cumsum(used)])[begin]
    ids, part = ids[used], part[used]
    # On each link whole multiples of a quantum, 2**-51 of all weight there or less: sums are exact.
    total = np.bincount(ids, weights=part, minlength=num_links)[ids]
    quantum = np.exp2(np.ceil(np.log2(total)) - 51)
    return kept, ids, np.maximum(np.rint(part / quantum), 1.0) * quantum


@kernel
def _run(state: Filling, start: FloatArray, queue: IntArray, window: float, fct: FloatArray) -> int:
    """Write when each flow of ``queue`` (ordered by start) is done; return how many events."""
    done = np.empty(len(queue), dtype=np.int64)
    clock, saturated, joined, left, events = 0.0, 0, 0, 0, 0
    while left < len(queue):
        events += 1
        next_start = start[queue[joined]] if joined < len(queue) else np.inf
        first = next_start
        for k in range(saturated):
            first = min(first, _completion(state, clock, k))
        # Rates may fall far where a flow starts: no window reaches beyond.
        last = min(first * (1.0 + window), next_start)
        together = first * (1.0 + SIMULTANEOUS)

        ended, rates, moment, keep = 0, 0.0, 0.0, saturated
        for k in range(saturated):
            link = state.order[k]
            while state.root[link] >= 0:
                time = _completion(state, clock, k)
                if time > last:
                    break
                flow = state.root[link]
                lacking = state.level[k] * (time - first)
                if time > together and lacking > 2.0 * LACKING * window * state.volume[flow]:
                    break
                keep = min(keep, k)
                state.root[link] = remove(state.heap, flow, flow)
                fct[flow] = time
                done[ended] = flow
                ended += 1
                rates += state.level[k]
                moment += state.level[k] * (time - first)
        now = min(first + moment / rates, last) if ended else next_start
        for k in range(saturated):
            state.sent[state.order[k]] += state.level[k] * (now - clock)
        clock = now
        left += ended
        saturated = undo(state, keep, saturated)
        for flow in done[:ended]:
            leave(state, flow)
        while joined < len(queue) and start[queue[joined]] <= clock:
            saturated = join(state, queue[joined], saturated)
            joined += 1
        saturated = refill(state, saturated)
    return events


@kernel
def _completion(state: Filling, clock: float, k: int) -> float:
    """Return when the first flow of the k-th saturated link's group will be done."""
    link = state.order[k]
    remaining = state.heap.key[state.root[link]] - state.sent[link]
    return float(clock + remaining / state.level[k])
