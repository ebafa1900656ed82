"""What agents are made from: training and validation timelines, in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.migration import Migration
from topomoe.envs.problem import SwitchingProblem


def joined(
    training: SwitchingProblem, other: SwitchingProblem | None, alike: bool = True
) -> SwitchingProblem:
    """Return the training timeline with ``other`` behind it.

    Two timelines that share no request differ more from each other than one does from its own
    halves, and what is learned is for a third: so both count ``alike``, the other being repeated
    until it is about as long. Rules that hold out blocks of epochs to tune themselves on must not
    meet a block twice: for them it comes once. Calibration stays that of
    ``training``; steps and bound are left out. Episodes that lie across a seam see traffic change.

    Args:
        training: comes first.
        other: of the same environment; None: nothing is added.
        alike: whether to repeat it.
    """
    if other is None:
        return training
    times = max(round(training.num_epochs / other.num_epochs), 1) if alike else 1
    parts = [training] + [other] * times

    def behind(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(arrays)

    return replace(
        training,
        cost=behind([part.cost for part in parts]),
        components={
            name: behind([part.components[name] for part in parts]) for name in training.components
        },
        features=behind([part.features for part in parts]),
        demand=behind([part.demand for part in parts]),
        migration=_migration(parts),
        steps=np.zeros((0, 0, 0), np.float32),
        bound=np.zeros(0),
    )


def _migration(parts: Sequence[SwitchingProblem]) -> Migration | None:
    found = [(part.migration, part.num_epochs) for part in parts if part.migration is not None]
    if not found:
        return None
    first = found[0][0]
    if all(len(each.stall) == 1 for each, _ in found):
        return first

    def each_epoch(array: NDArray[np.float64], epochs: int) -> NDArray[np.float64]:
        return np.broadcast_to(array, (epochs, *array.shape[1:]))

    return Migration(
        np.concatenate([each_epoch(each.stall, epochs) for each, epochs in found]),
        np.concatenate([each_epoch(each.lag, epochs) for each, epochs in found]),
        first.slowdown,
    )


def split(
    training: SwitchingProblem, validation: SwitchingProblem | None
) -> tuple[SwitchingProblem, SwitchingProblem | None]:
    """Return what experience is gathered on, and what chooses among networks.

    The first half of the validation timeline joins the training, the second half chooses. Where a
    half would hold less than two episodes, all of it chooses.
    """
    if validation is None:
        return training, None
    half = validation.num_epochs // 2
    if half < 2 * validation.episode_length:
        return training, validation
    return joined(training, validation.part(0, half)), validation.part(half, validation.num_epochs)
