"""An episode as a small picture: one row a configuration, one column an epoch, in plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELL = 8
_UNSEEN = np.array([225, 225, 225], dtype=np.uint8)
_CHEAP = np.array([247, 251, 255], dtype=np.float64)
_DEAR = np.array([8, 48, 107], dtype=np.float64)
_CHOICE = np.array([230, 85, 13], dtype=np.uint8)


def picture(cost: NDArray[np.float64], chosen: NDArray[np.int64], epochs: int) -> NDArray[np.uint8]:
    """Return uint8 [K*8, epochs*8, 3]: darker costs more, orange is what was chosen.

    Args:
        cost: float64 [t, K], seconds, of the epochs that are over.
        chosen: int64 [t], the configurations they ran under.
        epochs: columns in all; those still to come are grey.
    """
    seen, count = cost.shape
    image = np.tile(_UNSEEN, (count, epochs, 1))
    if seen:
        low, high = cost.min(), cost.max()
        shade = ((cost - low) / (high - low if high > low else 1.0)).T[:, :, None]
        image[:, :seen] = np.rint(_CHEAP + shade * (_DEAR - _CHEAP)).astype(np.uint8)
    image = image.repeat(CELL, axis=0).repeat(CELL, axis=1)
    for epoch, choice in enumerate(chosen):
        top, left = choice * CELL + 2, epoch * CELL + 2
        image[top : top + CELL - 4, left : left + CELL - 4] = _CHOICE
    return image
