"""GraphML, through networkx: every link with its capacity, latency and medium.

Brandes et al., "GraphML progress report" (2001). Numbers are written so that they read back equal.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology


def files(topology: Topology, routing: Routing | None, demand: ArrayLike | None) -> dict[str, str]:
    """Return ``NAME.graphml``; graph attributes say the units and the grid."""
    import networkx as nx

    graph: nx.DiGraph[Any] = nx.DiGraph(topology.graph)
    graph.graph |= {"capacity_unit": "bytes/s", "latency_unit": "s"}
    if topology.grid is not None:
        graph.graph |= {"rows": topology.grid[0], "columns": topology.grid[1]}
    text = "\n".join(nx.generate_graphml(graph, named_key_ids=True)) + "\n"
    return {f"{topology.name}.graphml": "<?xml version='1.0' encoding='utf-8'?>\n" + text}
