"""What an epoch costs whose placement may be any: from the library's tables, or priced afresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, moving_cost
from topomoe.envs.codesign_plans import same_slots
from topomoe.envs.codesign_task import CoDesignTask
from topomoe.envs.moves import moved_seconds
from topomoe.envs.step_price import Tables, add_layers, deal, slot_shares, wait
from topomoe.envs.transition import charge
from topomoe.topologies.kernel import kernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SlotArray = NDArray[np.int16]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Change:
    """What n copies change to before an epoch, and from what, [n, ...] each.

    Attributes:
        epoch: int64 [n].
        topology: int64 [n, 2], before and after.
        base: int64 [n, 2], the library placement chosen last.
        moved: bool [n, 2], whether the placement has left it.
        before: int16 [n, M, S], slots in the epoch's layout.
        after: int16 [n, M, S].
    """

    epoch: IntArray
    topology: IntArray
    base: IntArray
    moved: BoolArray
    before: SlotArray
    after: SlotArray


@dataclass(frozen=True, eq=False)
class Charged:
    """Seconds [n] by component, of rewiring, of moving experts and in all; whether any changed."""

    components: Mapping[str, FloatArray]
    reconfiguration: FloatArray
    migration: FloatArray
    cost: FloatArray
    switched: BoolArray


def charge_change(task: CoDesignTask, change: Change) -> Charged:
    """Return what the epochs cost. Copies that stay in the library are charged by its tables."""
    switching, cluster = task.problem.switching, task.problem.cluster
    configuration = change.topology * switching.num_placements + change.base
    table = charge(switching, change.epoch, configuration[:, 0], configuration[:, 1])
    components = {name: table.components[name] for name in PARTS}
    free = np.flatnonzero(change.moved.any(axis=1))
    if not free.size:
        return Charged(
            components, table.reconfiguration, table.migration, table.cost, table.switched
        )
    rewired = change.topology[free, 1]
    layout = task.of_epoch[change.epoch[free]]
    seconds = moved_seconds(cluster, change.before[free], change.after[free], layout)
    stall, lag = moving_cost(seconds, task.problem.epoch_seconds, cluster.migration_share)
    lags = lag > 0
    serving, parts = _epoch_parts(task, change, free, lags)
    slowdown = cluster.migration_share / (1.0 - cluster.migration_share)
    network = serving[PARTS.index("dispatch")] + serving[PARTS.index("combine")]
    for part, name in enumerate(PARTS):
        components[name][free] = (1.0 - lag) * parts[part] + lag * serving[part]
    usual = (1.0 - lag) * parts.sum(axis=0) + lag * serving.sum(axis=0)
    migration, cost, switched = table.migration.copy(), table.cost.copy(), table.switched.copy()
    migration[free] = stall + lag * slowdown * network
    cost[free] = usual + table.reconfiguration[free] + migration[free]
    switched[free] = (change.topology[free, 0] != rewired) | (seconds > 0)
    return Charged(components, table.reconfiguration, migration, cost, switched)


def _epoch_parts(
    task: CoDesignTask, change: Change, row: IntArray, lags: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Return seconds [4, n] of the epochs of ``row`` [n] as served before and after the change.

    Before only where it ``lags`` [n], else 0.
    """
    steps = task.problem.steps[change.epoch[row]].astype(np.int64)
    read = task.read
    layers = np.empty((2, *steps.shape, task.problem.cluster.num_layers, 3))
    _price_changed(
        steps,
        change.topology[row, 1],
        change.base[row],
        row,
        lags,
        change.before,
        change.after,
        np.require(task.problem.cluster.slot_expert, np.int16, ["C", "W"]),
        task.library_layers,
        read,
        layers,
    )
    parts = np.zeros((2, len(PARTS), *steps.shape))
    add_layers(steps, layers[1], read, parts[1])
    waiting = np.flatnonzero(lags)
    if waiting.size:
        some = np.empty((len(PARTS), waiting.size, steps.shape[1]))
        add_layers(steps[waiting], layers[0, waiting], read, some)
        parts[0][:, waiting] = some
    before, after = task.problem.repeat * parts.sum(axis=3)
    return before, after


@kernel
def _price_changed(
    steps: IntArray,
    topology: IntArray,
    base: IntArray,
    row: IntArray,
    lags: BoolArray,
    before: SlotArray,
    after: SlotArray,
    library: SlotArray,
    known: FloatArray,
    read: Tables,
    out: FloatArray,
) -> None:
    """Fill out [2, n, J, M, 3]; base [n, 2]; known [Q, A, P, M, 3] for library [P, V, M, S].

    A layer that the library placement chosen last holds too is looked up, and one that the change
    leaves alone is priced once.
    """
    layers, width = after.shape[1:]
    devices, groups = read.group_of.shape[1], read.counts.shape[1]
    share = np.empty(width, dtype=np.float32)
    replicas = np.zeros((groups, read.counts.shape[3]), dtype=np.int64)
    busy, slowest = np.zeros(devices), np.zeros(groups)
    draws = steps.shape[1]
    most = 2 * layers * draws
    tokens = np.zeros((most, read.pull.shape[3]), dtype=np.float32)
    seconds = np.zeros((2, most, read.pull.shape[4]), dtype=np.float32)
    priced = np.zeros((most, 3))
    where = np.zeros((most, 3), dtype=np.int64)  # side, draw and layer of each that is priced
    for n in range(len(steps)):
        a, v = topology[n], read.layout[steps[n, 0]]
        rows = 0
        for side in (1, 0):
            if side == 0 and not lags[n]:
                continue
            p = base[n, side]
            for m in range(layers):
                held = after[row[n], m] if side == 1 else before[row[n], m]
                if same_slots(held, library[p, v, m]):
                    for j in range(draws):
                        out[side, n, j, m] = known[steps[n, j], a, p, m]
                    continue
                if side == 0 and same_slots(held, after[row[n], m]):
                    continue
                slot_shares(held, read.slot_device[v], read.group_of[v], replicas, share)
                for j in range(draws):
                    q = steps[n, j]
                    priced[rows, 1] = deal(v, q, m, held, share, busy, slowest, tokens[rows], read)
                    where[rows, 0], where[rows, 1], where[rows, 2] = side, j, m
                    rows += 1
        wait(v, a, rows, tokens, seconds, read, priced)
        for r in range(rows):
            side, j, m = where[r]
            out[side, n, j, m] = priced[r]
        if lags[n]:
            for m in range(layers):
                held = before[row[n], m]
                if same_slots(held, after[row[n], m]):
                    for j in range(draws):
                        out[0, n, j, m] = out[1, n, j, m]
