"""Hindsight learning (Sinclair et al. 2022): predict what the clairvoyant optimum would cost."""

from __future__ import annotations

from topomoe.agents.value_policy import QPolicy
from topomoe.agents.value_selection import Progress, learn
from topomoe.agents.value_settings import HindsightSettings
from topomoe.envs.problem import SwitchingProblem


def train(
    training: SwitchingProblem,
    settings: HindsightSettings | None = None,
    seed: int = 0,
    validation: SwitchingProblem | None = None,
    progress: Progress | None = None,
) -> QPolicy:
    """Fit the costs that follow each configuration if all later choices are made in hindsight.

    The policy takes the least of the fitted costs (the hindsight planner's average Q, Sinclair et
    al. 2022, "Hindsight learning for MDPs with exogenous inputs"). It is blind to the price of not
    knowing what comes, and needs no pass through its own choices.

    Args and errors are those of ``fitted_q.train``.
    """
    chosen = settings or HindsightSettings()
    return learn("hindsight", training, chosen, ("hindsight",), seed, validation, progress)
