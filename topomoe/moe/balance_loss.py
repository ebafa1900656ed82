"""Losses that push a router's gate towards even loads, and the one that keeps its logits small.

All but the Switch loss measure the mean gate probability P_e over tokens alone; every gradient
goes through the gate's probabilities, as counts have none. Nothing here needs torch at import.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

from topomoe.topologies.errors import unknown

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-30  # shares below count as this in a logarithm, whose gradient stays finite


def switch(probabilities: Tensor, load: Tensor) -> Tensor:
    """Return E sum_e f_e P_e: 1 where load or gate is even, up to E (Fedus et al. 2021, eq. 4).

    f_e is the share of token-expert pairs that chose expert e, so that K experts a token leave the
    scale as it is. Its gradient lowers the probability of the experts that got most tokens.
    """
    share = (load.double() / load.sum()).to(probabilities)
    return len(share) * (share * probabilities.mean(dim=0)).sum()


def gini(probabilities: Tensor) -> Tensor:
    """Return the Gini coefficient of P, as ``topomoe.stats.gini``: 0 even, 1 - 1/E one expert."""
    ordered = probabilities.mean(dim=0).sort().values
    experts = len(ordered)
    rank = ordered.new_ones(experts).cumsum(dim=0)
    # sum (2i - E - 1) x_i: the coefficients add up to 0, so that an even P gives 0 to rounding.
    return ((2 * rank - experts - 1) * ordered).sum() / (experts * ordered.sum())


def variance(probabilities: Tensor) -> Tensor:
    """Return the variance of P over the experts: 0 even, (1 - 1/E) / E one expert."""
    return probabilities.mean(dim=0).var(correction=0)


def cv(probabilities: Tensor) -> Tensor:
    """Return the coefficient of variation of P: 0 even, sqrt(E - 1) one expert."""
    mean_gate = probabilities.mean(dim=0)
    return mean_gate.std(correction=0) / mean_gate.mean()


def entropy(probabilities: Tensor) -> Tensor:
    """Return 1 - H(P) / ln E: 0 even, 1 one expert."""
    mean_gate = probabilities.mean(dim=0)
    if len(mean_gate) == 1:
        return mean_gate.sum() * 0.0
    share = mean_gate / mean_gate.sum()
    return 1.0 + (share * share.clamp(min=TINY).log()).sum() / log(len(share))


_OF_GATE = {"gini": gini, "variance": variance, "cv": cv, "entropy": entropy}


def names() -> tuple[str, ...]:
    """Return the names that ``balance_loss`` takes."""
    return ("switch", *_OF_GATE)


def balance_loss(name: str, probabilities: Tensor, load: Tensor) -> Tensor:
    """Return the balance loss ``name`` of one layer, a scalar.

    ``probabilities`` [T, E] are the gate's, T >= 1; ``load`` [E] counts the token-expert pairs that
    were chosen, before any capacity, not all 0; only ``switch`` reads it. Raises InputError for an
    unknown name.
    """
    if name == "switch":
        return switch(probabilities, load)
    if name not in _OF_GATE:
        raise unknown("balance loss", name, names())
    return _OF_GATE[name](probabilities)


def z_loss(logits: Tensor) -> Tensor:
    """Return the mean over tokens of (ln sum_e exp x_e)^2 of logits [T, E] (ST-MoE, eq. 5).

    Zoph et al. 2022: large logits make a router's softmax sharp and its rounding errors large.
    """
    return logits.logsumexp(dim=-1).square().mean()
