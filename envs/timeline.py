"""Which kind of epoch follows which, and what the queue tells of it beforehand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.envs.traffic import Contexts


def semi_markov(
    states: int, epochs: int, mean: float, regularity: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the state of each epoch: a state lasts a gamma time, then another is drawn evenly.

    Lengths have the given mean (epochs) and shape ``regularity``, but are whole and at least 1,
    which makes means of few epochs a little longer. The first state is entered at a random point
    of its stay.
    """
    if states == 1:
        return np.zeros(epochs, dtype=np.int64)
    state = np.empty(epochs, dtype=np.int64)
    now, done = int(rng.integers(states)), 0
    skipped = rng.random()
    while done < epochs:
        length = max(1, round(rng.gamma(regularity, mean / regularity)))
        if done == 0:
            length = max(1, round(length * skipped))
        state[done : done + length] = now
        done += length
        now = (now + int(rng.integers(1, states))) % states
    return state


def context_timeline(
    contexts: Contexts, settings: ScenarioSettings, epochs: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the context of each epoch, [epochs]: layouts, domains and levels take turns apart."""
    layouts, domains, levels = rng.spawn(3)
    shape = settings.phase_regularity
    return contexts.number(
        semi_markov(len(contexts.layouts), epochs, settings.layout_epochs, shape, layouts),
        semi_markov(len(contexts.domains), epochs, settings.phase_epochs, shape, domains),
        semi_markov(len(contexts.levels), epochs, settings.level_epochs, 1.0, levels),
    )


def draw_steps(
    context: NDArray[np.int64], settings: ScenarioSettings, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Return the steps of each epoch, int32 [T, J], from its context's pool."""
    drawn = rng.integers(settings.pool, size=(len(context), settings.draws))
    return np.asarray(context[:, None] * settings.pool + drawn, dtype=np.int32)


def queue_features(
    context: NDArray[np.int64],
    steps: NDArray[np.int32],
    shares: NDArray[np.float32],
    contexts: Contexts,
    domain_names: tuple[str, ...],
    backlog: int,
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Return what is known of each epoch before it runs, [T, F], and the features' names.

    Of the requests that the coming epoch serves: the share of each domain that has phases, the
    layout that the scheduler has set (one-hot), and tokens over the usual. Then the same, as
    means, of the ``backlog`` epochs behind it, whose requests wait already. What never changes is
    left out.
    """
    layout, _, level = contexts.split(context)
    now: list[NDArray[np.float64]] = []
    names: list[str] = []
    if len(contexts.domains) > 1:
        for domain in contexts.domains.tolist():
            now.append(shares[steps, domain].mean(axis=1, dtype=np.float64))
            names.append(f"share of {domain_names[domain]}")
    if len(contexts.layouts) > 1:
        for v, where in enumerate(contexts.layouts):
            now.append((layout == v).astype(np.float64))
            names.append(f"layout {where.name}")
    if len(contexts.levels) > 1:
        now.append(contexts.levels[level])
        names.append("load level")
    epochs = len(context)
    columns = np.stack(now, axis=1) if now else np.zeros((epochs, 0))
    if backlog == 0:
        return columns.astype(np.float32), tuple(names)
    later = np.zeros_like(columns)
    for ahead in range(1, backlog + 1):
        later += columns[np.minimum(np.arange(epochs) + ahead, epochs - 1)]
    both = np.concatenate([columns, later / backlog], axis=1)
    return both.astype(np.float32), (*names, *(f"backlog: {name}" for name in names))
