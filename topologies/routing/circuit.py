"""Routings for circuits beside an electrical base: relay over circuits, take the base, or split."""

from __future__ import annotations

import numpy as np

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.ecmp_tables import ecmp_next_hop
from topomoe.topologies.routing.mixture import MixtureRouting
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.routing.tree import tree_routing
from topomoe.topologies.topology import Topology


def _layers(topology: Topology) -> tuple[Routing, Routing]:
    shape = topology.parameters.get("base")
    on_base = ~topology.optical
    if shape is not None:
        # A circuit beside a link of the base is one link of both capacities, marked optical.
        on_base[topology.link_ids(*shape.links.T)] = True
    if not topology.optical.any() or not on_base.any():
        raise InputError(f"{topology.name}: circuit routing needs circuits and an electrical base")
    tree = tree_routing(topology, shape) if shape is not None else None
    return ecmp_next_hop(topology, topology.optical), tree or ecmp_next_hop(topology, on_base)


def circuit_relay(topology: Topology) -> MixtureRouting:
    """Return: over circuits, through other devices if need be; the base only where none lead."""
    circuits, base = _layers(topology)
    on_circuits = circuits.reachable.astype(np.float64)
    return MixtureRouting("circuit-relay", [(circuits, on_circuits), (base, 1.0 - on_circuits)])


def circuit_direct(topology: Topology) -> MixtureRouting:
    """Return: over a pair's own circuit where one is lit, all else over the base."""
    circuits, base = _layers(topology)
    direct = (circuits.hops == 1).astype(np.float64)
    return MixtureRouting("circuit-direct", [(circuits, direct), (base, 1.0 - direct)])


def hybrid(topology: Topology, base_fraction: float | None = None) -> MixtureRouting:
    """Return: each pair split between circuits (relayed) and base in one fixed ratio.

    ``base_fraction`` of a pair's bytes takes the base where circuits lead there too; none where the
    base, having lost links, does not. By default it is the one under which uniform all-to-all keeps
    the worst circuit and the worst base link busy equally long: it knows the fabric, not the
    traffic.
    """
    circuits, base = _layers(topology)
    reachable = circuits.reachable.astype(np.float64)
    if base_fraction is None:
        uniform = 1.0 - np.eye(topology.num_devices)
        over_circuits = circuits.transfer_time((uniform * reachable)[None])[0]
        over_base = base.transfer_time(uniform[None])[0]
        only_base = base.transfer_time((uniform * (1.0 - reachable))[None])[0]
        # (1-f) * over_circuits = f * over_base + (1-f) * only_base, all loads scaling linearly
        gain = over_circuits - only_base
        base_fraction = max(0.0, gain) / (max(0.0, gain) + over_base) if over_base else 0.0
    if not 0.0 <= base_fraction <= 1.0:
        raise InputError(f"hybrid: base_fraction must be in 0..1, got {base_fraction}")
    on_circuits = np.where(base.reachable, 1.0 - base_fraction, 1.0) * reachable
    return MixtureRouting("hybrid", [(circuits, on_circuits), (base, 1.0 - on_circuits)])
