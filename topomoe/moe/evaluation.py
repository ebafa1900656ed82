"""What a language model's routing looks like, and its perplexity on held-out text."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from topomoe.moe.language_model import Assigner, LanguageModel, Output
from topomoe.stats import coefficient_of_variation

BATCH = 32  # sequences run together; capacity is counted over them
LARGEST_EXPONENT = 709.0  # of a float


@dataclass(frozen=True, eq=False)
class RoutingCounts:
    """What all layers' routers did with a number of tokens."""

    load: NDArray[np.int64]  # [M, E] pairs that were chosen, before any capacity
    kept: NDArray[np.int64]  # [M] pairs that found room
    left_out: NDArray[np.int64]  # [M] tokens with no pair that found room
    entropy: NDArray[np.float64]  # [M] of the gate over ln E, times the tokens
    tokens: int

    def __add__(self, other: RoutingCounts) -> RoutingCounts:
        return RoutingCounts(
            self.load + other.load,
            self.kept + other.kept,
            self.left_out + other.left_out,
            self.entropy + other.entropy,
            self.tokens + other.tokens,
        )

    def summary(self) -> dict[str, float]:
        """Return means over layers: drop rates, variation of the load before drops, entropy."""
        layers = len(self.kept)
        return {
            "token_drop_rate": float(self.left_out.sum()) / (layers * self.tokens),
            "assignment_drop_rate": 1.0 - float(self.kept.sum()) / max(float(self.load.sum()), 1),
            "load_cv": float(coefficient_of_variation(self.load).mean()),
            "gate_entropy": float(self.entropy.mean()) / self.tokens,
        }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The loss of every sequence, and the routing of all of them."""

    loss: NDArray[np.float64]  # [Q] nats a token
    routing: RoutingCounts

    @property
    def perplexity(self) -> float:
        """exp of the mean loss; all sequences are equally long. Infinite beyond any float."""
        mean = float(self.loss.mean())
        return math.inf if mean > LARGEST_EXPONENT else math.exp(mean)


def count_routing(output: Output) -> RoutingCounts:
    """Return what the layers of one forward pass did."""
    tokens = output.logits.shape[0] * output.logits.shape[1]
    load, kept, left_out, entropy = [], [], [], []
    for layer in output.layers:
        chosen = layer.selection
        load.append(chosen.load().numpy())
        kept.append(int(layer.kept.sum()))
        served = torch.zeros(tokens, dtype=torch.bool)
        served[chosen.token[layer.kept]] = True
        left_out.append(tokens - int(served.sum()))
        entropy.append(float(chosen.entropy().detach()) * tokens)
    return RoutingCounts(
        np.stack(load), np.array(kept), np.array(left_out), np.array(entropy), tokens
    )


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    sequences: NDArray[np.int64],
    assignment: Assigner | None = None,
    causal: bool = False,
    batch_sequences: int = BATCH,
) -> Evaluation:
    """Return the loss of predicting each sequence's tokens after the first, [Q, L + 1].

    Args:
        model: the model.
        sequences: token ids [Q, L + 1].
        assignment: chooses experts instead of the routers.
        causal: expert-choice picks among tokens of the same position only, of which a batch has
            ``batch_sequences``.
        batch_sequences: sequences run together, over which capacities are counted.
    """
    losses, routing = [], None
    for start in range(0, len(sequences), batch_sequences):
        tokens = torch.from_numpy(sequences[start : start + batch_sequences])
        output = model(tokens[:, :-1], assignment, causal)
        losses.append(sequence_loss(output.logits, tokens[:, 1:]))
        counts = count_routing(output)
        routing = counts if routing is None else routing + counts
    assert routing is not None
    return Evaluation(np.concatenate(losses), routing)


def sequence_loss(logits: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """Return each sequence's mean negative log-likelihood, nats: logits [B, L, V] -> [B]."""
    each = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return each.view(targets.shape).double().mean(dim=1).numpy()
