"""A schedule of circuits: matchings lit one after another, and what they carry of a demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from topomoe.topologies.topology import FloatArray, IntArray

# What rounding leaves of a pair, relative to the largest demand, counts as sent.
_DUST = 1e-12

Step = tuple[IntArray, float]  # circuits [X, 2], seconds
# (remaining [N, N], circuits [Y, 2], bytes each can carry [Y]) -> bytes each carried [Y];
# takes from ``remaining`` what it delivers.
Carry = Callable[[FloatArray, IntArray, FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class CircuitSchedule:
    """Matchings lit in order, each for its duration, with a dark time at every change.

    A circuit that two matchings in a row hold stays lit and carries traffic while the others
    change; between equal matchings nothing goes dark.
    """

    method: str
    matchings: tuple[IntArray, ...]  # each [X, 2] (transmitter, receiver), sorted
    durations: FloatArray  # [K] seconds lit, dark time apart
    dark: FloatArray  # [K] seconds of reconfiguration before each
    delay: float  # seconds a reconfiguration takes
    bandwidth: float  # bytes/s of a circuit
    base_bandwidth: float  # bytes/s of each device's port to a packet switch beside; 0 for none
    sent: FloatArray  # [N, N] bytes that the circuits carried from device to device
    remaining: FloatArray  # [N, N] bytes left at a device (row) for a device (column)

    @property
    def reconfigurations(self) -> int:
        """How often circuits went dark."""
        return int(np.count_nonzero(self.dark))

    @property
    def total_time(self) -> float:
        """Seconds that the circuits take: durations and dark times."""
        return float(self.durations.sum() + self.dark.sum())

    @property
    def base_time(self) -> float:
        """Seconds that the packet switch needs for what remains; infinite where there is none.

        It works beside the circuits from the start and is limited by its ports alone.
        """
        return _drain_time(self.remaining, self.base_bandwidth)

    @property
    def completion_time(self) -> float:
        """Seconds until the whole demand has arrived, over circuits and packet switch."""
        return max(self.total_time, self.base_time)

    @property
    def duty_cycle(self) -> float:
        """Share of the circuits' time that is not dark; 1 for an empty schedule."""
        return float(self.durations.sum()) / self.total_time if self.total_time > 0 else 1.0


def _drain_time(remaining: FloatArray, base_bandwidth: float) -> float:
    busiest = float(max(remaining.sum(axis=0).max(), remaining.sum(axis=1).max()))
    if busiest == 0.0:
        return 0.0
    return busiest / base_bandwidth if base_bandwidth > 0 else np.inf


def carry_direct(remaining: FloatArray, circuits: IntArray, room: FloatArray) -> FloatArray:
    """Send each circuit's own pair; circuits are distinct. See ``Carry``."""
    at = tuple(circuits.T)
    moved = np.minimum(remaining[at], room)
    remaining[at] -= moved
    return np.asarray(moved, dtype=np.float64)


def run_schedule(
    method: str,
    demand: FloatArray,
    steps: Callable[[FloatArray], Iterator[Step]],
    bandwidth: float,
    delay: float,
    base_bandwidth: float = 0.0,
    window: float = np.inf,
    charge_first: bool = True,
    clocked: bool = False,
    carry: Carry = carry_direct,
) -> CircuitSchedule:
    """Return the schedule of ``steps`` until the demand is served or ``window`` seconds are over.

    ``steps(remaining)`` yields matchings and durations and sees what remains. A matching is lit no
    longer than its circuits have traffic and left out where they have none, unless ``clocked``:
    then only the last is cut short. With a base, steps are taken until the packet switch can send
    the rest in the time spent so far, and the schedule ends where all of it completes first.
    """
    remaining, sent = demand.copy(), np.zeros_like(demand)
    dust = _DUST * float(demand.max())
    lit: IntArray = np.zeros(demand.size, dtype=np.int64)  # circuits of each pair
    matchings: list[IntArray] = []
    durations: list[float] = []
    darks: list[float] = []
    time, drain = 0.0, _drain_time(remaining, base_bandwidth)
    best = (drain, 0, remaining.copy(), sent.copy())
    following = steps(remaining)
    while drain > time and (step := next(following, None)) is not None:
        chosen, duration = step
        pair, copies = np.unique(chosen @ [len(demand), 1], return_counts=True)
        circuits = np.stack(np.divmod(pair, len(demand)), axis=-1)
        if not clocked and not remaining[tuple(circuits.T)].any():
            continue
        kept = np.minimum(lit[pair], copies)
        dark = delay if (kept < copies).any() and (matchings or charge_first) else 0.0
        if time + dark >= window:
            break
        duration = min(duration, window - time - dark)
        rate = bandwidth * copies.astype(np.float64)
        sent[tuple(circuits.T)] += carry(remaining, circuits, rate * (kept / copies) * dark)
        moved = carry(remaining, circuits, rate * duration)
        sent[tuple(circuits.T)] += moved
        remaining[remaining <= dust] = 0.0
        if not clocked or not remaining.any():
            duration = min(duration, float((moved / rate).max()))
        lit[:] = 0
        lit[pair] = copies
        matchings.append(chosen[np.lexsort(chosen.T[::-1])])
        durations.append(duration)
        darks.append(dark)
        time += dark + duration
        drain = _drain_time(remaining, base_bandwidth)
        if base_bandwidth > 0 and max(time, drain) < best[0]:
            best = (max(time, drain), len(matchings), remaining.copy(), sent.copy())
    last = len(matchings)
    if base_bandwidth > 0:
        _, last, remaining, sent = best
    return CircuitSchedule(
        method=method,
        matchings=tuple(matchings[:last]),
        durations=np.array(durations[:last]),
        dark=np.array(darks[:last]),
        delay=delay,
        bandwidth=bandwidth,
        base_bandwidth=base_bandwidth,
        sent=sent,
        remaining=remaining,
    )
