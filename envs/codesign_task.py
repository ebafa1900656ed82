"""A co-design problem with the choices an environment offers, and what follows from it alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, CoDesignProblem
from topomoe.envs.codesign_layout import CoDesignLayout
from topomoe.envs.codesign_plans import Plans
from topomoe.envs.forecast_price import ForecastPrice
from topomoe.envs.moves import rebalance
from topomoe.envs.step_price import Tables, library_layers, tables
from topomoe.topologies.errors import InputError, unknown

RECENT = "recent"


@dataclass(frozen=True, eq=False)
class CoDesignTask:
    """What an environment runs.

    Attributes:
        problem: the timeline.
        layout: of observations and actions.
        topology: the fixed topology; -1: it is chosen.
        start: the configuration of the library in which every episode starts.
        columns: int64 [K], the configurations of the library whose costs are observed.
        of_epoch: int64 [T], the layout of the devices in each epoch.
        stale: int64 [T], the row of ``plans`` for the epoch under the layout before it.
        plans: what proposals depend on; a row an epoch under its layout, then one for each that
            changes it under the layout before.
        price: what forecasts cost, with the same rows.
    """

    problem: CoDesignProblem
    layout: CoDesignLayout
    topology: int
    start: int
    columns: NDArray[np.int64]
    of_epoch: NDArray[np.int64]
    stale: NDArray[np.int64]
    plans: Plans
    price: ForecastPrice

    @classmethod
    def of(
        cls,
        problem: CoDesignProblem,
        moves: int = 8,
        topology: str | None = None,
        fixed: bool = False,
        observe: str = "before",
        queue: bool = True,
    ) -> CoDesignTask:
        """Return the task; ``fixed``: on ``topology``, by default where the problem starts.

        Raises:
            InputError: an option is wrong, or a part of the problem is missing.
        """
        cluster, switching = problem.cluster, problem.switching
        if set(switching.components) != set(PARTS):
            raise InputError(
                f"the problem's components must be {list(PARTS)}, got {list(switching.components)}"
            )
        if RECENT in cluster.placements and problem.recent.shape[:1] != problem.steps.shape[:1]:
            raise InputError("the problem must hold the slots of its placement recent")
        count = len(cluster.placements)
        columns = np.arange(switching.num_configurations)
        start, at = switching.start, -1
        if fixed:
            if topology is not None and topology not in cluster.topologies:
                raise unknown("topology", topology, cluster.topologies)
            at = start // count if topology is None else cluster.topologies.index(topology)
            columns = at * count + np.arange(count)
            start = int(columns[switching.prior[columns].argmin()])
        layout = CoDesignLayout(
            num_topologies=len(cluster.topologies),
            num_placements=count,
            num_moves=moves,
            num_features=len(switching.feature_names),
            num_demand=len(switching.demand_names),
            fitted=bool((problem.fitted >= 0).any()),
            fixed=fixed,
            observe=observe,
            queue=queue,
        )
        rows = _rows(problem)
        plans = Plans.of(cluster, rows.forecast, rows.layout, rows.target, moves)
        of_epoch = rows.layout[: len(rows.stale)]
        return cls(problem, layout, at, start, columns, of_epoch, rows.stale, plans, rows.price)

    @property
    def known(self) -> bool:
        """Whether the coming epoch's layout is known when its configuration is chosen."""
        return self.layout.queue or self.layout.observe == "after"

    @property
    def read(self) -> Tables:
        """The cluster and the timeline's steps as kernels read them."""
        return _rows(self.problem).read

    @property
    def library_layers(self) -> NDArray[np.float64]:
        """Seconds [Q, A, P, M, 3] of every layer of every step under the library."""
        return _rows(self.problem).layers

    @cached_property
    def recent(self) -> int:
        """The library placement that is made anew as the timeline goes on; -1: none."""
        names = self.problem.cluster.placements
        return names.index(RECENT) if RECENT in names else -1

    def library_slots(
        self, epoch: NDArray[np.int64], placement: NDArray[np.int64]
    ) -> NDArray[np.int16]:
        """Return the slots [n, M, S] of library placements [n] in epochs [n]."""
        slots = self.problem.cluster.slot_expert[placement, self.of_epoch[epoch]]
        if self.recent >= 0:
            renewed = placement == self.recent
            slots[renewed] = self.problem.recent[epoch[renewed]]
        return np.asarray(slots)


class _Rows(NamedTuple):
    """What all tasks of a problem share; rows as in ``CoDesignTask``."""

    stale: NDArray[np.int64]
    layout: NDArray[np.int64]
    forecast: NDArray[np.float32]
    target: NDArray[np.int16]
    price: ForecastPrice
    read: Tables
    layers: NDArray[np.float64]


@lru_cache(maxsize=4)
def _rows(problem: CoDesignProblem) -> _Rows:
    of_epoch = problem.pool.layout[problem.steps[:, 0]].astype(np.int64)
    epochs = len(of_epoch)
    changes = np.flatnonzero(np.diff(of_epoch, prepend=of_epoch[0]))
    stale = np.arange(epochs)
    stale[changes] = epochs + np.arange(len(changes))
    row = np.concatenate([np.arange(epochs), changes])
    layout = np.concatenate([of_epoch, of_epoch[changes - 1]])
    forecast = np.require(problem.forecast[row], np.float32, ["C", "W"])
    return _Rows(
        stale,
        layout,
        forecast,
        rebalance(problem.cluster, forecast, layout),
        ForecastPrice.of(problem, row, layout),
        tables(problem.cluster, problem.pool),
        library_layers(problem.cluster, problem.pool),
    )
