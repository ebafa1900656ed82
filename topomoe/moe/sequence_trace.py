"""A routing trace from the experts that a model chose for whole sequences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topomoe.routing_trace import RoutingTrace, early_absences
from topomoe.topologies.errors import InputError


def trace_of_sequences(
    experts: Sequence[NDArray[np.integer]],
    tokens: Sequence[NDArray[np.integer]],
    domains: Sequence[str],
    names: Sequence[str],
    num_experts: int,
    prompt_share: float = 1.0,
) -> RoutingTrace:
    """Return the trace of Q sequences, each one a request.

    experts: one array [L, M, K] a sequence, logical expert ids, L as long as its ``tokens`` [L],
    -1 after the experts of tokens that have fewer than others; domains, names: one text a sequence;
    prompt_share: share of each sequence that counts as prompt, the rest as output. Raises
    InputError as ``check_sequences`` does.
    """
    check_sequences(tokens, domains, names)
    length = np.array([len(ids) for ids in tokens], dtype=np.int64)
    prompt = (prompt_share * length).astype(np.int32)
    labels = tuple(sorted(set(domains)))
    stacked = np.concatenate([chosen.astype(np.int16) for chosen in experts])
    if early_absences(stacked).any():
        raise InputError("experts: -1 must stand after a token's experts, not before one")
    ids = [np.asarray(row, dtype=np.int64) for row in tokens]
    return RoutingTrace(
        experts=np.ascontiguousarray(stacked.transpose(1, 0, 2)),
        request_start=np.concatenate([[0], np.cumsum(length)]).astype(np.int64),
        request_ids=tuple(names),
        domain_names=labels,
        request_domain=np.array([labels.index(name) for name in domains], dtype=np.int32),
        position=np.concatenate([np.arange(size, dtype=np.int32) for size in length]),
        prompt_len=prompt,
        num_experts=num_experts,
        repetition=np.zeros(len(length), dtype=np.bool_),
        prompt_token_ids=tuple(row[:end] for row, end in zip(ids, prompt, strict=True)),
        output_token_ids=(
            tuple(row[end:] for row, end in zip(ids, prompt, strict=True))
            if (prompt < length).any()
            else None
        ),
    )


def check_sequences(
    tokens: Sequence[NDArray[np.integer]], domains: Sequence[str], names: Sequence[str]
) -> None:
    """Raise InputError where there is no sequence, or not one domain and one own name for each."""
    if not len(tokens):
        raise InputError("sequences must hold at least one sequence, got none")
    for field, texts in (("domains", domains), ("names", names)):
        if len(texts) != len(tokens):
            raise InputError(f"{field} must be one a sequence: {len(texts)} for {len(tokens)}")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"names must be distinct, {name!r} is there twice")
        seen.add(name)
