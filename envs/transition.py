"""The decision problem as a pure function of arrays: ``begin``, ``step`` and ``observe``.

All functions work on n copies at once; copies never meet. A copy is an episode: a window of
``problem.episode_length`` epochs of the timeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.envs.layout import COST_LIMIT, ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

AVERAGE_WEIGHT = 0.2


@dataclass(frozen=True, eq=False)
class State:
    """Where n copies stand.

    Attributes:
        start: int64 [n], first epoch of each episode on the timeline.
        done: int64 [n], epochs of the episode that are over.
        configuration: int64 [n], the configuration that is set.
        average: float64 [n, K], moving average of all configurations' costs / scale.
    """

    start: NDArray[np.int64]
    done: NDArray[np.int64]
    configuration: NDArray[np.int64]
    average: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one epoch cost n copies, in seconds.

    Attributes:
        epoch: int64 [n], the epoch on the timeline.
        configuration: int64 [n], the configuration it ran under.
        components: the parts of the epoch's cost by name, float64 [n] each.
        reconfiguration: float64 [n], the rewiring charged before the epoch.
        migration: float64 [n], steps that waited for experts, and dispatch and combine slowed by
            them; that the old placement served meanwhile is in ``components``.
        cost: float64 [n], all of it.
        switched: bool [n], whether the configuration changed.
    """

    epoch: NDArray[np.int64]
    configuration: NDArray[np.int64]
    components: Mapping[str, NDArray[np.float64]]
    reconfiguration: NDArray[np.float64]
    migration: NDArray[np.float64]
    cost: NDArray[np.float64]
    switched: NDArray[np.bool_]


def begin(problem: SwitchingProblem, start: ArrayLike) -> State:
    """Return n copies at the start of the episodes whose first epochs are ``start`` [n].

    Raises:
        InputError: an episode does not lie within the timeline.
    """
    first = np.atleast_1d(np.asarray(start, dtype=np.int64))
    last = problem.num_epochs - problem.episode_length
    if first.size and (first.min() < 0 or first.max() > last):
        raise InputError(f"an episode's first epoch must be 0..{last}, got {first.tolist()}")
    return State(
        start=first,
        done=np.zeros_like(first),
        configuration=np.full_like(first, problem.start),
        average=np.tile(problem.prior / problem.scale, (first.size, 1)),
    )


def step(
    problem: SwitchingProblem, state: State, action: ArrayLike
) -> tuple[State, NDArray[np.float64], Outcome]:
    """Set configuration ``action`` [n], run one epoch, return the state, reward [n] and outcome.

    The reward is -(epoch cost + switching cost) / problem.scale.

    Raises:
        InputError: an action is not one of 0..K-1, or an episode is already over.
    """
    chosen = check_actions(action, state.start.size, problem.num_configurations)
    if (state.done >= problem.episode_length).any():
        raise InputError("the episode is over: reset before the next step")
    epoch = state.start + state.done
    outcome = charge(problem, epoch, state.configuration, chosen)
    after = State(
        start=state.start,
        done=state.done + 1,
        configuration=chosen,
        average=(1 - AVERAGE_WEIGHT) * state.average
        + AVERAGE_WEIGHT / problem.scale * problem.cost[epoch],
    )
    return after, -outcome.cost / problem.scale, outcome


def charge(
    problem: SwitchingProblem,
    epoch: NDArray[np.int64],
    before: NDArray[np.int64],
    chosen: NDArray[np.int64],
) -> Outcome:
    """Return what epochs [n] cost that run under ``chosen`` [n] after ``before`` [n]."""
    reconfiguration = problem.switch_cost[before, chosen]
    components = {name: part[epoch, chosen] for name, part in problem.components.items()}
    migration = np.zeros(len(chosen))
    switched = chosen != before
    if problem.migration is None:
        cost = problem.cost[epoch, chosen] + reconfiguration
        return Outcome(epoch, chosen, components, reconfiguration, migration, cost, switched)
    rows = problem.migration.row(epoch)
    old, new = problem.placement_of(before), problem.placement_of(chosen)
    stall, lag = problem.migration.stall[rows, old, new], problem.migration.lag[rows, old, new]
    serving = chosen - new + old
    components = {
        name: (1.0 - lag) * part + lag * problem.components[name][epoch, serving]
        for name, part in components.items()
    }
    migration = stall + lag * problem.migration.slowdown * problem.network[epoch, serving]
    usual = (1.0 - lag) * problem.cost[epoch, chosen] + lag * problem.cost[epoch, serving]
    cost = usual + reconfiguration + migration
    return Outcome(epoch, chosen, components, reconfiguration, migration, cost, switched)


def transition_cost(problem: SwitchingProblem, epoch: ArrayLike) -> NDArray[np.float64]:
    """Return the whole cost of epochs [n] from each configuration to each, [n, K, K] seconds.

    Entry [i, j, k] is what ``step`` charges for choosing k in epoch i where j was set.
    """
    epochs = np.atleast_1d(np.asarray(epoch, dtype=np.int64))
    cost = problem.cost[epochs]
    if problem.migration is None:
        return np.asarray(problem.switch_cost + cost[:, None, :])
    # Stall and slowdown are the same from every topology: [n, old, topology, new] is enough.
    shape = (len(epochs), len(problem.topologies), problem.num_placements)
    rows, slowdown = problem.migration.row(epochs), problem.migration.slowdown
    lag = problem.migration.lag[rows][:, :, None]
    slowed = (cost + slowdown * problem.network[epochs]).reshape(shape).swapaxes(1, 2)[..., None]
    exposed = (1.0 - lag) * cost.reshape(shape)[:, None] + lag * slowed
    exposed += problem.migration.stall[rows][:, :, None]
    whole = problem.switch_cost.reshape(shape[1:] * 2) + exposed[:, None]
    return np.asarray(whole.reshape(len(epochs), *problem.switch_cost.shape))


def observe(
    problem: SwitchingProblem, state: State, layout: ObservationLayout
) -> NDArray[np.float32]:
    """Return the observations, float32 [n, layout.size], laid out as ``layout`` says."""
    observation = np.zeros((state.start.size, layout.size), dtype=np.float32)
    copies = np.arange(state.start.size)
    epoch = state.start + state.done
    more = state.done < problem.episode_length
    coming = np.minimum(epoch, problem.num_epochs - 1)
    last = np.where(state.done[:, None] > 0, problem.cost[epoch - 1], problem.prior)
    observation[copies, state.configuration] = 1.0  # the part "current" comes first
    observation[:, layout["last"]] = np.minimum(last / problem.scale, COST_LIMIT)
    observation[:, layout["average"]] = np.minimum(state.average, COST_LIMIT)
    if layout.num_demand:
        started = state.done[:, None] > 0
        observation[:, layout["demand"]] = np.where(started, problem.demand[epoch - 1], 0.0)
    if layout.observe == "after":
        seen = np.minimum(problem.cost[coming] / problem.scale, COST_LIMIT)
        observation[:, layout["coming"]] = seen * more[:, None]
    if layout.queue:
        observation[:, layout["queue"]] = np.where(more[:, None], problem.features[coming], 0.0)
    observation[:, -1] = 1.0 - state.done / problem.episode_length
    return observation


def first_epoch(
    problem: SwitchingProblem, options: Mapping[str, object] | None, random: np.random.Generator
) -> int:
    """Return an episode's first epoch: that of ``options["episode"]``, else any, drawn evenly.

    Raises:
        InputError: an option is unknown, or there is no such episode.
    """
    given = dict(options or {})
    episode = given.pop("episode", None)
    if given:
        raise InputError(f"options must be 'episode' alone, got {sorted(given)}")
    if episode is None:
        return int(random.integers(problem.num_epochs - problem.episode_length + 1))
    episodes = problem.episodes()
    if not isinstance(episode, (int, np.integer)) or not 0 <= episode < episodes.size:
        raise InputError(f"options['episode'] must be 0..{episodes.size - 1}, got {episode!r}")
    return int(episodes[episode])


def check_actions(action: ArrayLike, copies: int, count: int) -> NDArray[np.int64]:
    """Return the actions as int64 [copies], each 0..count-1.

    Raises:
        InputError: they are not.
    """
    chosen = np.atleast_1d(np.asarray(action))
    if chosen.shape != (copies,) or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError(
            f"actions must be {copies} integers, got shape {list(chosen.shape)} of {chosen.dtype}"
        )
    if copies and (chosen.min() < 0 or chosen.max() >= count):
        wrong = int(chosen[(chosen < 0) | (chosen >= count)][0])
        raise InputError(f"an action must be 0..{count - 1}, got {wrong}")
    return chosen.astype(np.int64)
