"""The clairvoyant optimum: the exact best choices for an episode that is known in advance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import begin, transition_cost
from topomoe.topologies.errors import InputError

MOST_ENTRIES = 1 << 18  # of the transition costs that are in memory at a time: they fit in cache


def plan(
    problem: SwitchingProblem, starts: ArrayLike | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the optimal choices [n, H] and their total costs [n], seconds, of n episodes.

    Dynamic programming over (epoch, configuration), the offline optimum of a metrical task system
    (Borodin, Linial, Saks 1992), in O(H K^2) an episode: the least cost of ending epoch t in k is
    V_t[k] = min_j (V_{t-1}[j] + transition_cost(t)[j, k]), all of switching and migration in it.

    Args:
        problem: the timeline, all of it known.
        starts: first epochs [n]; None: the whole episodes end to end.

    Raises:
        InputError: an episode does not lie within the timeline.
    """
    first = begin(problem, problem.episodes() if starts is None else starts).start
    together = max(1, MOST_ENTRIES // problem.num_configurations**2)
    parts = [_plan(problem, first[at : at + together]) for at in range(0, first.size, together)]
    choice = [np.zeros((0, problem.episode_length), np.int64), *(part[0] for part in parts)]
    return np.concatenate(choice), np.concatenate([np.zeros(0), *(part[1] for part in parts)])


def _plan(
    problem: SwitchingProblem, first: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    count, length = problem.num_configurations, problem.episode_length
    copies = np.arange(first.size)
    value = np.full((first.size, count), np.inf)
    value[:, problem.start] = 0.0
    came_from = np.zeros((length, first.size, count), dtype=np.int64)
    for epoch in range(length):
        reach = transition_cost(problem, first + epoch)
        reach += value[:, :, None]
        came_from[epoch] = reach.argmin(axis=1)
        value = np.take_along_axis(reach, came_from[epoch][:, None], axis=1)[:, 0]
    choice = np.zeros((first.size, length), dtype=np.int64)
    choice[:, -1] = value.argmin(axis=1)
    for epoch in range(length - 1, 0, -1):
        choice[:, epoch - 1] = came_from[epoch, copies, choice[:, epoch]]
    return choice, value.min(axis=1)


def free_placement_bound(
    problem: SwitchingProblem, starts: ArrayLike | None = None
) -> NDArray[np.float64] | None:
    """Return seconds [n] that n episodes take at least, even where placements move freely.

    It is the sum of ``problem.bound`` over each episode, switching and migration left out, and so
    a lower bound also for what is not in the library. None: the problem has no such bound.

    Raises:
        InputError: an episode does not lie within the timeline.
    """
    first = begin(problem, problem.episodes() if starts is None else starts).start
    if not problem.bound.size:
        return None
    epochs = first[:, None] + np.arange(problem.episode_length)
    return np.asarray(problem.bound[epochs].sum(axis=1))


class Clairvoyant(BatchPolicy):
    """Follow the optimal plan of each episode.

    It has to be told which episodes it is in: pass their first epochs, int64 [n] (``epoch`` in the
    info of ``reset``), as the state of the first call. The state is then the plan that is left.

    >>> from topomoe.envs import TopologySwitchEnv, phase_problem
    >>> env = TopologySwitchEnv(phase_problem(epochs=100, episode_length=10))
    >>> observation, info = env.reset(seed=0)
    >>> action, state = Clairvoyant(env.problem).predict(observation, state=[info["epoch"]])
    >>> state.shape
    (1, 9)
    """

    def __init__(
        self, problem: SwitchingProblem, observe: str = "before", queue: bool = True
    ) -> None:
        super().__init__(ObservationLayout.of(problem, observe, queue))
        self.problem = problem

    def choose(
        self,
        observation: NDArray[np.float32],
        state: ArrayLike | None,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the plan's next choices and what is left of the plan, int64 [n, epochs left]."""
        given = np.zeros((0, 0), np.int64) if state is None else np.asarray(state)
        left = plan(self.problem, given)[0] if given.ndim == 1 else given
        if len(left) != len(observation) or left.shape[1] == 0:
            raise InputError(
                "the clairvoyant policy needs state = the first epoch of each copy's episode, "
                "anew for every episode"
            )
        return left[:, 0], left[:, 1:]
