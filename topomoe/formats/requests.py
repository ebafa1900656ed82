"""One request's rows from any format, checked as those of a trace file are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError
from topomoe.trace_file import RequestFile, expert_ids

IntArray = NDArray[np.int64]


def request(
    where: str,
    request_id: str,
    experts: NDArray[Any],  # [positions, layers, K], dense layers zero
    domain: str = "all",
    position: IntArray | int = 0,
    prompt_len: int = -1,
    num_experts: int | None = None,
    one_row_short: bool = False,
    prompt_token_ids: IntArray | None = None,
    output_token_ids: IntArray | None = None,
) -> RequestFile:
    """Return a request named ``where`` in messages; ``position`` may be that of the first row.

    Raises InputError for rows that are no whole numbers [positions, layers, top-k], or ids that
    no trace can hold.
    """
    path = Path(where)
    if experts.ndim != 3 or 0 in experts.shape:
        raise InputError(
            f"{where}: routed_experts must be [positions, layers, top-k], got {experts.shape}"
        )
    if experts.dtype.kind not in "iu":
        raise InputError(f"{where}: routed_experts must be integers, got dtype {experts.dtype}")
    rows = np.arange(len(experts)) + position if isinstance(position, int) else position
    at = rows.astype(np.int32)
    return RequestFile(
        path=path,
        request_id=request_id,
        domain=domain,
        experts=expert_ids(path, experts, at),
        position=at,
        prompt_len=prompt_len,
        num_experts=num_experts,
        repetition=False,
        prompt_token_ids=prompt_token_ids,
        output_token_ids=output_token_ids,
        one_row_short=one_row_short,
    )
