"""The work function algorithm of metrical task systems (Borodin, Linial, Saks 1992)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.agents.rollout import rollout
from topomoe.agents.value_rule import SwitchPrice
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError
from topomoe.topologies.kernel import nan_free_kernel

FloatArray = NDArray[np.float64]
MULTIPLES = (1.0, 0.5, 2.0, 4.0)
TIE = 1e-9


class WorkFunction(BatchPolicy):
    """Go where the work function plus the way there is least; ties to the lowest work function.

    The work function w_t[k] is the least that serving all epochs so far and ending in k could have
    cost: w_t[k] = min_j (w_{t-1}[j] + cost_t[j] + d[j, k]), w_0[k] = d[start, k]. The next
    configuration is argmin_k (w_t[k] + d[current, k]); of those equal, the one of the least w_t,
    without which the bound below fails.

    With ``observe="after"``, K configurations and a symmetric metric d that keeps the triangle
    inequality, the whole cost is at most (2K - 1) times the optimum plus a constant (an episode:
    2K - 1 times the largest d). Under ``before`` w is one epoch old: a heuristic. Prices that are
    not symmetric (moving experts) are replaced by (d + d^T) / 2; the bound is then that of a
    problem with these prices. The state is w, float64 [n, K].

    Args:
        layout: how observations are laid out.
        switch: what switching costs, in units of the problem's scale.
        multiple: of the prices that is used for d.

    Raises:
        InputError: ``multiple`` is negative.
    """

    def __init__(
        self, layout: ObservationLayout, switch: SwitchPrice, multiple: float = 1.0
    ) -> None:
        super().__init__(layout)
        if not multiple >= 0:
            raise InputError(f"multiple must be >= 0, got {multiple}")
        self.keep = switch.keep
        self.metric = multiple * np.maximum(switch.price + switch.price.T, 0.0) / 2

    def choose(
        self,
        observation: NDArray[np.float32],
        state: FloatArray | None,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """Return where the work function says to be, and the work function."""
        current = self.current(observation)
        begun = self.metric[current]
        work = begun if state is None else np.where(episode_start[:, None], begun, state)
        newest = observation[:, self.layout.newest].astype(np.float64) + self.keep
        if self.layout.observe == "before":  # at an episode's start nothing has been served yet
            newest[episode_start] = 0.0
        work = _advance(work + newest, self.metric)
        score = work + begun
        equal = score <= score.min(axis=1, keepdims=True) + TIE
        return np.where(equal, work, np.inf).argmin(axis=1).astype(np.int64), work


@nan_free_kernel
def _advance(served: FloatArray, metric: FloatArray) -> FloatArray:
    rows, count = served.shape
    work = np.full((rows, count), np.inf)
    for row in range(rows):
        for j in range(count):
            for k in range(count):
                work[row, k] = min(work[row, k], served[row, j] + metric[j, k])
    return work


def tune(
    training: SwitchingProblem,
    observe: str = "before",
    multiples: Sequence[float] = MULTIPLES,
    queue: bool = True,
) -> WorkFunction:
    """Return the WorkFunction, under ``before`` with the best multiple of the metric in training.

    The budget is the four ``multiples``. Under ``after`` the metric itself is used, for which the
    bound holds.
    """
    training = training.calibrated(training)
    layout = ObservationLayout.of(training, observe, queue)
    switch = SwitchPrice.of(training)
    if observe == "after":
        return WorkFunction(layout, switch)
    rules = [WorkFunction(layout, switch, multiple) for multiple in multiples]
    runs = [rollout(rule, training) for rule in rules]
    totals = [(float(run.cost.sum()), int(run.switched.sum())) for run in runs]
    return rules[totals.index(min(totals))]
