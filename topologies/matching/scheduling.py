"""Schedules by name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies import units
from topomoe.topologies.checked import whole
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.matching.birkhoff import birkhoff
from topomoe.topologies.matching.demand import demand_matrix
from topomoe.topologies.matching.eclipse import eclipse
from topomoe.topologies.matching.rotor import relaying_carry, rotor, rotor_cycle
from topomoe.topologies.matching.schedule import (
    CircuitSchedule,
    Step,
    carry_direct,
    run_schedule,
)
from topomoe.topologies.topology import FloatArray

SCHEDULES = ("eclipse", "birkhoff", "rotor")
_ROTOR_DUTY = 9.0  # slots of nine delays: nine tenths of the time lit, as RotorNet is built
_MOST_SLOTS = 1e6


def schedule_circuits(
    demand: ArrayLike,
    bandwidth: str | float,
    delay: str | float,
    degree: int = 1,
    method: str = "eclipse",
    base_bandwidth: str | float | None = None,
    window: str | float | None = None,
    charge_first: bool = True,
    slot: str | float | None = None,
    relay: bool = False,
) -> CircuitSchedule:
    """Return matchings to light one after another until a demand is served.

    demand [N, N] bytes; ``bandwidth`` bytes/s of a circuit, ``degree`` of which leave and reach a
    device at a time; ``delay`` seconds of a reconfiguration, during which changed circuits are
    dark. The first configuration is charged too unless ``charge_first=False``. With a
    ``base_bandwidth`` (bytes/s of each device's port) a packet switch works beside the circuits and
    takes the rest: the schedule ends where both together finish first. ``window`` ends it after
    that many seconds, and the rest remains.

    Methods: ``eclipse``, matchings and durations that repay the delay; ``birkhoff``, the exact
    decomposition, shortest where the delay is 0; ``rotor``, every pair in turn for ``slot`` seconds
    (default nine delays), with ``relay`` over a second hop where circuits have room. Raises
    InputError for a bad demand, an unknown method and values out of range.
    """
    matrix = demand_matrix(demand)
    if method not in SCHEDULES:
        raise unknown("schedule method", method, SCHEDULES)
    if method != "rotor" and (slot is not None or relay):
        raise InputError(f"slot and relay are options of rotor, got method={method}")
    degree = whole(degree, "degree", least=1)
    rate = units.bandwidth(bandwidth, "bandwidth")
    dark = units.seconds(delay, "delay")
    run: Any = partial(
        run_schedule,
        method,
        matrix,
        bandwidth=rate,
        delay=dark,
        base_bandwidth=0.0
        if base_bandwidth is None
        else units.bandwidth(base_bandwidth, "base_bandwidth"),
        window=np.inf if window is None else units.seconds(window, "window"),
        charge_first=charge_first,
    )
    schedule: CircuitSchedule
    if method == "rotor":
        seconds = units.seconds(_ROTOR_DUTY * dark if slot is None else slot, "slot")
        _check_slot(matrix, rate, degree, seconds)
        carry = relaying_carry(matrix, rate * seconds) if relay else carry_direct
        slots = partial(_rotor_steps, degree=degree, slot=seconds)
        schedule = run(steps=slots, clocked=True, carry=carry)
    elif method == "birkhoff":
        schedule = run(steps=partial(birkhoff, rate=rate, degree=degree))
    else:
        schedule = run(steps=partial(eclipse, rate=rate, delay=dark, degree=degree))
    return schedule


def _rotor_steps(remaining: FloatArray, degree: int, slot: float) -> Iterator[Step]:
    return rotor(len(remaining), degree, slot)


def _check_slot(demand: FloatArray, rate: float, degree: int, slot: float) -> None:
    if slot <= 0:
        raise InputError(f"rotor: slot must be > 0 s (needed where the delay is 0), got {slot:g}")
    slots = len(rotor_cycle(len(demand), degree)) * float(demand.max()) / (rate * slot)
    if slots > _MOST_SLOTS:
        raise InputError(
            f"rotor: slot must be long enough for {_MOST_SLOTS:.0f} slots to serve the demand, "
            f"{slot:g} s needs {slots:.3g}"
        )
