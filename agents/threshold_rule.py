"""The earlier system OptiMoE's threshold rule, with what switching costs charged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy
from topomoe.agents.value_rule import SwitchPrice
from topomoe.envs.layout import ObservationLayout
from topomoe.envs.problem import SwitchingProblem
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
CONCENTRATED, LOCAL, EVEN = range(3)
NAMES = (("fat-tree", "leaf-spine"), ("mesh",), ("torus",))  # the topology for each kind of demand
CONCENTRATION, LOCALITY, LOW, STEEPNESS = 0.55, 0.80, 0.40, 5.0
UNCLEAR, CONFIDENT = 0.5, 0.6
COOL_DOWN, AMORTISED = 12, 15  # epochs
DEMAND = ("concentration", "locality")


def classify(concentration: FloatArray, locality: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the kind of demand and how confident the rule is of it, [n] each.

    Concentration is the Gini coefficient of what devices receive, locality the share of the demand
    inside a quadrant of the grid. How sure OptiMoE is of even demand is not known; it is taken by
    analogy, from the distance to the threshold.
    """
    most = np.maximum(concentration, locality)
    cases = [concentration > CONCENTRATION, locality > LOCALITY, most < LOW]
    distance = [concentration - CONCENTRATION, locality - LOCALITY, LOW - most]
    kind = np.select(cases, [CONCENTRATED, LOCAL, EVEN], CONCENTRATED)
    return kind, np.select(cases, [STEEPNESS * far for far in distance], UNCLEAR)


class ThresholdRule(BatchPolicy):
    """Classify the last epoch's demand by two thresholds, and take the topology that goes with it.

    It stays where it is when its confidence is below 0.6, within 12 epochs of the last switch, and
    unless the last epoch would have been cheaper by more than a 15th of what the switch costs. At
    an episode's start there is no last demand: it stays. The placement stays the same throughout.
    The state is the epochs since the last switch, int64 [n].

    Args:
        layout: how observations are laid out.
        switch: what switching costs, in units of the problem's scale.
        choice: int64 [3], the configurations for concentrated, local and even demand.
        column: int64 [2], where concentration and locality are in the demand's statistics.
    """

    def __init__(
        self, layout: ObservationLayout, switch: SwitchPrice, choice: IntArray, column: IntArray
    ) -> None:
        super().__init__(layout)
        self.switch, self.choice, self.column = switch, choice, column

    def choose(
        self,
        observation: NDArray[np.float32],
        state: IntArray | None,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[IntArray, IntArray]:
        """Return where the thresholds say to be, and the epochs since the last switch."""
        copies = np.arange(len(observation))
        since = np.zeros(len(copies), np.int64) if state is None else state
        since = np.where(episode_start, COOL_DOWN, since + 1)
        demand = observation[:, self.layout["demand"]].astype(np.float64)
        kind, confidence = classify(*demand[:, self.column].T)
        current, target = self.current(observation), self.choice[kind]
        newest = observation[:, self.layout.newest].astype(np.float64) + self.switch.keep
        gain = newest[copies, current] - newest[copies, target]
        pays = gain * AMORTISED > self.switch.price[current, target]
        moves = (confidence >= CONFIDENT) & (since >= COOL_DOWN) & pays
        moves &= (target != current) & ~episode_start
        return np.where(moves, target, current), np.where(moves, 0, since)


def tune(training: SwitchingProblem, observe: str = "before", queue: bool = True) -> ThresholdRule:
    """Return the rule with its thresholds as published and its three topologies from the library.

    They are a fat-tree or leaf-spine, a mesh and a torus where the library has topologies of these
    names; for a kind of demand without one, the topology that is cheapest in those epochs of
    training (never-switch's, if there are none). The placement is never-switch's.

    Raises:
        InputError: the problem does not say how concentrated and how local its demand is.
    """
    missing = [name for name in DEMAND if name not in training.demand_names]
    if missing:
        raise InputError(
            f"rule needs the demand's {' and '.join(missing)}, "
            f"got demand_names {list(training.demand_names)}"
        )
    training = training.calibrated(training)
    column = np.array([training.demand_names.index(name) for name in DEMAND])
    kind, _ = classify(*training.demand[:, column].astype(np.float64).T)
    placement = int(training.placement_of(training.start))
    cost = training.cost[:, placement :: training.num_placements]
    choice = np.empty(len(NAMES), dtype=np.int64)
    for each, names in enumerate(NAMES):
        named = [i for i, name in enumerate(training.topologies) if name.startswith(names)]
        epochs = cost[kind == each]
        if named:
            topology = named[0]
        elif len(epochs):
            topology = int(epochs.mean(axis=0).argmin())
        else:
            topology = int(training.topology_of(training.start))
        choice[each] = topology * training.num_placements + placement
    layout = ObservationLayout.of(training, observe, queue)
    return ThresholdRule(layout, SwitchPrice.of(training), choice, column)
