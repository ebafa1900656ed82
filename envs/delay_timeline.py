"""A workload's collectives in order, priced under every wiring and every circuit schedule.

A step runs M layers. In each, attention, then dispatch, then the experts, then combine; training
goes back through the layers with two more all-to-alls each. A rewiring may begin when a collective
is over: what the computation until the next one hides of it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.pricing import Job, Traffic
from topomoe.routed_network import Network

FloatArray = NDArray[np.float64]
THERE, BACK, GRADIENT = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Timeline:
    """B steps of P collectives each, under K wirings, at D reconfiguration delays.

    Attributes:
        names: the K wirings.
        routings: of each wiring, as training chose it.
        cost: [B, P, K] seconds of each collective under each wiring and its routing.
        window: [B, P] seconds of computation right before each collective.
        rest: [B] seconds of a step off the network.
        scheduled: by method, [D, B, P] seconds of each collective when its circuits follow a
            schedule made for its own demand, all rewirings included, as known online.
        foreseen: [D, B, P] the least of ``scheduled`` were every demand known beforehand.
        redrawn: [B, P] seconds under circuits chosen anew for each layer from the traffic that it
            had in the step before; None where there is no such policy.
        redraws: bool [P], before which collectives those circuits change.
        usual: [B, P, K] the same under each wiring's default routing.
        least: [B, P, K] the same under whichever routing is faster for that very collective.
        bound: [B, P] seconds below which no wiring or schedule gets a collective.
        block: neighbouring steps that are alike, for intervals.
        queue: [B] what is known of each step before it runs, from the requests admitted; or None.
    """

    names: tuple[str, ...]
    routings: tuple[str, ...]
    cost: FloatArray
    usual: FloatArray
    least: FloatArray
    window: FloatArray
    rest: FloatArray
    scheduled: Mapping[str, FloatArray]
    foreseen: FloatArray
    redrawn: FloatArray | None
    redraws: NDArray[np.bool_]
    bound: FloatArray
    block: int = 1
    queue: FloatArray | None = None

    def exposed(self, delays: FloatArray) -> FloatArray:
        """Return the seconds of a rewiring before each collective that nothing hides, [D, B, P]."""
        return np.maximum(0.0, delays[:, None, None] - self.window)


@dataclass(frozen=True)
class Order:
    """Which all-to-all of which layer each of a step's P collectives is."""

    kind: NDArray[np.int64]  # [P]: there, back, or the gradient of combine out
    layer: NDArray[np.int64]  # [P]
    backward: NDArray[np.bool_]  # [P]

    @staticmethod
    def of(layers: int, training: bool) -> Order:
        """Return forward through the layers, and for training back through them."""
        kind = np.tile([THERE, BACK], layers)
        layer = np.repeat(np.arange(layers), 2)
        backward = np.zeros(2 * layers, dtype=np.bool_)
        if training:
            kind = np.concatenate([kind, np.tile([GRADIENT, BACK], layers)])
            layer = np.concatenate([layer, np.repeat(np.arange(layers)[::-1], 2)])
            backward = np.concatenate([backward, ~backward])
        return Order(kind, layer, backward)

    @property
    def announced(self) -> NDArray[np.bool_]:
        """Whether a collective's demand is known before the computation that precedes it, [P].

        The gate decides a dispatch right before it; what comes later in the layer follows from it.
        """
        return np.asarray(self.kind != THERE)

    @property
    def new_layer(self) -> NDArray[np.bool_]:
        """Whether a collective is the first after another layer's, or of a step, [P]."""
        return np.concatenate([[True], self.layer[1:] != self.layer[:-1]])


def windows(job: Job, traffic: Sequence[Traffic], order: Order) -> FloatArray:
    """Return the seconds of computation before each collective, [B, P]; a step's sum is its rest.

    Attention and what else a step computes lie before the first collective of each layer, evenly
    over the layers; the experts lie between. Going back takes twice as long.
    """
    training = job.workload.phase == "training"
    compute = np.stack([t.compute for t in traffic])[:, order.layer]
    other = np.array([t.other for t in traffic])[:, None] / len(traffic[0].compute)
    between = order.kind == BACK
    back = np.where(order.backward, 2.0, 1.0)
    return np.asarray(np.where(between, compute * back, other * back / (3.0 if training else 1.0)))


def demand_of(job: Job, copies: NDArray[np.float32], kind: int) -> NDArray[np.float32]:
    """Return the bytes [..., N, N] that an all-to-all of this kind sends for these copies."""
    if kind == BACK:
        back = np.ascontiguousarray(np.swapaxes(copies, -1, -2))
        return np.asarray(back * np.float32(job.model.combine_bytes))
    size = job.model.dispatch_bytes if kind == THERE else job.model.combine_bytes
    return np.asarray(copies * np.float32(size))


def collective_seconds(
    job: Job, network: Network, copies: NDArray[np.float32], order: Order
) -> FloatArray:
    """Return the seconds of each collective on a network, [B, P], for copies [B, M, N, N]."""
    steps, layers, devices, _ = copies.shape
    kinds = np.zeros((order.kind.max() + 1, steps, layers))
    for kind in range(len(kinds)):
        demand = demand_of(job, copies, kind).reshape(-1, devices, devices)
        used = network.combine if kind == BACK else network
        kinds[kind] = used.seconds(demand, job.step).reshape(steps, layers)
    seconds = kinds[order.kind, :, order.layer].T
    return np.asarray(job.step.collective_overhead + seconds)


def port_bound(job: Job, injection: float, copies: NDArray[np.float32], order: Order) -> FloatArray:
    """Return the seconds that a device's ports alone need for each collective, [B, P].

    All that a device sends leaves at ``injection`` bytes/s at most, whatever the circuits.
    """
    busiest = np.maximum(copies.sum(axis=2).max(axis=2), copies.sum(axis=3).max(axis=2))
    size = np.array([job.model.dispatch_bytes, job.model.combine_bytes, job.model.combine_bytes])
    seconds = busiest[:, order.layer].astype(np.float64) * size[order.kind] / injection
    return np.asarray(job.step.collective_overhead + seconds)
