"""Whole episodes at once, for tuning: traffic is exogenous, so what is observed can come first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import AVERAGE_WEIGHT, State, charge, observe


def observations(problem: SwitchingProblem, layout: ObservationLayout) -> NDArray[np.float32]:
    """Return all observations of the n episodes end to end, float32 [n, H, layout.size].

    They are those of any policy but for the part ``current``, which says ``problem.start``.
    """
    first, length = problem.episodes(), problem.episode_length
    average = np.empty((first.size, length, problem.num_configurations))
    average[:, 0] = problem.prior / problem.scale
    for epoch in range(length - 1):
        newest = AVERAGE_WEIGHT / problem.scale * problem.cost[first + epoch]
        average[:, epoch + 1] = (1 - AVERAGE_WEIGHT) * average[:, epoch] + newest
    copies = first.size * length
    state = State(
        start=first.repeat(length),
        done=np.tile(np.arange(length), first.size),
        configuration=np.full(copies, problem.start),
        average=average.reshape(copies, -1),
    )
    return observe(problem, state, layout).reshape(first.size, length, layout.size)


def epochs_left(observation: NDArray[np.float32], length: int) -> NDArray[np.float64]:
    """Return how many epochs are left, the coming one included, float64 [...], whole numbers."""
    return np.rint(observation[..., -1].astype(np.float64) * length)


def charged(problem: SwitchingProblem, choice: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return what choices [n, H] cost in the n episodes end to end, float64 [n, H] seconds."""
    first = problem.episodes()
    before = np.concatenate([np.full((first.size, 1), problem.start), choice[:, :-1]], axis=1)
    epoch = first[:, None] + np.arange(problem.episode_length)
    outcome = charge(problem, epoch.ravel(), before.ravel(), choice.ravel())
    return outcome.cost.reshape(choice.shape)
