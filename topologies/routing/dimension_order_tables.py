"""Dimension-order routing as next-hop tables, on a mesh or torus of any number of dimensions.

A pair half a ring apart goes by its source's coordinate, which is still the coordinate of the
device where the turn into that dimension begins: the destination's tables hold all there is to say.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError
from topomoe.topologies.routing.next_hop import NextHopRouting
from topomoe.topologies.topology import IntArray, Topology


def grid_shape(topology: Topology, policy: str) -> tuple[tuple[int, ...], bool]:
    """Return the sizes of the dimensions and whether they wrap.

    ``parameters["dimensions"]`` and ``["wrap"]`` say so of a topology of any number of dimensions,
    devices numbered in row-major order. Raises InputError where there are no dimensions.
    """
    parameters = topology.parameters
    if "dimensions" in parameters and "wrap" in parameters:
        shape = tuple(int(size) for size in parameters["dimensions"])
        if prod(shape) == topology.num_devices == topology.num_nodes:
            return shape, bool(parameters["wrap"])
    kind = parameters.get("kind")
    if kind not in ("mesh", "torus") or topology.grid is None:
        raise InputError(f"{policy} needs a mesh or torus topology, got {topology.name}")
    if parameters["twist"]:
        raise InputError(f"{policy} has no path over the twist of {topology.name}: use ecmp")
    return topology.grid, kind == "torus"


def directions(size: int, wraps: bool, tie: str) -> NDArray[np.int8]:
    """Return +1 or -1 for the way from a to b along a dimension, [size, size]; 0 where a = b.

    On a ring the short way; at distance size/2 ``balanced`` sends even a up and odd a down,
    ``plus`` always up.
    """
    a, b = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    if not wraps:
        return np.asarray(np.sign(b - a), dtype=np.int8)
    ahead = (b - a) % size
    up = 2 * ahead < size
    at_tie = 2 * ahead == size
    up |= at_tie & ((a % 2 == 0) | (tie == "plus"))
    return np.asarray(np.where(a == b, 0, np.where(up, 1, -1)), dtype=np.int8)


def dimension_order_tables(
    topology: Topology,
    name: str,
    shape: tuple[int, ...],
    wraps: bool,
    tie: str,
    last_first: bool = False,
) -> NextHopRouting:
    """Return the routing: each device's one next hop towards every destination.

    ``last_first`` takes the dimensions from the last to the first. Raises InputError where a link
    between neighbours is missing.
    """
    devices = topology.num_devices
    device = np.arange(devices)
    place = np.unravel_index(device, shape)
    next_link = np.full((devices, devices), -1, dtype=np.int32)  # [destination, at]
    distance = np.zeros((devices, devices), dtype=np.int16)
    axes = range(len(shape)) if last_first else reversed(range(len(shape)))
    for axis in axes:  # the dimension taken first is written last, over the others
        size = shape[axis]
        way = directions(size, wraps, tie)[place[axis][None, :], place[axis][:, None]]
        along = place[axis].astype(np.int16)
        step = np.abs(along[None, :] - along[:, None])
        distance += np.minimum(step, size - step) if wraps else step
        stride = prod(shape[axis + 1 :])
        for sign in (1, -1):
            neighbour = device + ((place[axis] + sign) % size - place[axis]) * stride
            link = topology.link_ids(device, neighbour).astype(np.int32)
            np.copyto(next_link, link[None, :], where=way == sign)
    np.fill_diagonal(next_link, -2)
    if (next_link == -1).any():
        raise InputError(f"{name}: {topology.name} lacks a link between neighbours: use ecmp")
    order = np.argsort(-distance, axis=1, kind="stable")[:, :-1]  # the destination itself is last
    link = np.take_along_axis(next_link, order, axis=1).reshape(-1)
    ptr: IntArray = np.arange(devices + 1, dtype=np.int64) * (devices - 1)
    reachable = np.ones((devices, devices), dtype=np.bool_)
    return NextHopRouting(topology, name, ptr, link, np.ones(len(link)), reachable)
