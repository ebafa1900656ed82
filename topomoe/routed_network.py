"""A topology as a step sees it: routed, with what paths and an all-gather of counts cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import all_gather_bytes
from topomoe.network.bottleneck import path_offset
from topomoe.network.flow_times import max_min
from topomoe.step import FloatArray, StepSettings
from topomoe.topologies.errors import InputError
from topomoe.topologies.routing import route
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology

# A routing, that of dispatch and that of combine, or None: the topology's default.
Routings = Routing | tuple[Routing, Routing] | None


@dataclass(frozen=True, eq=False)
class Network:
    """A topology with a routing over it, and what a pair's path adds."""

    topology: Topology
    routing: Routing
    offset: FloatArray | None  # [N, N] seconds
    counts: NDArray[np.float64]  # [1, N, N] bytes of an all-gather of expert counts
    capacity: FloatArray | None = None  # [L] left by other traffic; None: the links' own
    back: Network | None = None  # combine's routing, where it is another

    @cached_property
    def gather_seconds(self) -> float:
        """Seconds of an all-gather of expert counts."""
        return float(self.routing.transfer_time(self.counts, self.offset, self.capacity)[0])

    @property
    def combine(self) -> Network:
        """The network as combine is routed over it."""
        return self if self.back is None else replace(self.back, capacity=self.capacity)

    @staticmethod
    def of(
        topology: Topology,
        routing: Routings,
        num_experts: int,
        mtu: float,
        devices: NDArray[np.int64] | None = None,
    ) -> Network:
        """Return the network under the topology's default routing, or the given one.

        ``devices`` [n] are those that send to each other, None: all. Raises InputError where the
        routing is over another topology or has no path between two of them.
        """
        if isinstance(routing, tuple):
            there, back = (Network.of(topology, r, num_experts, mtu, devices) for r in routing)
            return replace(there, back=back)
        used = route(topology) if routing is None else routing
        if used.topology is not topology:
            raise InputError(f"routing is over another topology than {topology.name}")
        offset = path_offset(used, mtu or None)
        talk = np.arange(topology.num_devices) if devices is None else devices
        counts = np.zeros((1, *used.reachable.shape))
        counts[0, talk[:, None], talk] = all_gather_bytes(num_experts)
        lost = np.argwhere((counts[0] > 0) & ~used.reachable)
        if len(lost):
            raise InputError(
                f"{topology.name}: {used.name} has no path from device {lost[0, 0]} "
                f"to device {lost[0, 1]}"
            )
        return Network(topology, used, offset, counts)

    def seconds(self, demand: NDArray[Any], step: StepSettings) -> NDArray[np.float64]:
        """Return the seconds of each demand [B, N, N] under the fidelity that ``step`` names."""
        if step.fidelity == "bottleneck":
            return self.routing.transfer_time(demand, self.offset, self.capacity)
        flows = (
            max_min(
                self.topology, self.routing, one, step.max_min_rtol, step.mtu or None, self.capacity
            )
            for one in demand
        )
        makespan = np.array([flow.makespan for flow in flows])
        # With an rtol, a makespan may come out a little below what the busiest link takes.
        busiest = self.routing.transfer_time(demand.astype(np.float64), None, self.capacity)
        return np.asarray(np.maximum(makespan, busiest), dtype=np.float64)
