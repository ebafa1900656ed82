"""What placements are expected to cost: the forecast as tokens, priced layer by layer.

Loads alone do not say whether a move pays where links bind: two devices with equal loads may be
near or far. So proposals are ranked by what the forecast, at the pool's usual numbers of tokens
and bytes, takes under them on the topology that is set. A move changes one layer, so that one
layer is priced for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import Cluster, CoDesignProblem, StepPool
from topomoe.envs.proposals import Moves
from topomoe.envs.step_price import price_steps

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SlotArray = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class ForecastPrice:
    """Forecasts as steps of one layer each: step ``row * M + m`` is layer m of forecast ``row``.

    Attributes:
        cluster: the problem's, with one layer.
        pool: the forecasts.
        num_layers: M.
    """

    cluster: Cluster
    pool: StepPool
    num_layers: int

    @classmethod
    def of(cls, problem: CoDesignProblem, row: IntArray, layout: IntArray) -> ForecastPrice:
        """Return the forecasts of epochs ``row`` [R], each under a layout [R]."""
        cluster, pool = problem.cluster, problem.pool
        layers, layouts = cluster.num_layers, len(cluster.layouts)
        tokens = pool.counts.sum(axis=3)
        usual = np.zeros((layouts, *tokens.shape[1:]), dtype=np.float32)
        sent = np.zeros((layouts, pool.background.shape[1]), dtype=np.float32)
        for v in np.unique(pool.layout):
            usual[v] = tokens[pool.layout == v].mean(axis=0)
            sent[v] = pool.background[pool.layout == v].mean(axis=0)
        load = problem.forecast[row]
        total = np.maximum(load.sum(axis=2, keepdims=True), np.finfo(np.float32).tiny)
        counts = (load / total)[:, :, None] * usual[layout].swapaxes(1, 2)[..., None]
        steps = len(row) * layers
        none = np.zeros((steps, tokens.shape[1]))
        return cls(
            replace(cluster, slot_expert=np.ascontiguousarray(cluster.slot_expert[:, :, :1])),
            StepPool(
                counts=np.ascontiguousarray(counts.reshape(steps, *counts.shape[2:])[:, :, None]),
                background=np.repeat(sent[layout], layers, axis=0),
                shared=none,
                other=none,
                layout=np.repeat(layout, layers).astype(np.int16),
                context=np.zeros(steps, dtype=np.int16),
            ),
            layers,
        )

    def layer_seconds(self, row: IntArray, topology: IntArray, slots: SlotArray) -> FloatArray:
        """Return seconds [n, M] of forecasts ``row`` [n] under placements [n, M, S]."""
        layers = self.num_layers
        steps = row[:, None] * layers + np.arange(layers)
        return self._seconds(
            steps.ravel(), topology.repeat(layers), slots.reshape(steps.size, 1, -1)
        ).reshape(steps.shape)

    def ranked(
        self, row: IntArray, topology: IntArray, slots: SlotArray, moves: Moves
    ) -> tuple[Moves, FloatArray]:
        """Return the moves, those that save most first, and the seconds [n, M] without any.

        Their ``gain`` is the share of the placement's seconds that they save; it may be negative.
        """
        before = self.layer_seconds(row, topology, slots)
        gain = np.full(moves.layer.shape, -np.inf)
        n, choice = np.nonzero(moves.valid)
        layer = moves.layer[n, choice].astype(np.int64)
        tried = slots[n, layer]
        each = np.arange(len(n))
        for end in (0, 1):
            slot = moves.slot[n, choice, end]
            has = slot >= 0
            tried[each[has], slot[has]] = moves.expert[n, choice, end][has]
        after = self._seconds(row[n] * self.num_layers + layer, topology[n], tried[:, None])
        gain[n, choice] = (before[n, layer] - after) / before.sum(axis=1)[n]
        order = np.argsort(-gain, axis=1, kind="stable")
        best = np.take_along_axis(gain, order, axis=1)
        return Moves(
            layer=np.take_along_axis(moves.layer, order, axis=1),
            slot=np.take_along_axis(moves.slot, order[..., None], axis=1),
            expert=np.take_along_axis(moves.expert, order[..., None], axis=1),
            gain=np.where(np.isfinite(best), best, 0.0).astype(np.float32),
            imbalance=moves.imbalance,
        ), before

    def _seconds(self, steps: IntArray, topology: IntArray, slots: SlotArray) -> FloatArray:
        priced = price_steps(self.cluster, self.pool, steps, topology, slots)
        return np.asarray(priced.sum(axis=0))
