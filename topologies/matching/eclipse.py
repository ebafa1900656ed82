"""Eclipse: matchings and durations chosen together, so that each repays its dark time.

Bojja Venkatakrishnan et al., "Costly circuits, submodular schedules and approximate Caratheodory
theorems", SIGMETRICS 2016: each step takes the matching and the duration that carry the most bytes
per second of duration and delay. What a schedule carries is submodular in its steps, hence the
greedy's guarantee of 1 - 1/e of the optimum within a window, up to the last step.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from topomoe.topologies.matching.b_matching import b_matching
from topomoe.topologies.matching.schedule import Step
from topomoe.topologies.topology import FloatArray, IntArray

# A step is looked for until no other can be better by more than this share.
_ACCURACY = 0.01


def eclipse(remaining: FloatArray, rate: float, delay: float, degree: int) -> Iterator[Step]:
    """Yield matching and seconds, step by step, for what ``remaining`` [N, N] holds by then.

    rate: bytes/s of one circuit. With ``degree`` > 1 a step is a b-matching, one circuit a pair.
    """
    while remaining.any():
        yield best_step(remaining / rate, delay, degree)


def best_step(busy: FloatArray, delay: float, degree: int) -> Step:
    """Return the matching and duration with the most carried per second of duration and delay.

    busy [N, N]: the seconds that a circuit needs for each pair. For one matching the best duration
    is that of one of its pairs, so only entries of ``busy`` are tried, largest upper bound first.
    Where the best matching of duration t carries h(t), h rises with t and h(t)/t falls: each
    matching bounds all others, and few durations need one.
    """
    durations = np.unique(busy[busy > 0])
    most = np.minimum(_most(busy, durations, degree), _most(busy.T, durations, degree))
    best, best_gain = (np.empty((0, 2), dtype=np.int64), 0.0), 0.0
    while True:
        bound = most / (durations + delay)
        # Of equally good durations the longest: fewer steps.
        k = len(bound) - 1 - int(np.argmax(bound[::-1]))
        if bound[k] <= best_gain * (1.0 + _ACCURACY):
            return best
        weight = np.minimum(busy, durations[k])
        pairs = _matching(weight, degree)
        each = busy[tuple(pairs.T)]
        own = np.unique(each)
        gain = np.minimum(each, own[:, None]).sum(axis=1) / (own + delay)
        at = int(np.flatnonzero(gain >= gain.max() * (1.0 - 1e-12))[-1])
        if gain[at] > best_gain:
            best, best_gain = (pairs, float(own[at])), float(gain[at])
        carried = float(weight[tuple(pairs.T)].sum())
        most = np.minimum(most, carried * np.maximum(durations / durations[k], 1.0))
        most[k] = 0.0


def _most(busy: FloatArray, durations: FloatArray, degree: int) -> FloatArray:
    """Return the most that the rows could carry in each duration if no columns clashed."""
    largest = -np.sort(-busy, axis=1)[:, :degree].reshape(-1)
    ordered = np.sort(largest)
    below = np.searchsorted(ordered, durations)
    total = np.concatenate([[0.0], np.cumsum(ordered)])
    return np.asarray(total[below] + durations * (len(ordered) - below))


def _matching(weight: FloatArray, degree: int) -> IntArray:
    """Return the pairs [X, 2] of a maximum-weight matching, those of no weight left out."""
    if degree > 1:
        return b_matching(weight, degree)
    from scipy.optimize import linear_sum_assignment

    pairs = np.stack(linear_sum_assignment(weight, maximize=True), axis=-1).astype(np.int64)
    return np.asarray(pairs[weight[tuple(pairs.T)] > 0])
