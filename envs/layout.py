"""Where in an observation each thing is, so that a policy reads it by name and not by number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.problem import FEATURE_LIMIT, SwitchingProblem
from topomoe.topologies.errors import unknown

COST_LIMIT = 1e3  # costs relative to the problem's scale are cut off here, which bounds the space
OBSERVE = ("before", "after")


@dataclass(frozen=True)
class ObservationLayout:
    """The parts of an observation of size ``size``, in this order.

    =========  ====  ================================================================= ==========
    part       size  meaning                                                           range
    =========  ====  ================================================================= ==========
    current    K     one-hot: the configuration that is set now                        0 or 1
    last       K     cost of the last epoch under every configuration / scale; at an   0 .. 1e3
                     episode's start the problem's prior
    average    K     exponential moving average of ``last`` (weight 0.2)               0 .. 1e3
    demand     H     statistics of the last epoch's demand; at an episode's start zero   -1e6 .. 1e6
    coming     K     only with ``observe="after"``: cost of the coming epoch / scale   0 .. 1e3
    queue      F     only with ``queue=True``: queue features of the coming epoch      -1e6 .. 1e6
    left       1     epochs left, the coming one included, / episode length            0 .. 1
    =========  ====  ================================================================= ==========

    Costs of every configuration are known once an epoch is over, since its traffic is. After an
    episode's last epoch nothing is coming: ``coming``, ``queue`` and ``left`` are zero.

    Raises:
        InputError: ``observe`` is neither ``before`` nor ``after``.
    """

    num_configurations: int
    num_features: int
    observe: str = "before"
    queue: bool = True
    num_demand: int = 0

    def __post_init__(self) -> None:
        if self.observe not in OBSERVE:
            raise unknown("observe", self.observe, OBSERVE)

    @classmethod
    def of(
        cls, problem: SwitchingProblem, observe: str = "before", queue: bool = True
    ) -> ObservationLayout:
        """Return the layout of a problem's observations."""
        return cls(
            problem.num_configurations,
            len(problem.feature_names),
            observe,
            queue,
            len(problem.demand_names),
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each part, in order; parts left out have size 0."""
        count = self.num_configurations
        return {
            "current": count,
            "last": count,
            "average": count,
            "demand": self.num_demand,
            "coming": count if self.observe == "after" else 0,
            "queue": self.num_features if self.queue else 0,
            "left": 1,
        }

    @property
    def size(self) -> int:
        """Length of an observation."""
        return sum(self.sizes.values())

    def __getitem__(self, part: str) -> slice:
        """Where ``part`` lies: ``observation[..., layout["last"]]``."""
        sizes = self.sizes
        if part not in sizes:
            raise unknown("part of an observation", part, sizes)
        begin = 0
        for name, size in sizes.items():
            if name == part:
                break
            begin += size
        return slice(begin, begin + sizes[part])

    @property
    def newest(self) -> slice:
        """The newest costs that are known: ``coming`` where it is observed, else ``last``."""
        return self["coming" if self.observe == "after" else "last"]

    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the lowest and the highest observation, float32 [size] each."""
        high = {"current": 1.0, "demand": FEATURE_LIMIT, "queue": FEATURE_LIMIT, "left": 1.0}
        low = {"demand": -FEATURE_LIMIT, "queue": -FEATURE_LIMIT}
        sizes = self.sizes.items()
        return (
            np.concatenate([np.full(n, low.get(part, 0.0), np.float32) for part, n in sizes]),
            np.concatenate(
                [np.full(n, high.get(part, COST_LIMIT), np.float32) for part, n in sizes]
            ),
        )
