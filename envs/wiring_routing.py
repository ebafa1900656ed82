"""Each wiring under its default routing and under splits fitted to the mean training demand.

A fixed wiring gains from better routing too. Priced under both, what rewiring gains is not mixed up
with what routing does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.delay_sweep_settings import DelaySweepSettings
from topomoe.envs.delay_timeline import (
    BACK,
    THERE,
    FloatArray,
    Order,
    collective_seconds,
    demand_of,
)
from topomoe.network.capacity_bound import capacity_bound
from topomoe.pricing import Job
from topomoe.routed_network import Network
from topomoe.topologies.routing import route
from topomoe.topologies.topology import Topology

DEFAULT, OPTIMAL = "default", "optimal"


def network_of(topology: Topology, job: Job) -> Network:
    """Return the topology under its default routing, as the job prices it."""
    return Network.of(topology, None, job.tables.num_experts, job.step.mtu)


def fitted_networks(
    library: Mapping[str, Topology],
    fit: Collection[str],
    job: Job,
    copies: NDArray[np.float32],
) -> list[Network | None]:
    """Return wirings under the optimal splits of copies [N, N], None for those not in ``fit``.

    Dispatch and combine have splits of their own.
    """

    def fitted(topology: Topology) -> Network:
        there, back = (
            route(topology, OPTIMAL, demand=demand_of(job, copies, kind).astype(np.float64))
            for kind in (THERE, BACK)
        )
        return Network.of(topology, (there, back), job.tables.num_experts, job.step.mtu)

    return [fitted(topology) if name in fit else None for name, topology in library.items()]


def worth_fitting(
    settings: DelaySweepSettings, library: Mapping[str, Topology], demands: Sequence[FloatArray]
) -> tuple[str, ...]:
    """Return the settings' number of wirings that may gain most from optimal splits.

    Those over which the demands [N, N] take fewest links: under good splits relaying is what takes
    time. With several demands the best for all of them together and for each are taken in turn.
    """
    if settings.wiring_routing == DEFAULT:
        return ()
    names = list(library)
    bound = np.array([[capacity_bound(t, demand) for demand in demands] for t in library.values()])
    columns = [bound.sum(axis=1), *(bound.T if len(demands) > 1 else ())]
    ranked = [np.argsort(column, kind="stable").tolist() for column in columns]
    in_turn = dict.fromkeys(k for row in zip(*ranked, strict=True) for k in row)
    chosen = list(in_turn)[: settings.optimal_wirings or None]
    return tuple(names[k] for k in chosen)


@dataclass(frozen=True, eq=False)
class RoutedSeconds:
    """Seconds [..., K] of the same traffic on K wirings, under each routing."""

    usual: FloatArray  # under the default
    fitted: FloatArray  # under optimal splits; infinite where none were made

    @staticmethod
    def of(
        job: Job,
        copies: NDArray[np.float32],
        order: Order,
        usual: Sequence[Network],
        fitted: Sequence[Network | None],
    ) -> RoutedSeconds:
        """Price copies [B, M, N, N], [B, P, K] each."""
        priced = [collective_seconds(job, network, copies, order) for network in usual]
        never = np.full_like(priced[0], np.inf)
        other = [
            never if network is None else collective_seconds(job, network, copies, order)
            for network in fitted
        ]
        return RoutedSeconds(np.stack(priced, axis=-1), np.stack(other, axis=-1))

    def choose(self, always: bool) -> NDArray[np.bool_]:
        """Return whether each wiring takes optimal splits, [K]: where they are faster overall.

        ``always``: wherever there are any.
        """
        axes = tuple(range(self.usual.ndim - 1))
        fitted = self.fitted.sum(axis=axes)
        return np.asarray(fitted < (np.inf if always else self.usual.sum(axis=axes)))

    @property
    def least(self) -> FloatArray:
        """The faster of both each time, [..., K]."""
        return np.minimum(self.usual, self.fitted)

    def under(self, fitted: NDArray[np.bool_]) -> FloatArray:
        """Return the seconds under optimal splits for those wirings, the default for the others."""
        return np.where(fitted, self.fitted, self.usual)
