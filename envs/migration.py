"""What moving experts costs: steps that wait, and a while in which the old placement still serves.

Weights travel beside the steps at a share of every NIC, which slows dispatch and combine; the old
placement serves until they have arrived. What an epoch cannot carry that way is sent at its end at
the NICs' full rate, while steps wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Migration:
    """What moving from placement p (row) to q (column) costs, of P placements.

    Arrays are copied, made read-only, and checked. One matrix holds for every epoch, or there is
    one for each of T: a placement that is made anew now and then costs something even to keep.

    Attributes:
        stall: float64 [1 or T, P, P], seconds in which steps wait.
        lag: float64 [1 or T, P, P], share 0..1 of the epoch that p still serves.
        slowdown: by how much dispatch and combine take longer meanwhile, as a share of them.

    Raises:
        InputError: a shape or a number is wrong; the message names the field.
    """

    stall: FloatArray
    lag: FloatArray
    slowdown: float = 0.0

    def __post_init__(self) -> None:
        for name in ("stall", "lag"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array = array[None] if array.ndim == 2 else array
            if array.ndim != 3 or array.shape[1] != array.shape[2] or not len(array):
                raise InputError(
                    f"migration.{name} must have shape [epochs or 1, P, P], got {list(array.shape)}"
                )
            if not np.isfinite(array).all() or (array < 0).any():
                raise InputError(f"migration.{name} must be finite and >= 0")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if (self.lag > 1).any():
            raise InputError(f"migration.lag must be <= 1, got {self.lag.max()}")
        if self.stall.shape != self.lag.shape:
            raise InputError(
                f"migration.stall and lag must have one shape, "
                f"got {list(self.stall.shape)} and {list(self.lag.shape)}"
            )
        slowdown = float(self.slowdown)
        if not (np.isfinite(slowdown) and slowdown >= 0):
            raise InputError(f"migration.slowdown must be finite and >= 0, got {slowdown}")
        object.__setattr__(self, "slowdown", slowdown)

    @property
    def num_placements(self) -> int:
        """P."""
        return int(self.stall.shape[1])

    def row(self, epoch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the matrices of epochs [n] lie in ``stall`` and ``lag``."""
        return np.minimum(epoch, len(self.stall) - 1)

    def part(self, first: int, last: int) -> Migration:
        """Return the migration of epochs ``first`` to ``last`` (exclusive)."""
        if len(self.stall) == 1:
            return self
        return Migration(self.stall[first:last], self.lag[first:last], self.slowdown)
