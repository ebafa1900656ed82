"""Requests from the forward passes that SGLang's recorder writes in mode ``per_token``.

A record holds tokens and their positions, not the requests they belong to. What can be known:

- A prefill names the lengths of its sequences. One that begins at position 0 opens a request; one
  that begins at p > 0 goes on with a request that is being prefilled in chunks and has p tokens,
  if there is one, and else opens a request whose first p tokens came from the prefix cache.
- A decode has one token a request, in the order in which the scheduler holds them, which is the
  order in which they were admitted. So tokens and open requests are matched in order: a token at
  position p goes on with the first open request, after that of the token before it, that has p
  tokens. A request that is passed over has ended, unless it was the last of the latest prefill:
  that one may wait for its next chunk.
- A token without such a request was begun before the recording: it opens one at its position.

Where one of two open requests of equal length ends, the rows that follow go to the older one.
Requests that are preempted and computed again appear as two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topomoe.formats.requests import request
from topomoe.formats.sglang_recorder import Pass
from topomoe.topologies.errors import InputError
from topomoe.trace_file import RequestFile


@dataclass(eq=False)
class _Open:
    """A request being put together."""

    rows: list[int] = field(default_factory=list)  # indices into the rank's tokens
    first: int = 0  # position of the first row
    next: int = 0  # position of the row to come
    prompt: int = -1  # tokens prefilled, where a prefill was seen
    decoded: bool = False
    waits: bool = False  # for the next chunk of its prompt


def recorded_requests(
    folder: Path, ranks: Sequence[Sequence[Pass]], num_experts: int
) -> tuple[list[RequestFile], tuple[str, ...]]:
    """Return the requests of every rank, in the order they were opened, and notes.

    Raises InputError where a token has another number of experts than the others, or a sequence
    of a prefill does not have consecutive positions.
    """
    passes = [p for rank in ranks for p in rank if p.token_ids.size]
    if not passes:
        raise InputError(f"{folder}: records hold no token")
    top_k = max(int((p.experts >= 0).sum(axis=2).max()) for p in passes)
    routed = np.logical_or.reduce([(p.experts >= 0).any(axis=(1, 2)) for p in passes])
    if not top_k:
        raise InputError(f"{folder}: topk_ids_of_layer is -1 throughout")
    files: list[RequestFile] = []
    idle = 0
    for number, rank in enumerate(ranks):
        here = [p for p in rank if p.token_ids.size]
        if not here:
            continue
        experts = np.concatenate([_rows(p, routed, top_k) for p in here])
        tokens = np.concatenate([p.token_ids for p in here])
        position = np.concatenate([p.position for p in here])
        live = np.concatenate([(p.experts >= 0).any(axis=(0, 2)) for p in here])
        for opened in _sequences(here, live):
            rows = np.array(opened.rows)
            computed = rows[live[rows]]
            idle += len(rows) - len(computed)
            if computed.size:
                whole = opened.first == 0 and opened.prompt >= 0
                files.append(
                    request(
                        str(folder),
                        f"rank{number}-{len(files):04d}",
                        experts[computed],
                        position=position[computed],
                        prompt_len=opened.prompt,
                        num_experts=num_experts,
                        prompt_token_ids=tokens[rows[: opened.prompt]] if whole else None,
                        output_token_ids=tokens[rows[opened.prompt :]] if whole else None,
                    )
                )
    note = (f"{len(files)} requests put together from positions: the records do not name requests",)
    return files, note + ((f"{idle} tokens without experts left out",) if idle else ())


def _rows(p: Pass, routed: NDArray[np.bool_], top_k: int) -> NDArray[np.int16]:
    """Return the experts [T, layers, K]; 0 in dense layers and for tokens without experts."""
    live: NDArray[np.bool_] = np.asarray((p.experts >= 0).any(axis=(0, 2)))
    ids = p.experts[:, :, :top_k]
    lacking = (ids < 0).any(axis=2) & routed[:, None] & live[None]
    if lacking.any():
        layer, token = (int(i) for i in np.argwhere(lacking)[0])
        raise InputError(
            f"{p.where}: topk_ids_of_layer must have {top_k} experts for every token, token "
            f"{token} has fewer in layer {layer}"
        )
    return np.maximum(ids, 0).transpose(1, 0, 2).astype(np.int16)


def _sequences(passes: Sequence[Pass], live: NDArray[np.bool_]) -> list[_Open]:
    made: list[_Open] = []
    running: list[_Open] = []
    row = 0
    for p in passes:
        if p.lengths is None:
            running = _decode(p, row, live, made, running)
        else:
            running = _prefill(p, p.lengths.tolist(), row, made, running)
        row += len(p.token_ids)
    return made


def _prefill(
    p: Pass, lengths: list[int], row: int, made: list[_Open], running: list[_Open]
) -> list[_Open]:
    """Add a prefill's rows to requests and return those that run after it."""
    running = list(running)
    start = 0
    for length in filter(None, lengths):
        at = p.position[start : start + length]
        if (np.diff(at) != 1).any():
            raise InputError(
                f"{p.where}: positions must be consecutive in each sequence of extend_seq_lens"
            )
        first = int(at[0])
        # A batch that mixes both kinds has its decodes as sequences of one token.
        goes_on = (
            r for r in running if first and r.next == first and (length == 1 or not r.decoded)
        )
        open_ = next(goes_on, None)
        if open_ is None:
            open_ = _Open(first=first)
            made.append(open_)
            running.append(open_)
        open_.rows.extend(range(row + start, row + start + length))
        open_.next = first + length
        open_.decoded = length == 1 and open_.prompt >= 0
        if not open_.decoded:
            open_.prompt = open_.next
        for other in running:
            other.waits = other is open_
        start += length
    return running


def _decode(
    p: Pass, row: int, live: NDArray[np.bool_], made: list[_Open], running: list[_Open]
) -> list[_Open]:
    """Add a decode's rows to requests and return those that run after it."""
    ran: list[_Open] = []
    at = 0
    for token, position in enumerate(p.position.tolist()):
        if not live[row + token]:
            continue
        found = next((i for i in range(at, len(running)) if running[i].next == position), None)
        if found is None:
            open_ = _Open(first=position)
            made.append(open_)
        else:
            open_, at = running[found], found + 1
        open_.rows.append(row + token)
        open_.next, open_.decoded = position + 1, True
        ran.append(open_)
    return ran + [r for r in running if r.waits and not r.decoded]
