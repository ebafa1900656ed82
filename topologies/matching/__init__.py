"""Which circuits to light for a demand, and in which order: one algorithm a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from topomoe.topologies.checked import whole
from topomoe.topologies.circuits import check_ports
from topomoe.topologies.errors import unknown
from topomoe.topologies.matching.b_matching import b_matching
from topomoe.topologies.matching.demand import demand_matrix
from topomoe.topologies.matching.mixnet import mixnet
from topomoe.topologies.matching.ring import join_by_ring, strongly_connected
from topomoe.topologies.matching.topo_opt import topo_opt
from topomoe.topologies.topology import IntArray

METHODS: Mapping[str, Callable[..., IntArray]] = {
    "b-matching": b_matching,
    "mixnet": mixnet,
    "topo-opt": topo_opt,
}


def choose_circuits(
    demand: ArrayLike,
    degree: int,
    method: str = "b-matching",
    bidirectional: bool = False,
    connected: bool = False,
    **options: Any,
) -> IntArray:
    """Return circuits int64 [X, 2] (transmitter, receiver) for a demand, sorted.

    demand [N, N] bytes; at most ``degree`` transmit and ``degree`` receive ports a device.
    ``bidirectional`` lights circuits in pairs, one each way. ``connected``, for a fabric without an
    electrical base: where the choice does not lead from every device to every other, one port a
    device (two if ``bidirectional`` and N > 2) goes to a ring through all devices and the rest are
    chosen for the demand that the ring does not carry directly.

    Methods and their options: ``b-matching(parallel=)`` exact maximum weight;
    ``mixnet(base=, as_printed=)`` greedy by completion time; ``topo-opt(rounds=, swaps=)`` for a
    small bottleneck with relays, always connected. Raises InputError for a bad demand or
    degree, an unknown method or option, and a ring that does not fit the ports.

    >>> choose_circuits([[0, 9, 1], [2, 0, 8], [7, 3, 0]], degree=1).tolist()
    [[0, 1], [1, 2], [2, 0]]
    """
    matrix = demand_matrix(demand)
    degree = whole(degree, "degree", least=1)
    function = lookup(METHODS, method, "circuit method", 3, options)
    circuits: IntArray = function(matrix, degree, bidirectional, **options)
    if connected and not strongly_connected(circuits, len(matrix)):
        circuits = join_by_ring(function, matrix, degree, bidirectional, options)
    check_ports(circuits, len(matrix), degree)
    return circuits[np.lexsort(circuits.T[::-1])]


def lookup(
    functions: Mapping[str, Callable[..., Any]],
    name: str,
    kind: str,
    skipped: int,
    options: Mapping[str, Any],
) -> Callable[..., Any]:
    """Return the function of that name; InputError for an unknown name or option.

    Its first ``skipped`` parameters are no options.
    """
    if name not in functions:
        raise unknown(kind, name, functions)
    allowed = list(inspect.signature(functions[name]).parameters)[skipped:]
    for option in options:
        if option not in allowed:
            raise unknown(f"option of {name}", option, allowed or ["none"])
    return functions[name]
