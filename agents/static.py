"""One configuration for good: the best of training, the best in hindsight, or any."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import charge
from topomoe.topologies.errors import InputError

MIX, RECENT, ANNEALED = "mix", "recent", "annealed"  # placements of a library, by name


class Fixed(BatchPolicy):
    """Always ``configuration``; it switches at most once, at an episode's start.

    Raises:
        InputError: there is no such configuration.
    """

    def __init__(self, layout: ObservationLayout, configuration: int) -> None:
        super().__init__(layout)
        if not 0 <= configuration < layout.num_configurations:
            raise InputError(
                f"configuration must be 0..{layout.num_configurations - 1}, got {configuration}"
            )
        self.configuration = configuration

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Any,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return ``configuration`` for every copy."""
        return np.full(len(observation), self.configuration, dtype=np.int64), state


def fixed_totals(problem: SwitchingProblem) -> NDArray[np.float64]:
    """Return what each configuration costs if kept, float64 [K] seconds over the whole episodes.

    The move to it at each episode's start is charged, and so is a placement made anew.
    """
    first, length = problem.episodes(), problem.episode_length
    every = np.arange(problem.num_configurations)
    epoch = np.arange(first.size * length).repeat(every.size)
    chosen = np.tile(every, first.size * length)
    before = np.where(epoch % length == 0, problem.start, chosen)
    cost = charge(problem, epoch, before, chosen).cost
    return np.asarray(cost.reshape(-1, every.size).sum(axis=0))


def never_switch(training: SwitchingProblem, observe: str = "before", queue: bool = True) -> Fixed:
    """Return the single configuration that was cheapest on average in training.

    On a problem ``calibrated`` to the same training it is where episodes start: no switch at all.
    """
    layout = ObservationLayout.of(training, observe, queue)
    return Fixed(layout, training.calibrated(training).start)


def static_best(test: SwitchingProblem, observe: str = "before", queue: bool = True) -> Fixed:
    """Return the best single configuration in hindsight over all whole episodes of ``test``.

    The switch to it at each episode's start is counted.
    """
    layout = ObservationLayout.of(test, observe, queue)
    return Fixed(layout, int(fixed_totals(test).argmin()))


def periodic_eplb(training: SwitchingProblem, observe: str = "before", queue: bool = True) -> Fixed:
    """Return the placement ``recent``, on the topology that is best with it in training.

    That placement is EPLB's of the last epochs, which the environment makes anew every few epochs
    and charges for; the policy itself has nothing left to decide.

    Raises:
        InputError: the problem has no placement ``recent``.
    """
    if RECENT not in training.placements:
        raise InputError(
            f"periodic-eplb needs the placement {RECENT!r}, "
            f"got placements {list(training.placements)}"
        )
    return _with_placement(training, RECENT, observe, queue)


def static_eplb(training: SwitchingProblem, observe: str = "before", queue: bool = True) -> Fixed:
    """Return EPLB's placement for all training traffic, on the topology best with it in training.

    Raises:
        InputError: the problem has no placement ``mix``.
    """
    if MIX not in training.placements:
        raise InputError(
            f"eplb needs the placement {MIX!r}, got placements {list(training.placements)}"
        )
    return _with_placement(training, MIX, observe, queue)


def annealing(training: SwitchingProblem, observe: str = "before", queue: bool = True) -> Fixed:
    """Return the best of what search on the training set finds, kept for good.

    With a placement ``annealed`` in the library (simulated annealing on training steps): that, on
    the topology that is best with it in training. Without: the search is over the library itself,
    all of which is tried, and what it finds is what never-switch keeps.
    """
    if ANNEALED not in training.placements:
        return never_switch(training, observe, queue)
    return _with_placement(training, ANNEALED, observe, queue)


def _with_placement(training: SwitchingProblem, placement: str, observe: str, queue: bool) -> Fixed:
    totals = fixed_totals(training.calibrated(training))
    choices = np.arange(training.placements.index(placement), totals.size, training.num_placements)
    best = int(choices[totals[choices].argmin()])
    return Fixed(ObservationLayout.of(training, observe, queue), best)
