"""Which circuits for which collective, when the order of a step's collectives is known.

A collective is run by one of A actions: a wiring that stays lit until another is chosen, or a
schedule that brings its own rewirings. Both planners are dynamic programmes over (collective,
action) at D delays side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Collectives:
    """What the actions cost for T collectives in order, at D delays.

    Attributes:
        cost: [D, T, A] seconds of each collective under each action.
        exposed: [D, T] seconds that a rewiring right before each collective adds.
        redraws: bool [T, A], where staying with an action is a rewiring too.
        own: bool [A], actions whose cost already holds all their rewirings.
    """

    cost: FloatArray
    exposed: FloatArray
    redraws: NDArray[np.bool_]
    own: NDArray[np.bool_]

    def entering(self, t: int) -> tuple[FloatArray, FloatArray]:
        """Return the seconds [D, A] of coming to each action before collective t, and of staying.

        The circuits that a schedule leaves behind are no wiring: what follows it is entered.
        """
        move = np.where(self.own, 0.0, self.exposed[:, t, None])
        return move, np.where(self.redraws[t], move, 0.0)


def run_actions(given: Collectives, actions: IntArray, start: int) -> tuple[FloatArray, FloatArray]:
    """Return the seconds [D, T] that actions [D, T] take, and those of them spent on rewiring.

    ``start`` is the action before the first.
    """
    delays, times, _ = given.cost.shape
    d, t = np.arange(delays)[:, None], np.arange(times)
    before = np.concatenate([np.full((delays, 1), start), actions[:, :-1]], axis=1)
    changed = (actions != before) | given.redraws[t, actions]
    rewiring = np.where(changed & ~given.own[actions], given.exposed, 0.0)
    return given.cost[d, t, actions] + rewiring, rewiring


def best_actions(given: Collectives, start: int) -> IntArray:
    """Return the actions [D, T] of least total seconds, everything known beforehand.

    The offline optimum of a metrical task system (Borodin, Linial, Saks 1992), in O(T A) a delay:
    every change before a collective costs alike, so the best one comes from the cheapest action.
    """
    delays, times, count = given.cost.shape
    value = np.full((delays, count), np.inf)
    value[:, start] = 0.0
    came_from = np.empty((times, delays, count), dtype=np.int64)
    every = np.arange(count)
    for t in range(times):
        value, came_from[t] = _advance(given, t, value, every)
    actions = np.empty((delays, times), dtype=np.int64)
    actions[:, -1] = value.argmin(axis=1)
    d = np.arange(delays)
    for t in range(times - 1, 0, -1):
        actions[:, t - 1] = came_from[t, d, actions[:, t]]
    return actions


def best_cycle(given: Collectives) -> IntArray:
    """Return the actions [D, T] of least seconds a round when the T collectives repeat for ever.

    One dynamic programme a first action: a round ends by returning to it.
    """
    delays, times, count = given.cost.shape
    every = np.arange(count)
    least = np.full(delays, np.inf)
    best = np.zeros((delays, times), dtype=np.int64)
    d = np.arange(delays)
    move, stay = given.entering(0)
    for first in range(count):
        value = np.full((delays, count), np.inf)
        value[:, first] = given.cost[:, 0, first]
        came_from = np.empty((times, delays, count), dtype=np.int64)
        for t in range(1, times):
            value, came_from[t] = _advance(given, t, value, every)
        closing = value + np.where(every == first, stay[:, [first]], move[:, [first]])
        last = closing.argmin(axis=1)
        total = closing[d, last]
        better = total < least
        actions = np.empty((delays, times), dtype=np.int64)
        actions[:, -1] = last
        for t in range(times - 1, 0, -1):
            actions[:, t - 1] = came_from[t, d, actions[:, t]]
        best[better] = actions[better]
        least = np.minimum(least, total)
    return best


def _advance(
    given: Collectives, t: int, value: FloatArray, every: IntArray
) -> tuple[FloatArray, IntArray]:
    """Return the least seconds [D, A] up to and with collective t, and the actions before it."""
    move, stay = given.entering(t)
    cheapest = value.argmin(axis=1)[:, None]
    moved = np.take_along_axis(value, cheapest, axis=1) + move
    stayed = value + stay
    stays = stayed <= moved
    reached = np.where(stays, stayed, moved)
    return reached + given.cost[:, t], np.where(stays, every, cheapest)
