"""What an epoch costs whose placement may be any: from the library's tables, or priced afresh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, moving_cost
from topomoe.envs.codesign_task import CoDesignTask
from topomoe.envs.moves import moved_seconds
from topomoe.envs.step_price import price_steps
from topomoe.envs.transition import charge

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
    epoch, rewired = change.epoch[free], change.topology[free, 1]
    seconds = moved_seconds(cluster, change.before[free], change.after[free], task.of_epoch[epoch])
    stall, lag = moving_cost(seconds, task.problem.epoch_seconds, cluster.migration_share)
    parts = _epoch_parts(task, epoch, rewired, change.after, free)
    waiting = np.flatnonzero(lag > 0)
    serving = np.zeros_like(parts)
    serving[:, waiting] = _epoch_parts(
        task, epoch[waiting], rewired[waiting], change.before, free[waiting]
    )
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
    task: CoDesignTask, epoch: IntArray, topology: IntArray, slots: SlotArray, row: IntArray
) -> FloatArray:
    """Return seconds [4, n] of epochs under topologies and the rows [n] of ``slots``."""
    problem = task.problem
    parts = price_steps(problem.cluster, problem.pool, problem.steps[epoch], topology, slots, row)
    return np.asarray(problem.repeat * parts.sum(axis=2))
