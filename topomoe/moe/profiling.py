"""What a trained model's routers choose, as a routing trace."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from topomoe.moe.evaluation import BATCH
from topomoe.moe.language_model import Assigner, LanguageModel
from topomoe.moe.routers.selection import Selection
from topomoe.moe.sequence_trace import trace_of_sequences
from topomoe.moe.text import Requests
from topomoe.routing_trace import NO_EXPERT, RoutingTrace


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
    have several. Tokens to which expert-choice gave fewer experts than others have -1 after theirs.
    """
    chosen: list[NDArray[np.int16]] = []
    for start in range(0, len(requests.tokens), batch_sequences):
        tokens = torch.from_numpy(requests.tokens[start : start + batch_sequences])
        output = model(tokens, assignment)
        layers = [experts_of(layer.selection) for layer in output.layers]
        width = max(layer.shape[1] for layer in layers)
        experts = np.stack([_widen(layer, width) for layer in layers], axis=1)  # [B L, M, K]
        chosen += np.split(experts, len(tokens))
    width = max(experts.shape[2] for experts in chosen)
    return trace_of_sequences(
        [_widen(experts, width) for experts in chosen],
        list(requests.tokens),
        requests.window_domains,
        requests.window_names,
        model.settings.experts,
        prompt_share=0.5,
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
    """Return experts [..., k] as [..., width], -1 where there were none."""
    sides = [(0, 0)] * (experts.ndim - 1) + [(0, width - experts.shape[-1])]
    return np.pad(experts, sides, constant_values=NO_EXPERT)
