"""What steps put on a cluster's devices and links, drawn on the device grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import Cluster, StepPool
from topomoe.envs.grid_picture import grid_picture
from topomoe.topologies.topology import Topology


def cluster_picture(
    cluster: Cluster,
    pool: StepPool,
    steps: NDArray[np.int32],
    topology: int,
    slot_expert: NDArray[np.int16],
) -> NDArray[np.uint8]:
    """Return the picture of some steps under a topology and a placement; see ``grid_picture``.

    Devices are shaded by the tokens they compute, links by the seconds they are busy with dispatch
    and combine, each summed over steps and layers; a topology's optical links are its circuits.

    Args:
        cluster: the devices and networks.
        pool: the steps.
        steps: int [J], numbers of steps, all of one layout; none: nothing is loaded.
        topology: its number.
        slot_expert: int16 [M, S], what each slot holds under that layout.
    """
    from topomoe.envs.step_price import step_loads  # loads the compiler

    device = np.zeros(cluster.num_devices)
    link = np.zeros(cluster.pull.shape[-1])
    for step in np.asarray(steps).tolist():
        loads = step_loads(cluster, pool, step, topology, slot_expert)
        device += loads.device_tokens.sum(axis=0)
        link += loads.link_seconds.sum(axis=(0, 1))
    if not len(cluster.links):
        return grid_picture(cluster.grid, device)
    links, optical = cluster.links[topology], cluster.optical[topology]
    electrical = ~optical
    return grid_picture(
        cluster.grid, device, links[electrical], link[electrical], links[optical], link[optical]
    )


def drawn_links(
    topologies: Sequence[Topology],
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Return ``Cluster.links`` [A, L, 2] and ``optical`` [A, L] of a library of topologies."""
    count = max(topology.num_links for topology in topologies)
    links = np.full((len(topologies), count, 2), -1, dtype=np.int32)
    optical = np.zeros((len(topologies), count), dtype=np.bool_)
    for a, topology in enumerate(topologies):
        links[a, : topology.num_links] = topology.links
        optical[a, : topology.num_links] = topology.optical
    return links, optical
