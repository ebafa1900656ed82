"""Optical fabric: device-to-device circuits beside an electrical base."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.checked import whole, whole_numbers
from topomoe.topologies.circuits import check_ports, named_circuits, paired
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.fat_tree import fat_tree
from topomoe.topologies.leaf_spine import leaf_spine
from topomoe.topologies.matching import METHODS, choose_circuits
from topomoe.topologies.mesh import mesh
from topomoe.topologies.topology import IntArray, Topology, merge_links, require_connected
from topomoe.topologies.torus import torus

BASES = {"leaf-spine": leaf_spine, "fat-tree": fat_tree, "mesh": mesh, "torus": torus}


def optical(
    grid: tuple[int, int],
    bandwidth: float,
    latency: float,
    circuits: str | Sequence[tuple[int, int]] | NDArray[np.int64] = "expander",
    base: str | Topology | None = "leaf-spine",
    base_bandwidth: float | None = None,
    degree: int = 4,
    bidirectional: bool = False,
    seed: int = 0,
    demand: ArrayLike | None = None,
) -> Topology:
    """Return circuits of ``bandwidth`` bytes/s each over an electrical ``base``.

    ``circuits`` are pairs (transmitter, receiver), the name of a wiring (see circuits.py), or a
    method of ``choose_circuits`` that lights them for ``demand`` [N, N] in bytes; at most
    ``degree`` out of and into a device. ``bidirectional`` adds the way back of each circuit that
    lacks one. Two circuits between the same devices are one link of twice the capacity.
    ``base`` is a topology, the name of one (its links at ``base_bandwidth``, by default
    ``bandwidth``) or None: circuits alone, which must then connect all devices.
    """
    rows, columns = grid
    devices = rows * columns
    degree = whole(degree, "optical: degree", least=1)
    if isinstance(circuits, str):
        wiring = circuits
        seed = whole(seed, "optical: seed", least=0)
        if circuits in METHODS:
            pairs = _for_demand(circuits, demand, devices, degree, bidirectional, base)
        else:
            pairs = named_circuits(circuits, grid, degree, seed, bidirectional)
    else:
        wiring = "given"
        given = whole_numbers(circuits, "optical: circuits")
        pairs = given if given.size else given.reshape(0, 2)
    if demand is not None and wiring not in METHODS:
        raise InputError(
            f"optical: demand is for circuits chosen by {', '.join(METHODS)}, got {wiring} circuits"
        )
    check_ports(pairs, devices, degree)
    if bidirectional:
        pairs = paired(pairs)
        check_ports(pairs, devices, degree)
    base_topology = _base(base, grid, base_bandwidth or bandwidth, latency)
    base_links: IntArray = np.empty((0, 2), dtype=np.int64)
    base_capacity = base_latency = np.empty(0)
    nodes = devices
    if base_topology is not None:
        if base_topology.num_devices != devices:
            raise InputError(
                f"optical: base must have {devices} devices, has {base_topology.num_devices}"
            )
        nodes = base_topology.num_nodes
        base_links = base_topology.links
        base_capacity, base_latency = base_topology.capacity, base_topology.latency
    links, capacity, link_latency, is_optical = merge_links(
        np.concatenate([base_links, pairs]),
        np.concatenate([base_capacity, np.full(len(pairs), bandwidth)]),
        np.concatenate([base_latency, np.full(len(pairs), latency)]),
        np.repeat([False, True], [len(base_links), len(pairs)]),
    )
    if len(links) == 0:
        raise InputError("optical: no circuits and no base, so no links")
    return require_connected(
        Topology(
            name="optical" if wiring == "given" else f"optical-{wiring}",
            num_devices=devices,
            num_nodes=nodes,
            links=links,
            capacity=capacity,
            latency=link_latency,
            optical=is_optical,
            grid=grid,
            default_routing="hybrid" if len(pairs) and base_topology is not None else "ecmp",
            parameters={
                "kind": "optical",
                "wiring": wiring,
                "circuits": pairs,
                "degree": degree,
                "base": base_topology,
            },
        )
    )


def _for_demand(
    method: str,
    demand: ArrayLike | None,
    devices: int,
    degree: int,
    bidirectional: bool,
    base: str | Topology | None,
) -> IntArray:
    """Return the circuits that ``method`` lights; without a base they join all devices."""
    if demand is None:
        raise InputError(f"optical: circuits={method} need demand [N, N] in bytes")
    alone = base is None or base == "none"
    if np.shape(demand) != (devices, devices):
        raise InputError(
            f"optical: demand must have shape [{devices}, {devices}], got {list(np.shape(demand))}"
        )
    return choose_circuits(demand, degree, method, bidirectional, connected=alone)


def _base(
    base: str | Topology | None, grid: tuple[int, int], bandwidth: float, latency: float
) -> Topology | None:
    if base is None or base == "none":
        return None
    if isinstance(base, Topology):
        return base
    if base not in BASES:
        raise unknown("optical base", base, [*BASES, "none"])
    made: Topology = BASES[base](grid, bandwidth, latency)
    return made
