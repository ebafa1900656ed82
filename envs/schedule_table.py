"""Every collective of a timeline over scheduled circuits: rotor and Birkhoff-von Neumann."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.circuit_schedules import (
    Ports,
    Prefixes,
    birkhoff_prefixes,
    completion_seconds,
    rotor_prefixes,
)
from topomoe.envs.delay_sweep_settings import DelaySweepSettings
from topomoe.envs.delay_timeline import THERE, FloatArray, Order
from topomoe.network.bottleneck import path_offset
from topomoe.pricing import Job
from topomoe.routed_network import Network
from topomoe.topologies.topology import Topology

SLOTS = (0.5, 1.0, 1.5, 2.0, 3.0)  # a rotor's slot, in times that a mean pair's bytes take
TURNS = 2  # of a rotor in one collective, at most; the base takes what is left


@dataclass(frozen=True)
class Fabric:
    """The ports of a device, and what an all-gather of expert counts over the base takes."""

    ports: Ports
    gather: float

    @staticmethod
    def of(settings: DelaySweepSettings, wiring: Topology, job: Job) -> Fabric:
        """Return the fabric that ``wiring`` is one wiring of.

        Counts are gathered in groups of the job's devices, all groups at once.
        """
        base = Network.of(wiring.parameters["base"], None, job.tables.num_experts, job.step.mtu)
        group = np.arange(wiring.num_devices) // job.tables.num_devices
        base = replace(base, counts=base.counts * (group[:, None] == group))
        offset = path_offset(base.routing, job.step.mtu)
        ports = Ports(
            degree=settings.ports,
            rate=(1.0 - settings.base_share) * settings.bandwidth / settings.ports,
            base_rate=settings.base_share * settings.bandwidth,
            circuit_latency=settings.latency,
            base_latency=0.0 if offset is None else float(offset.max()),
        )
        return Fabric(ports, job.step.collective_overhead + base.gather_seconds)


@dataclass(frozen=True, eq=False)
class ScheduleTable:
    """Seconds of B steps' P collectives over scheduled circuits at D delays."""

    rotor: FloatArray  # [slots, D, B, P]
    birkhoff: FloatArray  # [D, B, P]
    foreseen: FloatArray  # [D, B, P] the least of both were every demand known beforehand

    @property
    def best_slot(self) -> NDArray[np.int64]:
        """The rotor's slot that is fastest overall at each delay, [D]."""
        return np.asarray(self.rotor.sum(axis=(2, 3)).argmin(axis=0))

    def scheduled(self, slot: NDArray[np.int64]) -> dict[str, FloatArray]:
        """Return the seconds by method, [D, B, P], with this rotor slot at each delay [D]."""
        return {
            "rotor": self.rotor[slot, np.arange(len(slot))],
            "birkhoff": self.birkhoff,
        }


def schedule_table(
    job: Job,
    copies: NDArray[np.float32],
    order: Order,
    window: FloatArray,
    delays: FloatArray,
    fabric: Fabric,
    pair_copies: float,
    progress: Callable[[int, int], None],
) -> ScheduleTable:
    """Price every collective of copies [B, M, N, N] at every delay.

    A rotor turns without knowing the demand: its slots are multiples of what ``pair_copies`` take,
    the mean copies of a pair. A decomposition needs the demand: where the gate has only just
    decided it, an all-gather of counts and the whole first reconfiguration are exposed. Combine is
    dispatch transposed, and so are its matchings: the same prefixes, scaled.
    """
    steps, layers = copies.shape[:2]
    sizes = np.array([job.model.dispatch_bytes, job.model.combine_bytes, job.model.combine_bytes])
    scale = sizes[order.kind] / sizes[THERE]
    shape = (len(delays), steps, len(order.kind))
    rotor, birkhoff, foreseen = np.empty((len(SLOTS), *shape)), np.empty(shape), np.empty(shape)
    ports = fabric.ports
    slots = [slot * pair_copies * sizes[THERE] / ports.rate for slot in SLOTS]

    def least(schedules: tuple[Prefixes, ...], p: int, first: FloatArray) -> FloatArray:
        each = [completion_seconds(s, scale[p], delays, first, ports) for s in schedules]
        return np.asarray(job.step.collective_overhead + np.min(each, axis=0))

    for b in range(steps):
        for m in range(layers):
            demand = copies[b, m].astype(np.float64) * sizes[THERE]
            apart = birkhoff_prefixes(demand, ports)
            turns = [rotor_prefixes(demand, slot, TURNS, ports) for slot in slots]
            for p in np.flatnonzero(order.layer == m).tolist():
                exposed = np.maximum(0.0, delays - window[b, p])
                rotor[:, :, b, p] = [least((turn,), p, exposed) for turn in turns]
                known = least(apart, p, exposed)
                foreseen[:, b, p] = np.minimum(known, rotor[:, :, b, p].min(axis=0))
                late = fabric.gather + least(apart, p, delays)
                birkhoff[:, b, p] = known if order.announced[p] else late
        progress(b + 1, steps)
    return ScheduleTable(rotor, birkhoff, foreseen)
