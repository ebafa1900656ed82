"""Topologies as other simulators and graph tools read them; each format is one file of this folder.

An exporter returns the content of each file by its name and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

from numpy.typing import ArrayLike

from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology

Files = dict[str, str]
_Exporter = Callable[[Topology, Routing | None, ArrayLike | None], Files]

# Each module has `files(topology, routing, demand)`; it is imported when first used.
_MODULES: Mapping[str, str] = {
    "simgrid": "simgrid",
    "htsim": "htsim",
    "astra-sim": "astra_sim",
    "graphml": "graphml",
}


def formats() -> tuple[str, ...]:
    """Return the names that ``export`` takes as ``format``."""
    return tuple(_MODULES)


def export(
    topology: Topology,
    format: str,
    routing: Routing | None = None,
    demand: ArrayLike | None = None,
) -> Files:
    """Return the topology's files in another tool's format: content by file name.

    ``simgrid``: a platform with explicit routes (``routing``, which must be single path; by default
    the topology's own where it is, else ``shortest``). ``htsim``: ``.topo`` of a leaf-spine or
    fat-tree and, of ``demand`` [N, N] bytes, the connection matrix ``.cm`` (of any topology, then
    without ``.topo``). ``astra-sim``: the analytical backend's network of a torus, hypercube,
    leaf-spine, rails, star or full graph. ``graphml``: any topology, which ``from_networkx`` reads
    back. Other formats have no place for routes or demand and leave them out.

    Raises InputError for an unknown format and a topology, routing or demand that it cannot hold.

    >>> from topomoe import topologies
    >>> print(*export(topologies.make("torus", grid=(4, 4)), "graphml"))
    torus.graphml
    """
    if format not in _MODULES:
        raise unknown("export format", format, _MODULES)
    if routing is not None and routing.topology is not topology:
        raise InputError(f"routing is over another topology than {topology.name}")
    module = import_module(f"{__name__}.{_MODULES[format]}")
    return cast(_Exporter, module.files)(topology, routing, demand)
