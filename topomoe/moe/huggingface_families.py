"""What topomoe knows of each family of Mixture-of-Experts models in Hugging Face transformers.

A model of transformers says itself which of its modules are routers (it can record their logits),
and each router returns (logits [T, E], weights [T, K], experts [T, K]) whatever was done to choose
them: groups, correction bias, dense first layers. So capturing needs no rule of a family. Changing
the experts needs two: what a family chooses by, and how it weighs those chosen. Only they are kept
here. transformers is never imported: its modules are recognised by what they offer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from topomoe.topologies.errors import InputError, unknown


@dataclass(frozen=True)
class Family:
    """The rules of a family's routers, given the router and its logits [T, E]."""

    weigh: Callable[[Any, Tensor, Tensor], Tensor]
    """(router, logits, experts [T, K]) -> weights [T, K], as the router itself computes them."""
    score: Callable[[Any, Tensor], Tensor]
    """(router, logits) -> scores [T, E], of which the K largest are the router's own choice."""


def normalised_softmax(router: Any, logits: Tensor, experts: Tensor) -> Tensor:
    """Return the softmax over all experts at the chosen ones, made to sum to 1 (Mixtral)."""
    weights = logits.float().softmax(dim=-1).gather(1, experts)
    return weights / weights.sum(dim=-1, keepdim=True)


def optional_softmax(router: Any, logits: Tensor, experts: Tensor) -> Tensor:
    """Return the softmax at the chosen experts, summing to 1 where ``norm_topk_prob`` (Qwen)."""
    weights = logits.float().softmax(dim=-1).gather(1, experts)
    if router.norm_topk_prob:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights.to(logits.dtype)


def scaled_softmax(router: Any, logits: Tensor, experts: Tensor) -> Tensor:
    """Return the softmax at the chosen experts times the scaling factor (DeepSeek-V2)."""
    weights = logits.float().softmax(dim=-1).gather(1, experts)
    return weights * float(router.routed_scaling_factor)


def scaled_sigmoid(router: Any, logits: Tensor, experts: Tensor) -> Tensor:
    """Return the sigmoid at the chosen experts, normalised and scaled (DeepSeek-V3).

    The correction bias takes part in the choice alone, never in a weight.
    """
    weights = logits.sigmoid().gather(1, experts)
    if router.norm_topk_prob:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return weights * float(router.routed_scaling_factor)


def chosen_softmax(router: Any, logits: Tensor, experts: Tensor) -> Tensor:
    """Return the softmax over the chosen experts alone (gpt-oss)."""
    return logits.gather(1, experts).softmax(dim=-1)


def logits_alone(router: Any, logits: Tensor) -> Tensor:
    """Return the logits: these families choose the K largest."""
    return logits


def logits_in_groups(router: Any, logits: Tensor) -> Tensor:
    """Return the logits, -inf outside a token's groups where groups are limited (DeepSeek-V2).

    A group counts by its best expert.
    """
    if router.topk_method == "greedy":
        return logits
    best = _by_group(router, logits.softmax(dim=-1)).amax(dim=-1)
    return _limit(logits, best, router.topk_group)


def corrected_sigmoid(router: Any, logits: Tensor) -> Tensor:
    """Return sigmoid + correction bias, -inf outside a token's groups (DeepSeek-V3).

    A group counts by the sum of its best two experts.
    """
    scores = logits.sigmoid() + router.e_score_correction_bias
    best = _by_group(router, scores).topk(2, dim=-1).values.sum(dim=-1)
    return _limit(scores, best, router.topk_group)


def _by_group(router: Any, scores: Tensor) -> Tensor:
    return scores.reshape(len(scores), int(router.num_group), -1)


def _limit(scores: Tensor, group: Tensor, kept: int) -> Tensor:
    """Return scores [T, E], -inf outside each token's ``kept`` largest groups [T, G]."""
    allowed = torch.zeros_like(group, dtype=torch.bool)
    allowed.scatter_(1, group.topk(kept, dim=-1).indices, True)
    size = scores.shape[1] // group.shape[1]
    return scores.masked_fill(~allowed.repeat_interleave(size, dim=1), float("-inf"))


# By the ``model_type`` of the model's configuration.
FAMILIES: Mapping[str, Family] = {
    "mixtral": Family(normalised_softmax, logits_alone),
    "qwen2_moe": Family(optional_softmax, logits_alone),
    "qwen3_moe": Family(optional_softmax, logits_alone),
    "olmoe": Family(optional_softmax, logits_alone),
    "deepseek_v2": Family(scaled_softmax, logits_in_groups),
    "deepseek_v3": Family(scaled_sigmoid, corrected_sigmoid),
    "gpt_oss": Family(chosen_softmax, logits_alone),
}


def family(model: nn.Module) -> Family:
    """Return the rules of the model's family; InputError for an unknown one."""
    return FAMILIES[check_family(getattr(model, "config", None))]


def check_family(config: Any) -> str:
    """Return the family's name; InputError naming the known ones for a configuration of others."""
    name = getattr(config, "model_type", None)
    if name not in FAMILIES:
        raise unknown("Mixture-of-Experts family", name, FAMILIES)
    return str(name)


def routers(model: nn.Module) -> tuple[Any, ...]:
    """Return the routers of the M MoE layers, in layer order; dense layers have none.

    Raises InputError for an unknown family and for a model without MoE layers.
    """
    name = check_family(getattr(model, "config", None))
    for module in model.modules():
        recorder = getattr(module, "can_record_outputs", {}).get("router_logits")
        kind = getattr(recorder, "target_class", ())
        found = tuple(m for m in model.modules() if isinstance(m, kind))
        if found:
            return found
    raise InputError(
        f"the {name} model has no router: no MoE layer, or transformers is older than 5.23"
    )


def routing(layer: int, output: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return a router's (logits [T, E], weights [T, K], experts [T, K]).

    Raises InputError where its output is not these three.
    """
    if not (isinstance(output, tuple) and len(output) == 3 and output[2].dtype == torch.int64):
        raise InputError(
            f"the router of MoE layer {layer} does not return logits, weights and experts: "
            "transformers >= 5.23 is needed"
        )
    return output
