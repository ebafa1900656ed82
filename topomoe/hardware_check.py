"""The simulator beside measured hardware: DeepEP's low-latency all-to-alls on H800.

DeepEP (https://github.com/deepseek-ai/DeepEP, README, "Low-latency kernels") publishes the times of
dispatch and combine for 128 tokens a device, hidden 7168 and top-8 of 256 experts, on nodes of
eight H800 (NVLink about 160 GB/s) with a 400 Gbit/s NIC a device. Two parameters are fitted on
some sizes of the group, the others are predicted.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import dispatch
from topomoe.model import MoEModel, model_preset
from topomoe.network import bottleneck
from topomoe.placement import place
from topomoe.topologies.errors import InputError
from topomoe.topologies.registry import make
from topomoe.topologies.routing.ecmp_tables import ecmp_next_hop
from topomoe.topologies.routing.mixture import MixtureRouting
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology

NODE = 8  # devices a node
NVLINK = 160e9  # bytes/s a device and direction, as DeepEP gives it for H800
NIC = 50e9  # bytes/s: 400 Gbit/s
TOKENS = 128  # a device
DRAWS = 8  # of the tokens' experts behind a mean
COLLECTIVES = ("dispatch", "combine")
FITTED_ON = (16, 64)


@dataclass(frozen=True)
class Measured:
    """Published seconds of one collective in a group of ``devices``."""

    devices: int
    collective: str
    seconds: float


@dataclass(frozen=True)
class Fit:
    """What a collective costs beside its bytes, and how fast a NIC is."""

    overhead: float  # seconds
    nic: float  # bytes/s

    @property
    def efficiency(self) -> float:
        """Effective over nominal NIC bandwidth."""
        return self.nic / NIC


@dataclass(frozen=True)
class Prediction:
    """A measured time beside the predicted one; ``fitted`` where the fit knew it."""

    measured: Measured
    seconds: float
    fitted: bool

    @property
    def error(self) -> float:
        """Predicted over measured, minus 1."""
        return self.seconds / self.measured.seconds - 1.0


def read_measured(path: Path) -> tuple[Measured, ...]:
    """Return the rows of a csv file with the columns devices, collective, us."""
    try:
        with path.open(newline="") as file:
            return tuple(
                Measured(int(row["devices"]), row["collective"], float(row["us"]) * 1e-6)
                for row in csv.DictReader(file)
            )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: cannot read devices, collective, us ({error})") from None


def direct(topology: Topology) -> Routing:
    """Return a routing on ``rails``: inside a node over its switch, else from NIC to NIC.

    What low-latency kernels do: a device sends to the destination's NIC itself, whatever its rail.
    """
    first_node, first_rail, _, _ = topology.parameters["switches"]
    inside = ((topology.links >= first_node) & (topology.links < first_rail)).any(axis=1)
    node = np.arange(topology.num_devices) // topology.parameters["node_size"]
    same = (node[:, None] == node).astype(np.float64)
    within, between = ecmp_next_hop(topology, inside), ecmp_next_hop(topology, ~inside)
    return MixtureRouting("direct", [(within, same), (between, 1.0 - same)])


@lru_cache
def demands(devices: int, collective: str, draws: int = DRAWS) -> NDArray[np.float64]:
    """Return [draws, N, N] bytes: every token to a copy an expert, experts drawn evenly.

    Dispatch is FP8 with scales, combine the BF16 results of the same pairs on their way back.
    """
    model: MoEModel = model_preset("deepseek-v3")
    placement = place(np.ones((1, model.num_experts)), devices, model.num_experts, "contiguous")
    origin = np.repeat(np.arange(devices), TOKENS)
    sent = []
    for draw in range(draws):
        rng = np.random.default_rng([devices, draw])
        order = rng.random((len(origin), model.num_experts))
        experts = np.argpartition(order, model.top_k, axis=1)[:, : model.top_k]
        demand, _ = dispatch(experts, origin, placement[0], model, copies="expert", seed=draw)
        sent.append(demand)
    there = np.stack(sent)
    if collective == "dispatch":
        return there
    return there.transpose(0, 2, 1) / model.dispatch_bytes * model.combine_bytes


@lru_cache
def transfer(devices: int, collective: str, nic: float) -> float:
    """Return the bottleneck seconds of the collective, a mean over draws, without overhead.

    Latency is part of the fitted overhead and not counted here.
    """
    topology = make(
        "rails", (-(-devices // NODE), NODE), nic, 0.0, node_size=NODE, node_bandwidth=NVLINK
    )
    time = bottleneck(topology, direct(topology), demands(devices, collective))
    return float(np.mean(time))


def fit(measured: Sequence[Measured]) -> Fit:
    """Return overhead and NIC bandwidth with the least squared relative error on the given rows.

    In groups of more than a node the NICs are the bottleneck, so that time = overhead + bytes of
    the busiest NIC / its bandwidth, linear in overhead and 1 / bandwidth. Raises InputError where
    the rows do not determine both.
    """
    if len({(row.devices, row.collective) for row in measured}) < 2:
        raise InputError(f"a fit of two parameters needs two rows, got {len(measured)}")
    if any(row.devices <= NODE for row in measured):
        raise InputError(f"a fit of the NIC needs groups of more than {NODE} devices")
    seconds = np.array([row.seconds for row in measured])
    busiest = np.array([transfer(row.devices, row.collective, NIC) * NIC for row in measured])
    columns = np.stack([np.ones(len(seconds)), busiest], axis=-1) / seconds[:, None]
    (overhead, per_byte), *_ = np.linalg.lstsq(columns, np.ones(len(seconds)), rcond=None)
    if per_byte <= 0:
        raise InputError("the measured times do not grow with the bytes: nothing to fit")
    return Fit(float(overhead), float(1.0 / per_byte))


def fits(
    measured: Sequence[Measured], shared: bool, on: Sequence[int] = FITTED_ON
) -> dict[str, Fit]:
    """Return each collective's fit: one for both together (``shared``), or its own."""
    known = [row for row in measured if row.devices in on]
    if shared:
        return dict.fromkeys(COLLECTIVES, fit(known))
    return {name: fit([row for row in known if row.collective == name]) for name in COLLECTIVES}


def predictions(
    measured: Sequence[Measured], shared: bool, on: Sequence[int] = FITTED_ON
) -> list[Prediction]:
    """Return every measured time beside what the fit on the groups of size ``on`` predicts."""
    found = fits(measured, shared, on)
    return [
        Prediction(
            row,
            found[row.collective].overhead
            + transfer(row.devices, row.collective, found[row.collective].nic),
            row.devices in on,
        )
        for row in measured
    ]
