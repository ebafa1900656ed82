"""What an agent sees and may choose where placements move freely."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.layout import COST_LIMIT, OBSERVE
from topomoe.envs.problem import FEATURE_LIMIT
from topomoe.topologies.errors import InputError, unknown

KEEP = 0  # the first placement choice


@dataclass(frozen=True)
class CoDesignLayout:
    """The parts of an observation of size ``size``, in this order.

    ==========  =====  ============================================================== ==========
    part        size   meaning                                                        range
    ==========  =====  ============================================================== ==========
    topology    A      one-hot: the topology that is set now                          0 or 1
    placement   P      one-hot: the library placement chosen last                     0 or 1
    moved       1      share of slots that hold another expert than there             0 .. 1
    last        K      cost of the last epoch under every configuration of the        0 .. 1e3
                       library / scale; at an episode's start the problem's prior
    average     K      exponential moving average of ``last`` (weight 0.2)            0 .. 1e3
    own         1      what the last epoch cost as it ran, switching apart / scale;   0 .. 1e3
                       at an episode's start the prior of where it starts
    demand      H      statistics of the last epoch's demand; at first zero           -1e6 .. 1e6
    coming      K      only with ``observe="after"``: cost of the coming epoch under  0 .. 1e3
                       every configuration of the library / scale
    imbalance   1      largest device load / mean of the placement, by the forecast   0 .. 1e3
    gains       C      share of a step's MoE seconds that each proposed move would    -1e3 .. 1e3
                       save by the forecast on the topology set; 0: no such move
    rebalance   2      the same of rebalancing, with devices as the balancer lists    -1e3 .. 1e3
                       them, and the share of an epoch that the weights would travel
                       to the devices where that is least
    queue       F      only with ``queue=True``: queue features of the coming epoch   -1e6 .. 1e6
    left        1      epochs left, the coming one included, / episode length         0 .. 1
    ==========  =====  ============================================================== ==========

    On one fixed topology K is P and ``topology`` and ``placement`` are left out. Unless the queue
    or the coming epoch is observed, proposals and forecasts are for the devices' last layout.

    Raises:
        InputError: ``observe`` is neither ``before`` nor ``after``.
    """

    num_topologies: int
    num_placements: int
    num_moves: int
    num_features: int
    num_demand: int = 0
    fitted: bool = False
    fixed: bool = False
    observe: str = "before"
    queue: bool = True

    def __post_init__(self) -> None:
        if self.observe not in OBSERVE:
            raise unknown("observe", self.observe, OBSERVE)
        if self.num_moves < 0:
            raise InputError(f"moves must be >= 0, got {self.num_moves}")

    @property
    def num_configurations(self) -> int:
        """Configurations of the library whose costs are observed."""
        return self.num_placements * (1 if self.fixed else self.num_topologies)

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each part, in order; parts left out have size 0."""
        count = self.num_configurations
        return {
            "topology": 0 if self.fixed else self.num_topologies,
            "placement": 0 if self.fixed else self.num_placements,
            "moved": 1,
            "last": count,
            "average": count,
            "own": 1,
            "demand": self.num_demand,
            "coming": count if self.observe == "after" else 0,
            "imbalance": 1,
            "gains": self.num_moves,
            "rebalance": 2,
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
        names = list(sizes)
        begin = sum(sizes[name] for name in names[: names.index(part)])
        return slice(begin, begin + sizes[part])

    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the lowest and the highest observation, float32 [size] each."""
        one = dict.fromkeys(("topology", "placement", "moved", "left"), 1.0)
        wide = dict.fromkeys(("demand", "queue"), FEATURE_LIMIT)
        high = {**one, **wide}
        low = {"demand": -FEATURE_LIMIT, "queue": -FEATURE_LIMIT, "rebalance": -COST_LIMIT}
        low["gains"] = -COST_LIMIT
        sizes = self.sizes.items()
        return (
            np.concatenate([np.full(n, low.get(part, 0.0), np.float32) for part, n in sizes]),
            np.concatenate(
                [np.full(n, high.get(part, COST_LIMIT), np.float32) for part, n in sizes]
            ),
        )

    @property
    def topology_choices(self) -> int:
        """A, and one more where there are circuits for the forecast demand; 0: fixed."""
        return 0 if self.fixed else self.num_topologies + self.fitted

    @property
    def placement_choices(self) -> int:
        """Keep, the library (not on one fixed topology), the moves, rebalance now."""
        return self.first_move + self.num_moves + 1

    @property
    def first_move(self) -> int:
        """The placement choice that is the first proposed move."""
        return 1 if self.fixed else 1 + self.num_placements

    @property
    def rebalance_choice(self) -> int:
        """The last placement choice."""
        return self.placement_choices - 1
