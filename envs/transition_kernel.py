"""``step`` and ``observe`` of ``topomoe.envs.transition`` for many copies in one pass, compiled.

Every number comes from the same operations in the same order as there, so both agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.layout import COST_LIMIT, ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import AVERAGE_WEIGHT, Outcome, State
from topomoe.topologies.kernel import exact_kernel

FloatArray = NDArray[np.float64]
Observations = NDArray[np.float32]
KEPT = 1 - AVERAGE_WEIGHT


@dataclass(frozen=True, eq=False)
class Tables:
    """What does not depend on the choices, once for a problem and a layout.

    Attributes:
        priced: float64 [T, K, C + 2], the C components, dispatch and combine together, and cost.
        weighted: float64 [T, K], what an epoch adds to the moving average.
        last: float32 [T + 1, K], relative costs as observed after the epoch; row T: the prior.
        demand: float32 [T + 1, H], as observed after the epoch; row T: zero.
        coming: float32 [T + 1, .], what is observed of an epoch before it; row T: zero.
        left: float32 [episode_length + 1], by epochs that are over.
    """

    problem: SwitchingProblem
    priced: FloatArray
    weighted: FloatArray
    last: Observations
    demand: Observations
    coming: Observations
    left: Observations

    @classmethod
    def of(cls, problem: SwitchingProblem, layout: ObservationLayout) -> Tables:
        """Return the tables of a problem as a layout has it observed."""
        parts = [*problem.components.values(), problem.network, problem.cost]
        relative = np.minimum(problem.cost / problem.scale, COST_LIMIT)
        prior = np.minimum(problem.prior / problem.scale, COST_LIMIT)
        known = [relative] if layout.observe == "after" else []
        known += [problem.features] if layout.queue else []
        coming = np.zeros((problem.num_epochs + 1, layout["left"].start - layout["demand"].stop))
        coming[:-1] = np.concatenate([np.zeros((problem.num_epochs, 0)), *known], axis=1)
        demand = np.zeros((problem.num_epochs + 1, layout.num_demand), dtype=np.float32)
        demand[:-1] = problem.demand
        done = np.arange(problem.episode_length + 1)
        return cls(
            problem=problem,
            priced=np.ascontiguousarray(np.stack(parts, axis=2)),
            weighted=AVERAGE_WEIGHT / problem.scale * problem.cost,
            last=np.concatenate([relative, prior[None]]).astype(np.float32),
            demand=demand,
            coming=coming.astype(np.float32),
            left=(1.0 - done / problem.episode_length).astype(np.float32),
        )

    def step(self, state: State, chosen: NDArray[np.int64]) -> tuple[FloatArray, Outcome]:
        """Run one epoch: ``state`` moves on in place; return rewards and what it cost."""
        problem, migration = self.problem, self.problem.migration
        copies = len(chosen)
        charged = np.empty((len(problem.components) + 3, copies))
        reward, switched = np.empty(copies), np.empty(copies, dtype=np.bool_)
        epoch = np.empty(copies, dtype=np.int64)
        none = np.zeros((1, 1, 1))
        _run_epoch(
            chosen,
            state.start,
            state.done,
            state.configuration,
            state.average,
            self.priced,
            problem.switch_cost,
            migration is not None,
            none if migration is None else migration.stall,
            none if migration is None else migration.lag,
            0.0 if migration is None else migration.slowdown,
            self.weighted,
            problem.scale,
            epoch,
            charged,
            reward,
            switched,
        )
        return reward, Outcome(
            epoch=epoch,
            configuration=chosen,
            components=dict(zip(problem.components, charged, strict=False)),
            reconfiguration=charged[-3],
            migration=charged[-2],
            cost=charged[-1],
            switched=switched,
        )

    def observe(self, state: State) -> Observations:
        """Return the observations, float32 [n, layout.size]."""
        width = 2 * self.last.shape[1] + self.demand.shape[1] + self.coming.shape[1] + 1
        seen = np.empty((len(state.start), self.last.shape[1] + width), dtype=np.float32)
        _observe(
            state.start,
            state.done,
            state.configuration,
            state.average,
            self.last,
            self.demand,
            self.coming,
            self.left,
            seen,
        )
        return seen


@exact_kernel
def _run_epoch(
    chosen: NDArray[np.int64],
    start: NDArray[np.int64],
    done: NDArray[np.int64],
    configuration: NDArray[np.int64],
    average: FloatArray,
    priced: FloatArray,
    switch_cost: FloatArray,
    moves: bool,
    stall: FloatArray,
    lag: FloatArray,
    slowdown: float,
    weighted: FloatArray,
    scale: float,
    epoch: NDArray[np.int64],
    charged: FloatArray,
    reward: FloatArray,
    switched: NDArray[np.bool_],
) -> None:
    components = charged.shape[0] - 3
    placements, last_row = stall.shape[1], stall.shape[0] - 1
    for copy in range(chosen.size):
        t, before, now = start[copy] + done[copy], configuration[copy], chosen[copy]
        rewiring, waiting = switch_cost[before, now], 0.0
        if moves:
            old, new = before % placements, now % placements
            row, serving = min(t, last_row), now - new + old
            share = lag[row, old, new]
            for part in range(components):
                charged[part, copy] = (1.0 - share) * priced[t, now, part] + share * priced[
                    t, serving, part
                ]
            network = priced[t, serving, components]
            waiting = stall[row, old, new] + share * slowdown * network
            usual = (1.0 - share) * priced[t, now, components + 1]
            usual += share * priced[t, serving, components + 1]
            cost = usual + rewiring + waiting
        else:
            for part in range(components):
                charged[part, copy] = priced[t, now, part]
            cost = priced[t, now, components + 1] + rewiring
        charged[components, copy] = rewiring
        charged[components + 1, copy] = waiting
        charged[components + 2, copy] = cost
        reward[copy] = -cost / scale
        switched[copy] = now != before
        epoch[copy] = t
        for k in range(weighted.shape[1]):
            average[copy, k] = KEPT * average[copy, k] + weighted[t, k]
        done[copy] += 1
        configuration[copy] = now


@exact_kernel
def _observe(
    start: NDArray[np.int64],
    done: NDArray[np.int64],
    configuration: NDArray[np.int64],
    average: FloatArray,
    last: Observations,
    demand: Observations,
    coming: Observations,
    left: Observations,
    seen: Observations,
) -> None:
    count, none, length = last.shape[1], last.shape[0] - 1, left.size - 1
    statistics, known = demand.shape[1], coming.shape[1]
    for copy in range(start.size):
        epoch = start[copy] + done[copy]
        past = epoch - 1 if done[copy] > 0 else none
        future = epoch if done[copy] < length else none
        for k in range(count):
            seen[copy, k] = 0.0
            seen[copy, count + k] = last[past, k]
            seen[copy, 2 * count + k] = min(average[copy, k], COST_LIMIT)
        seen[copy, configuration[copy]] = 1.0
        for h in range(statistics):
            seen[copy, 3 * count + h] = demand[past, h]
        for f in range(known):
            seen[copy, 3 * count + statistics + f] = coming[future, f]
        seen[copy, 3 * count + statistics + known] = left[done[copy]]
