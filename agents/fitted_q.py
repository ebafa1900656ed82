"""Fitted Q on full information: values of all configurations by regression, nothing explored."""

from __future__ import annotations

from topomoe.agents.value_policy import QPolicy
from topomoe.agents.value_selection import Progress, learn
from topomoe.agents.value_settings import FittedQSettings
from topomoe.envs.problem import SwitchingProblem


def train(
    training: SwitchingProblem,
    settings: FittedQSettings | None = None,
    seed: int = 0,
    validation: SwitchingProblem | None = None,
    progress: Progress | None = None,
) -> QPolicy:
    """Fit the costs that follow each configuration, under the choices that the fit itself makes.

    The method is that of ``backward_induction`` with targets ``realised`` and ``expected``. The
    same problems, settings and seed give the same weights on the same machine.

    Args:
        training: all its transitions are learned from; episodes start in its best configuration.
        settings: None for the defaults.
        seed: of the random features.
        validation: episodes that choose among what the settings try; None: the last quarter of
            ``training``. In the end the choice is fitted to training and validation together.
        progress: called as ``progress(policies tried, policies in all)``.

    Raises:
        InputError: the validation problem is of another environment.
    """
    chosen = settings or FittedQSettings()
    return learn("fitted-q", training, chosen, chosen.targets, seed, validation, progress)
