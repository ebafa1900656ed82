"""The settings of ``topomoe routers``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

from topomoe.commands.router_network_settings import NetworkPriceSettings
from topomoe.moe import assignment, routers
from topomoe.moe.adapter_settings import VARIANTS, AdapterSettings
from topomoe.moe.settings import BALANCE_LOSSES, LanguageModelSettings, TrainingSettings
from topomoe.moe.text.settings import TextSettings
from topomoe.topologies.errors import InputError, unknown

STUDIES = ("tuning", "pareto", "capacity", "size", "losses", "assignments", "adapters")
PARTS = (*STUDIES, "profile")
FULL = "full"  # all of a model's parameters are trained on, beside adapters
WITHOUT_LOGITS = ("hash", "expert-choice")  # whose tokens choose by no score of experts


@dataclass(frozen=True)
class RoutersSettings:
    """Which routers are trained, on what text, and what is done with them."""

    parts: tuple[str, ...] = STUDIES
    """What is studied: tuning (each router's learning rate and balance, on validation text, for all
    trainings of the other parts), pareto (perplexity against step time), capacity (capacity factor
    x experts x top-k), size (ranking by number of experts), losses (fine-tuning with each balance
    loss), assignments (other choices of experts at inference), adapters (low-rank fine-tuning),
    profile (one model's trace, written to trace.npz)."""
    routers: tuple[str, ...] = routers.names()
    """Routers of pareto and size; of profile the first."""
    capacity_factors: tuple[float, ...] = (1.0, 1.25, 2.0)
    """Capacity factors of pareto, 0: none; of profile the first."""
    experts: int = 32
    """Experts a layer."""
    top_k: int = 2
    """Experts a token; top1 has one."""
    layers: int = 4
    """Layers of the model, each of attention and experts."""
    hidden: int = 128
    """Width of a token."""
    heads: int = 4
    """Attention heads."""
    expert_hidden: int = 128
    """Width inside an expert."""
    seeds: int = 3
    """Trainings of every model, with seeds 0, 1, ..."""
    requests: int = 192
    """Held-out windows that perplexities and traces are taken from."""
    tune_rates: tuple[float, ...] = (4e-3, 8e-3, 16e-3)
    """tuning: peak learning rates."""
    tune_weights: tuple[float, ...] = (0.01, 0.1)
    """tuning: weights of the balance loss, of routers that take one."""
    tune_updates: tuple[float, ...] = (3e-3, 1e-2)
    """tuning: steps of bias-balanced's bias."""
    tune_steps: int = 80
    """tuning: optimiser steps of each trial."""
    sweep_experts: tuple[int, ...] = (64, 128, 256)
    """capacity: experts a layer."""
    sweep_top_k: tuple[int, ...] = (1, 2, 4)
    """capacity: experts a token."""
    sweep_factors: tuple[float, ...] = (0.9, 1.0, 1.1, 1.25, 1.5)
    """capacity: factors that each model, of router softk (top1 for one expert a token), is measured
    at; it is trained at base_factor."""
    sweep_steps: int = 60
    """capacity: optimiser steps of a model."""
    sweep_seeds: int = 1
    """capacity: trainings of every model."""
    timed_steps: int = 3
    """capacity: forward and backward passes that a throughput is measured on, after one more."""
    size_experts: tuple[int, ...] = (8, 16, 32)
    """size: experts a layer."""
    size_steps: int = 60
    """size: optimiser steps of a model."""
    base_router: str = "softk"
    """losses, adapters: the router whose trained models are fine-tuned."""
    base_factor: float = 1.25
    """size, losses, assignments, adapters: the capacity factor that models are trained at."""
    losses: tuple[str, ...] = BALANCE_LOSSES
    """losses: balance losses of the fine-tuning."""
    loss_weights: tuple[float, ...] = (0.1, 1.0)
    """losses: weights of each."""
    loss_steps: int = 40
    """losses: optimiser steps."""
    assignments: tuple[str, ...] = assignment.names()
    """assignments: what chooses the experts instead of the router."""
    assignment_routers: tuple[str, ...] = ("softk", "bias-balanced")
    """assignments: routers whose trained models it is done to; hash and expert-choice cannot be."""
    assignment_factor: float = 0.0
    """assignments: capacity factor at inference; 0: no pair is dropped, as models are served. What
    reroute keeps to is base_factor."""
    adapter_variants: tuple[str, ...] = (*VARIANTS, FULL)
    """adapters: what is trained beside the frozen model; full: the whole model instead."""
    adapter_ranks: tuple[int, ...] = (8,)
    """adapters: widths inside an adapter."""
    adapter_domain: str = "code"
    """adapters: the domain that they are trained on, and judged by."""
    adapter_steps: int = 40
    """adapters: optimiser steps."""
    adapter_rates: tuple[float, ...] = (1e-3, 1e-2)
    """adapters: peak learning rates; the one that is best on validation text is taken."""
    loss_rate: float = 1e-3
    """losses: peak learning rate."""
    pretrained: str = ""
    """profile, assignments: folder of a Hugging Face model to take instead of a trained one."""
    trace: tuple[str, ...] = ()
    """Folders of real traces whose load by layer stands beside that of the trained routers."""
    keep_models: bool = False
    """Keep the trained models in the run's folder."""
    text: TextSettings = field(default_factory=TextSettings)
    """The text that models are trained on and judged by."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """How models are trained."""
    network: NetworkPriceSettings = field(default_factory=NetworkPriceSettings)
    """The cluster that traces are priced on."""

    def __post_init__(self) -> None:
        """Check every field; InputError names it."""
        gated = tuple(name for name in routers.names() if name not in WITHOUT_LOGITS)
        for name, what, choices in (
            ("parts", "part", PARTS),
            ("routers", "router", routers.names()),
            ("losses", "balance loss", BALANCE_LOSSES),
            ("assignments", "assignment", assignment.names()),
            ("assignment_routers", "assignment router", gated),
            ("adapter_variants", "adapter variant", (*VARIANTS, FULL)),
        ):
            for value in self._different(name):
                if value not in choices:
                    raise unknown(what, value, choices)
        for name, least in (("capacity_factors", 0.0), ("sweep_factors", 0.0)):
            self._check_numbers(name, least)
        for name in ("loss_weights", "adapter_rates", "tune_rates", "tune_weights", "tune_updates"):
            self._check_numbers(name, 0.0)
        for name in ("sweep_experts", "sweep_top_k", "size_experts", "adapter_ranks"):
            self._check_numbers(name, 1)
        if not 0 <= self.assignment_factor < inf:
            raise InputError(f"assignment_factor must be >= 0, got {self.assignment_factor}")
        for name in ("seeds", "sweep_seeds", "timed_steps", "loss_steps", "adapter_steps"):
            self._check_positive(name)
        for name in ("sweep_steps", "size_steps", "tune_steps"):
            self._check_positive(name)
        if self.requests < 2 * len(self.text.domains):
            raise InputError(f"requests must be >= 2 a domain, got {self.requests}")
        if self.base_router not in routers.names():
            raise unknown("base_router", self.base_router, routers.names())
        if self.adapter_domain not in self.text.domains and "adapters" in self.parts:
            raise unknown("adapter_domain", self.adapter_domain, self.text.domains)
        if not 0 < self.loss_rate < inf:
            raise InputError(f"loss_rate must be > 0 and finite, got {self.loss_rate}")
        self._check_shapes()
        for rank in self.adapter_ranks:
            AdapterSettings(rank=rank)

    def _different(self, name: str) -> tuple[str, ...]:
        values: tuple[str, ...] = getattr(self, name)
        if not values or len(set(values)) != len(values):
            raise InputError(f"{name} must name one or more different ones, got {list(values)}")
        return values

    def _check_numbers(self, name: str, least: float) -> None:
        values = getattr(self, name)
        if not values or len(set(values)) != len(values):
            raise InputError(f"{name} must hold one or more different values, got {list(values)}")
        for value in values:
            if not least <= value < inf:
                raise InputError(f"{name} must be >= {least:g} and finite, got {value}")

    def _check_positive(self, name: str) -> None:
        if getattr(self, name) < 1:
            raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")

    def _check_shapes(self) -> None:
        """Let every model that will be made check its shape."""
        self.shape("topk-hard", self.base_factor)
        if {"pareto", "profile"} & set(self.parts):
            for router in self.routers:
                for factor in self.capacity_factors:
                    self.shape(router, factor)
        if {"losses", "adapters"} & set(self.parts):
            self.shape(self.base_router, self.base_factor)
        if "size" in self.parts:
            for router in self.routers:
                for experts in self.size_experts:
                    self.shape(router, self.base_factor, experts)
        if "capacity" in self.parts:
            for experts in self.sweep_experts:
                for top_k in self.sweep_top_k:
                    self.shape(swept_router(top_k), self.base_factor, experts, top_k)

    def shape(
        self, router: str, capacity_factor: float, experts: int = 0, top_k: int = 0
    ) -> LanguageModelSettings:
        """Return the shape of a model; experts and top-k are the settings' own where 0."""
        return LanguageModelSettings(
            layers=self.layers,
            hidden=self.hidden,
            heads=self.heads,
            expert_hidden=self.expert_hidden,
            experts=experts or self.experts,
            top_k=1 if router == "top1" else top_k or self.top_k,
            router=router,
            capacity_factor=capacity_factor,
        )


def swept_router(top_k: int) -> str:
    """Return the router of the part capacity: the softmax of a single logit would teach nothing."""
    return "top1" if top_k == 1 else "softk"


def quick_settings() -> RoutersSettings:
    """Return the defaults of ``--quick``: every part and all routers on a smaller model.

    One capacity factor, half the experts, half the layers and the width, fewer steps and less text:
    what it ranks is a young model. On two cores it takes less than four minutes.
    """
    full = RoutersSettings()
    return replace(
        full,
        capacity_factors=(1.25,),
        experts=16,
        layers=2,
        hidden=64,
        expert_hidden=64,
        requests=96,
        tune_rates=(8e-3, 16e-3),
        tune_weights=(0.1,),
        tune_updates=(1e-2,),
        tune_steps=40,
        sweep_experts=(64, 128),
        sweep_top_k=(1, 2),
        sweep_factors=(0.9, 1.25, 1.5),
        sweep_steps=30,
        size_experts=(8, 16),
        size_steps=30,
        loss_weights=(0.1,),
        loss_steps=20,
        assignment_routers=("softk",),
        adapter_ranks=(4,),
        adapter_steps=20,
        text=replace(full.text, domain_bytes=1_000_000),
        training=replace(full.training, steps=120, curve_points=6),
        network=replace(full.network, batches=100),
    )
