"""Loads of the ADRS / OpenEvolve load-balancer task.

``{"load_history": [{"logical_expert_load": [layers][E]}, ...]}``, one entry a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.plain import kind, mapping, number_array
from topomoe.topologies.errors import InputError

KEY = "load_history"


def history_counts(value: dict[str, Any], where: str) -> NDArray[np.float64]:
    """Return the loads [steps, layers, E]; InputError names the file and the entry."""
    history = value[KEY]
    if not isinstance(history, list) or not history:
        found = kind(history) if history != [] else "an empty one"
        raise InputError(f"{where}: {KEY} must be a list that is not empty, got {found}")
    steps = []
    for number, item in enumerate(history):
        field = f"{where}: {KEY}[{number}]"
        entry = mapping(item, field)
        if "logical_expert_load" not in entry:
            raise InputError(f"{field}: no key logical_expert_load")
        steps.append(number_array(entry["logical_expert_load"], f"{field}.logical_expert_load", 2))
        if steps[-1].shape != steps[0].shape:
            raise InputError(
                f"{field}.logical_expert_load must be shaped as the first, "
                f"{list(steps[0].shape)}, got {list(steps[-1].shape)}"
            )
    return np.stack(steps)
