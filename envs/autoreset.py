"""What a vector environment's ``info`` becomes where copies end and begin anew in one step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def reset_options(options: Mapping[str, Any] | None, copies: int) -> list[dict[str, Any]]:
    """Return each copy's options: ``episode`` is one number for all of them, or one for each."""
    given = dict(options or {})
    episodes = np.broadcast_to(np.asarray(given.pop("episode", None)), copies).tolist()
    return [{**given, "episode": episode} for episode in episodes]


def every(infos: Mapping[str, NDArray[Any]], copies: int) -> dict[str, Any]:
    """Return arrays [n] by name with the masks that Gymnasium keeps beside them: all copies."""
    mask = np.ones(copies, dtype=np.bool_)
    return {
        name: item
        for key, value in infos.items()
        for name, item in ((key, value), (f"_{key}", mask))
    }


def restarted(
    infos: Mapping[str, NDArray[Any]],
    started: Mapping[str, NDArray[Any]],
    over: NDArray[np.bool_],
    last: NDArray[np.float32],
) -> dict[str, Any]:
    """Return a step's info under ``AutoresetMode.SAME_STEP``.

    A copy that is ``over`` has its reset's info, which knows no costs; how it ended is in
    ``final_info`` and its last observation in ``final_obs``.

    Args:
        infos: what the step says of every copy, [n] each.
        started: what a reset says, [n] each; read where copies are over.
        over: bool [n].
        last: float32 [n, size], observations before the reset.
    """
    final_obs = np.full(len(over), None, dtype=object)
    for copy in over.nonzero()[0].tolist():
        final_obs[copy] = last[copy]
    final: dict[str, Any] = {}
    running: dict[str, Any] = {}
    for key, value in infos.items():
        empty = np.full_like(value, None) if value.dtype == object else np.zeros_like(value)
        final[key], final[f"_{key}"] = np.where(over, value, empty), over
        if key in started:
            running[key] = np.where(over, started[key], value)
            running[f"_{key}"] = np.ones_like(over)
        elif not over.all():
            running[key], running[f"_{key}"] = np.where(over, empty, value), ~over
    running["final_obs"], running["_final_obs"] = final_obs, over
    running["final_info"], running["_final_info"] = final, over
    return running
