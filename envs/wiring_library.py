"""The wirings that one optical fabric may choose from: named ones, and ones chosen from traffic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.delay_sweep_settings import DelaySweepSettings
from topomoe.topologies import budget
from topomoe.topologies.matching import choose_circuits
from topomoe.topologies.topology import Topology


def wire(
    settings: DelaySweepSettings, grid: tuple[int, int], circuits: str | NDArray[np.int64]
) -> Topology:
    """Return the settings' fabric with these circuits, by name or as pairs [X, 2]."""
    return budget.build(
        "optical",
        grid,
        settings.bandwidth,
        settings.latency,
        "iso-injection",
        settings.base_share,
        settings.ports,
        circuits=circuits,
    )


def wiring_library(
    settings: DelaySweepSettings, grid: tuple[int, int], demands: NDArray[np.float64]
) -> dict[str, Topology]:
    """Return wirings by name: the settings' own, and those for ``demands`` [C, N, N].

    The demands are the training means of C collectives. Each group of alike collectives, and all
    of them together, get circuits chosen by each of the settings' methods, which lead everywhere.
    Wirings with the circuits of an earlier one are left out.
    """
    library = {name: wire(settings, grid, name) for name in settings.wirings}
    groups = alike(demands, settings.clusters)
    chosen = {"all": demands.mean(axis=0)}
    if groups.max() > 0:
        chosen |= {f"group-{g}": demands[groups == g].mean(axis=0) for g in range(groups.max() + 1)}
    for method in settings.methods:
        for name, demand in chosen.items():
            circuits = choose_circuits(demand, settings.ports, method, connected=True)
            library[f"{method}-{name}"] = wire(settings, grid, circuits)
    seen: list[list[list[int]]] = []
    different = {}
    for name, topology in library.items():
        lit = sorted(topology.parameters["circuits"].tolist())
        if lit not in seen:
            seen.append(lit)
            different[name] = topology
    return different


def alike(demands: NDArray[np.float64], groups: int) -> NDArray[np.int64]:
    """Return the group of each of C demands [C, N, N], numbered in the order they first appear.

    Ward's hierarchical clustering (1963) of who sends which share of the bytes to whom.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(demands) < 2 or groups < 2:
        return np.zeros(len(demands), dtype=np.int64)
    total = np.maximum(demands.sum(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
    flat = (demands / total).reshape(len(demands), -1)
    label = fcluster(linkage(flat, "ward"), groups, "maxclust")
    order: Sequence[int] = list(dict.fromkeys(label.tolist()))
    return np.array([order.index(g) for g in label.tolist()], dtype=np.int64)
