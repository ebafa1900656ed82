"""All-to-alls over circuits that follow a schedule made for one collective, at many delays.

Every schedule is taken as its prefixes: after n reconfigurations its circuits have been lit for so
long, and the electrical base would need so long for what then remains. A collective ends with
whichever prefix is over first, circuits and base side by side. No device has to know the others'
demand for that: the base sends first what a circuit would carry last, until both meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.kernel import kernel
from topomoe.topologies.matching.birkhoff import decompose
from topomoe.topologies.matching.rotor import rotor_cycle

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Ports:
    """What leaves and reaches a device: ``degree`` circuits of ``rate`` bytes/s, and the base."""

    degree: int
    rate: float
    base_rate: float
    circuit_latency: float
    base_latency: float


@dataclass(frozen=True, eq=False)
class Prefixes:
    """A schedule for one demand, cut after every reconfiguration n = 0..R.

    Attributes:
        lit: [R+1] seconds of light.
        drain: [R+1] seconds that the base needs for the bytes left then.
    """

    lit: FloatArray
    drain: FloatArray


def birkhoff_prefixes(demand: FloatArray, ports: Ports) -> tuple[Prefixes, ...]:
    """Return schedules from the Birkhoff-von Neumann decomposition of demand [N, N] bytes.

    Matchings are lit largest weight first: one at a time over all ports of a device, and as many at
    a time as it has ports.
    """
    successors, weight = decompose(demand)
    order = np.argsort(-weight, kind="stable")
    out = []
    for together in sorted({1, ports.degree}):
        rate = ports.rate * ports.degree / together
        groups = -(-len(order) // together)
        # A device that is its own successor idles; so do the matchings that fill the last group.
        chosen = np.tile(np.arange(len(demand)), (groups * together, 1))
        chosen[: len(order)] = successors[order]
        seconds = weight[order][::together] / rate
        shape = (groups, together, len(demand))
        out.append(_prefixes(demand, chosen.reshape(shape), seconds, rate, ports, False))
    return tuple(out)


def rotor_prefixes(demand: FloatArray, slot: float, cycles: int, ports: Ports) -> Prefixes:
    """Return ``cycles`` turns of a rotor (Mellette et al., SIGCOMM 2017), each slot ``slot`` s."""
    devices = len(demand)
    shifts = rotor_cycle(devices, ports.degree)
    turn = np.tile(np.arange(devices), (len(shifts), ports.degree, 1))
    for s, circuits in enumerate(shifts):
        held = circuits[:, 1].reshape(-1, devices)
        turn[s, : len(held)] = held
    chosen = np.tile(turn, (cycles, 1, 1))
    return _prefixes(demand, chosen, np.full(len(chosen), slot), ports.rate, ports, True)


def _prefixes(
    demand: FloatArray,
    successors: IntArray,
    seconds: FloatArray,
    rate: float,
    ports: Ports,
    clocked: bool,
) -> Prefixes:
    lit, drain = np.zeros(len(seconds) + 1), np.zeros(len(seconds) + 1)
    remaining = demand.copy()
    np.fill_diagonal(remaining, 0.0)
    _serve(remaining, successors, seconds, rate, clocked, lit, drain)
    return Prefixes(lit, drain / ports.base_rate)


@kernel
def _serve(
    remaining: FloatArray,
    successors: IntArray,
    seconds: FloatArray,
    rate: float,
    clocked: bool,
    lit: FloatArray,
    drain: FloatArray,
) -> None:
    """Fill ``lit`` [R+1] seconds and ``drain`` [R+1], the most bytes left at or for a device.

    successors [R, ports, N]: whom each device sends to over each port. A matching is lit no longer
    than it has traffic, unless ``clocked``.
    """
    devices = len(remaining)
    leaving, reaching = remaining.sum(axis=1), remaining.sum(axis=0)
    drain[0] = max(leaving.max(), reaching.max())
    for n in range(len(seconds)):
        longest = 0.0
        for port in range(successors.shape[1]):
            for i in range(devices):
                j = successors[n, port, i]
                moved = min(remaining[i, j], rate * seconds[n])
                remaining[i, j] -= moved
                leaving[i] -= moved
                reaching[j] -= moved
                longest = max(longest, moved / rate)
        lit[n + 1] = lit[n] + (seconds[n] if clocked else longest)
        # Subtraction leaves dust of the sums; what is gone is gone.
        drain[n + 1] = max(0.0, leaving.max(), reaching.max())
        if drain[n + 1] <= 1e-9 * drain[0]:
            drain[n + 1] = 0.0


def completion_seconds(
    prefixes: Prefixes,
    scale: float,
    delays: FloatArray,
    first: FloatArray,
    ports: Ports,
) -> FloatArray:
    """Return the seconds [D] of the best prefix at each delay, for ``scale`` times the demand.

    The first reconfiguration costs ``first`` [D], every other one its delay.
    """
    return np.asarray(
        _completion(
            prefixes.lit * scale,
            prefixes.drain * scale,
            delays,
            first,
            ports.circuit_latency,
            ports.base_latency,
        )
    )


@kernel
def _completion(
    lit: FloatArray,
    drain: FloatArray,
    delays: FloatArray,
    first: FloatArray,
    circuit_latency: float,
    base_latency: float,
) -> FloatArray:
    best = np.full(len(delays), np.inf)
    for d in range(len(delays)):
        for n in range(len(lit)):
            circuits = 0.0
            if n > 0:
                circuits = lit[n] + first[d] + (n - 1) * delays[d] + circuit_latency
            if circuits >= best[d]:
                break  # longer prefixes only take longer
            base = drain[n] + base_latency if drain[n] > 0 else 0.0
            best[d] = min(best[d], max(circuits, base))
    return best
