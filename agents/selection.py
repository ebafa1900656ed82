"""Which of a training's policies is kept: the one that costs least on validation episodes."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray

from topomoe.agents.learned import LearnedPolicy
from topomoe.agents.networks import Network
from topomoe.agents.rollout import rollout
from topomoe.envs.problem import SwitchingProblem

MARGINS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
ERRORS = 2.0  # standard errors by which a policy must undercut never switching
Weights = dict[str, torch.Tensor]


class Selection:
    """Keeps the network that costs least on validation, and how much it must prefer to switch.

    Args:
        validation: episodes that are neither trained nor tested on; None: the last network is
            kept as it is.
        candidates: how many networks of the second half of a training are tried.
        updates: how many updates the training has.
    """

    def __init__(self, validation: SwitchingProblem | None, candidates: int, updates: int) -> None:
        self.validation = validation
        tried = np.linspace(updates / 2, updates, candidates + 1)[1:]
        self.tried = {updates, *np.ceil(tried).astype(int).tolist()}
        self.cost, self.timesteps = inf, 0
        self.weights: Weights = {}

    def consider(self, network: Network, policy: LearnedPolicy, timesteps: int) -> None:
        """Remember ``network`` if it costs less than all before it; ties go to the earlier."""
        cost = inf
        if self.validation is not None:
            cost = float(rollout(policy, self.validation).cost.sum())
        if not self.weights or cost < self.cost or self.validation is None:
            self.cost, self.timesteps = cost, timesteps
            self.weights = {key: value.clone() for key, value in network.state_dict().items()}

    def margin(
        self, policy: Callable[[float], LearnedPolicy], proof: SwitchingProblem | None = None
    ) -> float:
        """Return the margin under which the policy costs least, infinity included.

        ``proof``: the episodes that tell; None: those by which networks are chosen.

        Larger margins win ties. A policy that does not undercut never switching by twice the
        standard error of the mean over episodes is luck: infinity, which never switches.
        """
        episodes = self.validation if proof is None else proof
        if episodes is None:
            return 0.0
        costs = {m: _episodes(policy(m), episodes) for m in (*MARGINS, inf)}
        best = min(sorted(costs, reverse=True), key=lambda m: float(costs[m].sum()))
        saved = costs[inf] - costs[best]
        error = float(saved.std(ddof=1)) / np.sqrt(saved.size) if saved.size > 1 else 0.0
        return best if float(saved.mean()) > ERRORS * error else inf


def _episodes(policy: LearnedPolicy, problem: SwitchingProblem) -> NDArray[np.float64]:
    return np.asarray(rollout(policy, problem).cost.sum(axis=1))
