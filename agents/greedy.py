"""Greedy: whatever was cheapest in the newest epoch that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.agents.policy import BatchPolicy


class Greedy(BatchPolicy):
    """Move to the cheapest configuration of the newest known epoch, whatever moving costs.

    A tie with the current configuration keeps it.
    """

    def choose(
        self,
        observation: NDArray[np.float32],
        state: Any,
        episode_start: NDArray[np.bool_],
        deterministic: bool,
    ) -> tuple[NDArray[np.int64], Any]:
        """Return the argmin of the newest known costs."""
        newest = observation[:, self.layout.newest]
        current = self.current(observation)
        best = newest.argmin(axis=1).astype(np.int64)
        copies = np.arange(len(newest))
        return np.where(newest[copies, current] > newest[copies, best], best, current), state
