"""Percentiles of the step times that a sequence of choices leads to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.problem import SwitchingProblem

LEVELS = (0.5, 0.95, 0.99)
FloatArray = NDArray[np.float64]


def step_times(
    problem: SwitchingProblem, epoch: NDArray[np.int64], choice: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray]:
    """Return step times and how many steps each stands for, both [n, H * (2 J + 1)].

    The J steps of an epoch stand for all that its cost holds. While experts move the old placement
    serves, more slowly; one step waits for the rewiring and for weights that the epoch had no room
    for. Without ``problem.steps`` there are none: [n, 0].

    Args:
        problem: the timeline.
        epoch: int64 [n, H], the epochs of n episodes.
        choice: int64 [n, H], the configuration of each.
    """
    if not problem.steps.size:
        return np.zeros((len(epoch), 0)), np.zeros((len(epoch), 0))
    before = np.concatenate([np.full((len(choice), 1), problem.start), choice[:, :-1]], axis=1)
    usual = problem.steps[epoch, :, choice].astype(np.float64)  # [n, H, J]
    wait = problem.switch_cost[before, choice]
    lag = np.zeros(choice.shape)
    moving = usual
    if problem.migration is not None:
        rows = problem.migration.row(epoch)
        old, new = problem.placement_of(before), problem.placement_of(choice)
        wait = wait + problem.migration.stall[rows, old, new]
        lag = problem.migration.lag[rows, old, new]
        serving = choice - new + old
        cost = np.maximum(problem.cost[epoch, serving], 1e-300)
        slower = 1.0 + problem.migration.slowdown * problem.network[epoch, serving] / cost
        moving = problem.steps[epoch, :, serving] * slower[:, :, None]
    mean = (1.0 - lag) * usual.mean(axis=2) + lag * moving.mean(axis=2)
    many = problem.cost[epoch, choice] / np.maximum(usual.mean(axis=2), 1e-300)
    waits = (wait > 0).astype(np.float64)
    each = np.maximum(many - waits, 0.0) / usual.shape[2]
    weights = [np.repeat((share * each)[:, :, None], usual.shape[2], 2) for share in (1 - lag, lag)]
    seconds = np.concatenate([usual, moving, (mean + wait)[:, :, None]], axis=2)
    weight = np.concatenate([*weights, waits[:, :, None]], axis=2)
    return seconds.reshape(len(epoch), -1), weight.reshape(len(epoch), -1)


def percentiles(
    seconds: FloatArray, weight: FloatArray, levels: tuple[float, ...] = LEVELS
) -> list[float]:
    """Return the least value that is not exceeded by each share of the weight; NaN for none.

    >>> percentiles(np.array([3.0, 1.0, 2.0]), np.array([1.0, 98.0, 1.0]))
    [1.0, 1.0, 2.0]
    """
    flat, counts = seconds.ravel(), weight.ravel()
    if not counts.sum() > 0:
        return [np.nan] * len(levels)
    order = flat.argsort(kind="stable")
    below = np.cumsum(counts[order])
    # Rounding of the sum must not push a level past the weight that reaches it.
    at = np.searchsorted(below, np.array(levels) * below[-1] * (1 - 1e-12))
    return [float(value) for value in flat[order][np.minimum(at, flat.size - 1)]]
