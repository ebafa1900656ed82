"""What a trained model's routers choose, as a routing trace."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from topomoe.moe.evaluation import BATCH
from topomoe.moe.language_model import Assigner, LanguageModel
from topomoe.moe.routers.selection import Selection
from topomoe.moe.text import Requests
from topomoe.routing_trace import RoutingTrace

NO_EXPERT = -1


@torch.no_grad()
def profile(
    model: LanguageModel,
    requests: Requests,
    assignment: Assigner | None = None,
    batch_sequences: int = BATCH,
) -> RoutingTrace:
    """Return the routing of requests as chosen, before any capacity.

    The first half of a request counts as its prompt, the second half as its output: both are text
    that was written, not generated. A request is called document@first token, as a document may
    have several. Tokens to which expert-choice gave fewer experts than others
    have -1 after theirs.
    """
    chosen: list[list[NDArray[np.int16]]] = []
    for start in range(0, len(requests.tokens), batch_sequences):
        tokens = torch.from_numpy(requests.tokens[start : start + batch_sequences])
        output = model(tokens, assignment)
        chosen.append([experts_of(layer.selection) for layer in output.layers])
    width = max(layer.shape[1] for batch in chosen for layer in batch)
    layers = [
        np.concatenate([_widen(batch[m], width) for batch in chosen])
        for m in range(model.settings.layers)
    ]
    count, length = requests.tokens.shape
    names = tuple(sorted(set(requests.domain_names)))
    half = length // 2
    return RoutingTrace(
        experts=np.ascontiguousarray(np.stack(layers)),
        request_start=np.arange(count + 1, dtype=np.int64) * length,
        request_ids=tuple(
            f"{name}@{start}" for name, start in zip(requests.names, requests.start, strict=True)
        ),
        domain_names=names,
        request_domain=np.array(
            [names.index(requests.domain_names[d]) for d in requests.domain], dtype=np.int32
        ),
        position=np.tile(np.arange(length, dtype=np.int32), count),
        prompt_len=np.full(count, half, dtype=np.int32),
        num_experts=model.settings.experts,
        repetition=np.zeros(count, dtype=np.bool_),
        prompt_token_ids=tuple(row[:half].copy() for row in requests.tokens),
        output_token_ids=tuple(row[half:].copy() for row in requests.tokens),
    )


def experts_of(selection: Selection) -> NDArray[np.int16]:
    """Return each token's experts, heaviest first, [T, K], -1 after those that a token has."""
    token, expert = selection.token.numpy(), selection.expert.numpy()
    weight = selection.weight.detach().numpy()
    order = np.lexsort((expert, -weight, token))
    token, expert = token[order], expert[order]
    count = np.bincount(token, minlength=len(selection.probabilities))
    rank = np.arange(len(token)) - np.repeat(np.cumsum(count) - count, count)
    table = np.full((len(count), max(int(count.max()), 1)), NO_EXPERT, dtype=np.int16)
    table[token, rank] = expert
    return table


def _widen(experts: NDArray[np.int16], width: int) -> NDArray[np.int16]:
    missing = width - experts.shape[1]
    return np.pad(experts, ((0, 0), (0, missing)), constant_values=NO_EXPERT)
