"""Which circuits an optical fabric lights: named wirings of a grid, as lists of device pairs.

A circuit is directed: a transmit port of one device to a receive port of another. A wiring needs at
most ``degree`` transmit and ``degree`` receive ports a device; all wirings of one fabric are
reachable from each other by rewiring.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.mesh import mesh_edges
from topomoe.topologies.topology import IntArray, both_ways
from topomoe.topologies.torus import torus_edges

_TWIST = re.compile(r"torus-twist-(\d+)")


def wiring_names(grid: tuple[int, int]) -> tuple[str, ...]:
    """Return the wirings that ``circuits`` knows by name on this grid."""
    twists = sorted({max(1, grid[0] // 4), max(1, grid[0] // 2)})
    return ("mesh", "torus", *(f"torus-twist-{t}" for t in twists), "rows", "columns", "expander")


def check_wiring(name: str, grid: tuple[int, int]) -> None:
    """Raise InputError for a name that ``named_circuits`` does not know."""
    if name not in wiring_names(grid) and not _TWIST.fullmatch(name):
        raise unknown("wiring", name, wiring_names(grid))


def ring_circuits(members: IntArray, degree: int) -> IntArray:
    """Return circuits within each group of ``members`` [groups, size]: the nearest on a ring.

    With ``degree`` ports each device reaches the degree/2 next and the degree/2 previous members;
    in a group of at most degree + 1 members, everyone reaches everyone.
    """
    size = members.shape[1]
    reach = min(degree, size - 1)
    steps = [s * sign for s in range(1, reach // 2 + 1) for sign in (1, -1)]
    if reach % 2:
        steps.append(size // 2 if size % 2 == 0 else reach // 2 + 1)
    steps = sorted({s % size for s in steps})
    position = np.arange(size)
    pairs = [np.stack([members, members[:, (position + s) % size]], axis=-1) for s in steps]
    if not pairs:
        return np.empty((0, 2), dtype=np.int64)
    return np.concatenate([p.reshape(-1, 2) for p in pairs])


def expander_circuits(devices: int, degree: int, seed: int) -> IntArray:
    """Return ``degree`` random matchings (cyclic permutations): an expander with high probability.

    Each is one cycle through all devices, so that the wiring is strongly connected; a random
    regular wiring of this kind is what Jellyfish (Singla et al., NSDI 2012) builds from packet
    switches.
    """
    rng = np.random.default_rng(seed)
    taken = np.eye(devices, dtype=np.bool_)
    circuits = []
    for _ in range(min(degree, devices - 1)):
        for _attempt in range(200):
            order = rng.permutation(devices)
            cycle = np.stack([order, np.roll(order, -1)], axis=-1)
            clash = taken[cycle[:, 0], cycle[:, 1]]
            if not clash.any():
                break
            # A swap with the next device repairs most clashes; then the cycle is checked again.
            for at in np.flatnonzero(clash):
                a, b = (at + 1) % devices, int(rng.integers(devices))
                order[a], order[b] = order[b], order[a]
            cycle = np.stack([order, np.roll(order, -1)], axis=-1)
            if not taken[cycle[:, 0], cycle[:, 1]].any():
                break
        taken[cycle[:, 0], cycle[:, 1]] = True
        circuits.append(cycle)
    return np.concatenate(circuits).astype(np.int64)


def named_circuits(
    name: str, grid: tuple[int, int], degree: int, seed: int = 0, bidirectional: bool = False
) -> IntArray:
    """Return the circuits [X, 2] (transmitter, receiver) of a named wiring of the grid.

    ``mesh``, ``torus``, ``torus-twist-T``, ``rows`` and ``columns`` (circuits within each row or
    column: each device reaches its nearest on the ring), ``expander`` (seeded; half as many cycles
    where ``bidirectional`` will add the way back of each).
    """
    check_wiring(name, grid)
    rows, columns = grid
    device = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    if name == "mesh":
        return both_ways(mesh_edges(rows, columns))
    if name == "torus":
        return both_ways(torus_edges(rows, columns))
    if match := _TWIST.fullmatch(name):
        return both_ways(torus_edges(rows, columns, int(match[1]) % rows))
    if name == "rows":
        return ring_circuits(device, degree)
    if name == "columns":
        return ring_circuits(np.ascontiguousarray(device.T), degree)
    if rows * columns < 2:
        raise InputError("expander: devices must be >= 2")
    if bidirectional and degree < 2:
        raise InputError(f"expander: bidirectional needs degree >= 2, got {degree}")
    cycles = degree // 2 if bidirectional else degree
    return expander_circuits(rows * columns, cycles, seed)


def paired(circuits: IntArray) -> IntArray:
    """Return the circuits and the way back of each that has none, sorted."""
    there = [(a, b) for a, b in circuits.tolist()]
    both = Counter(there) | Counter((b, a) for a, b in there)
    return np.array(sorted(both.elements()), dtype=np.int64).reshape(-1, 2)


def check_ports(circuits: IntArray, devices: int, degree: int) -> None:
    """Raise InputError where a circuit names no device or a device exceeds ``degree`` ports."""
    if circuits.ndim != 2 or circuits.shape[1] != 2:
        raise InputError("circuits must be pairs (transmitter, receiver)")
    if len(circuits) and (circuits.min() < 0 or circuits.max() >= devices):
        at = int(np.argmax(((circuits < 0) | (circuits >= devices)).any(axis=1)))
        raise InputError(
            f"circuits must join devices 0..{devices - 1}, circuit {at} is "
            f"{circuits[at, 0]}->{circuits[at, 1]}"
        )
    if (circuits[:, 0] == circuits[:, 1]).any():
        at = int(np.argmax(circuits[:, 0] == circuits[:, 1]))
        raise InputError(
            f"a circuit must join two devices, circuit {at} stays at {circuits[at, 0]}"
        )
    for column, port in ((0, "transmit"), (1, "receive")):
        used = np.bincount(circuits[:, column], minlength=devices)
        if used.max(initial=0) > degree:
            at = int(np.argmax(used))
            raise InputError(
                f"circuits must use at most degree={degree} {port} ports a device, "
                f"device {at} uses {used[at]}"
            )
