"""Values of configurations from full information, by backward induction over epochs to go.

What an epoch costs under every configuration is known once it is over, and traffic does not react
to what is chosen. So every switch at every epoch of the training timeline is a known transition:
nothing has to be explored, and one pass from the last epoch of an episode to its first does what
repeated sweeps of fitted Q iteration (Ernst, Geurts, Wehenkel 2005) do.

With h epochs to go, the epoch and what follows it under configuration k cost B[t, k] = cost[t, k] +
G[t + 1, k], where G[t + 1, j] is what the h - 1 last epochs cost from t + 1 on when j is set. B is
regressed on what is observed before epoch t, and G for h follows from B and the choices made by
that regression. Three kinds of G:

- ``realised``: what the learned choices cost in the timeline (least-squares policy evaluation, as
  Longstaff and Schwartz 2001 value American options);
- ``expected``: what the regression says they cost (fitted Q iteration);
- ``hindsight``: the optimum with the rest of the timeline known (hindsight learning: Sinclair,
  Frujeri, Cheng, Marshall, Barbalho, Li, Neville, Menache, Swaminathan 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.value_backup import backup
from topomoe.envs.problem import SwitchingProblem
from topomoe.envs.transition import transition_cost

FloatArray = NDArray[np.float64]
OPENING = 6  # first epochs of an episode that have weights of their own: averages are still young


@dataclass(frozen=True, eq=False)
class Timeline:
    """A timeline in units of its scale, with the features of every epoch.

    Attributes:
        cost: float64 [T, K].
        migration: float64 [T, P, K], cost of choosing k where placement p served, beyond
            ``cost`` and the reconfiguration.
        known: float64 [T, K], the part of ``cost`` that is observed beforehand; zero or all.
        features: by age (epochs of the episode that are over) float64 [T, D]; the last one is for
            all ages from A on.
    """

    cost: FloatArray
    migration: FloatArray
    known: FloatArray
    features: tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class Values:
    """Linear values: row D of a weight is the intercept.

    Attributes:
        weight: float32 [S, D + 1, K], cost of the coming epoch and what follows under each
            configuration, less what is ``known``: stage s < A is the episode's epoch s, stage
            A + h - 1 any later epoch with h to go.
        migration: float32 [A + 1, D + 1, P * K], or [A + 1, 1, P * K] where nothing migrates.
    """

    weight: NDArray[np.float32]
    migration: NDArray[np.float32]


def opening_of(length: int, epochs: int) -> int:
    """Return A for episodes of ``length`` in a timeline of ``epochs``."""
    return max(min(OPENING, length, epochs // 4), 1)


def horizon_of(length: int, horizon: int, epochs: int) -> int:
    """Return the horizon of an episode's later epochs, 0 where it has none."""
    return min(horizon, length - opening_of(length, epochs), max(epochs // 4, 1))


def migration_cost(problem: SwitchingProblem) -> FloatArray:
    """Return what choosing k costs beyond its epoch and the reconfiguration, [T, P, K] / scale."""
    places, count = problem.num_placements, problem.num_configurations
    if problem.migration is None:
        return np.zeros((problem.num_epochs, 1, count))
    parts = [
        transition_cost(problem, epoch)[:, :places]
        - problem.switch_cost[:places]
        - problem.cost[epoch][:, None]
        for epoch in np.array_split(np.arange(problem.num_epochs), problem.num_epochs // 64 + 1)
    ]
    return np.concatenate(parts) / problem.scale


class StageRegression:
    """Ridge regression on fixed rows of several timelines, factored once for all horizons.

    Timelines count alike, however long: two that share no request differ more from each other than
    one does from its own halves, and what is learned is for a third.

    Args:
        features: [T, D] of each timeline.
        rows: which rows of each are used.
        penalty: of squared weights, against the mean squared error.
    """

    def __init__(
        self, features: Sequence[FloatArray], rows: Sequence[slice], penalty: float
    ) -> None:
        self.rows = rows
        self.used = [part[row] for part, row in zip(features, rows, strict=True)]
        self.mean = np.mean([part.mean(axis=0) for part in self.used], axis=0)
        gram = np.mean([part.T @ part / len(part) for part in self.used], axis=0)
        gram -= np.outer(self.mean, self.mean)
        gram[np.diag_indices_from(gram)] += penalty
        self.inverse = np.linalg.inv(gram)

    def fit(self, targets: Sequence[FloatArray]) -> FloatArray:
        """Return weights [D + 1, Y], the intercept last, for targets [T, Y] of each timeline."""
        used = [part[row] for part, row in zip(targets, self.rows, strict=True)]
        mean = np.mean([part.mean(axis=0) for part in used], axis=0)
        cross = [x.T @ y / len(x) for x, y in zip(self.used, used, strict=True)]
        weight = self.inverse @ (np.mean(cross, axis=0) - np.outer(self.mean, mean))
        return np.concatenate([weight, (mean - self.mean @ weight)[None]])


def solve(
    timelines: Sequence[Timeline],
    switch: FloatArray,
    caution: FloatArray,
    horizon: int,
    ridge: float,
    target: str,
) -> Values:
    """Return the values that backward induction finds.

    Args:
        timelines: of one kind; episodes do not cross from one to another.
        switch: float64 [K, K], reconfiguration / scale.
        caution: float64 [K, K], what the policy wants to gain beyond the cost of a switch.
        horizon: epochs to go at most, as ``horizon_of`` says.
        ridge: penalty on weights.
        target: realised, expected or hindsight.
    """
    opening = len(timelines[0].features) - 1
    count = len(switch)
    after = [np.zeros_like(line.cost) for line in timelines]
    weights: list[list[FloatArray]] = []
    moving: list[FloatArray] = []
    for age in range(opening if horizon else opening - 1, -1, -1):
        features = [line.features[age] for line in timelines]
        rows = [_rows(len(part), min(max(age, 1), opening), horizon + opening) for part in features]
        model = StageRegression(features, rows, ridge)
        moving.insert(0, _migration_weights(model, timelines))
        believed = [_apply(part, moving[0]).reshape(len(part), -1, count) for part in features]
        weights.insert(0, [])
        for _ in range(horizon if age == opening else 1):
            outcome = [line.cost + later for line, later in zip(timelines, after, strict=True)]
            weight = model.fit([b - line.known for b, line in zip(outcome, timelines, strict=True)])
            weights[0].append(weight)
            for index, line in enumerate(timelines):
                true = outcome[index], switch, line.migration
                value = _apply(features[index], weight) + line.known
                belief = value, switch, believed[index]
                learned = value, switch + caution, believed[index]
                guide = true if target == "hindsight" else learned
                total = backup(*guide, *(belief if target == "expected" else true))
                after[index] = np.concatenate([total[1:], total[-1:]])
    if not horizon:
        moving.append(np.zeros_like(moving[0]))
    stages = [weight for stage in weights for weight in stage]
    return Values(np.stack(stages).astype(np.float32), np.stack(moving).astype(np.float32))


def _rows(epochs: int, first: int, going: int) -> slice:
    """Return the epochs that have a past of ``first`` epochs and a future of ``going``."""
    last = max(epochs - going + 1, 1)
    return slice(min(first, last - 1), last)


def _migration_weights(model: StageRegression, timelines: Sequence[Timeline]) -> FloatArray:
    flat = [line.migration.reshape(len(line.migration), -1) for line in timelines]
    if not any(part.any() for part in flat):
        return np.zeros((1, flat[0].shape[1]))
    return model.fit(flat)


def _apply(features: FloatArray, weight: FloatArray) -> FloatArray:
    return np.asarray(
        features @ weight[:-1] + weight[-1]
        if len(weight) > 1
        else np.tile(weight[-1], (len(features), 1))
    )
