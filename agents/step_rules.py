"""Which wiring a step runs under: the rule of hysteresis, many parameters and delays at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from topomoe.agents.hysteresis import HORIZONS, MARGINS, WEIGHTS
from topomoe.agents.layer_schedule import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Rules:
    """Parameters of G rules: weight of the newest step, steps a gain lasts, margin; [G] each."""

    weight: FloatArray
    horizon: FloatArray
    margin: FloatArray


GREEDY = Rules(np.array([1.0]), np.array([1.0]), np.array([0.0]))


def hysteresis_rules() -> Rules:
    """Return the grid that ``agents.hysteresis.tune`` searches, fewest switches first."""
    grid = [
        (weight, horizon, margin)
        for horizon in sorted(HORIZONS)
        for margin in sorted(MARGINS, reverse=True)
        for weight in sorted(WEIGHTS)
    ]
    return Rules(*np.array(grid).T)


def follow(newest: FloatArray, exposed: FloatArray, start: int, rules: Rules) -> IntArray:
    """Return the wiring of each step, [G, D, B], that rules choose from what they know by then.

    The rule of ``agents.hysteresis.Hysteresis`` for all its parameters and all delays at once:
    newest [B, K] is the newest known seconds of a step before each step, exposed [D] the seconds of
    a rewiring.
    """
    rows = np.arange(len(rules.weight))[:, None]
    current = np.full((len(rows), len(exposed)), start)
    out = np.empty((*current.shape, len(newest)), dtype=np.int64)
    forecast = np.tile(newest[0], (len(rows), 1))
    price = rules.margin[:, None] * exposed
    for t in range(len(newest)):
        forecast += rules.weight[:, None] * (newest[t] - forecast)
        lasts = np.minimum(rules.horizon, len(newest) - t)[:, None]
        # The cheapest forecast gains most: every other wiring costs the same to come to.
        best = np.broadcast_to(forecast.argmin(axis=1)[:, None], current.shape)
        gain = (forecast[rows, current] - forecast[rows, best]) * lasts - price
        current = np.where((best != current) & (gain > 0), best, current)
        out[:, :, t] = current
    return out
