"""Tabulated steps: which experts the tokens of each group choose, drawn from a trace's requests.

An epoch is of one *context*: a layout, a dominant domain (or none), and a load level. Each context
has a pool of steps of its own, and the steps of an epoch are drawn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.compute import expert_seconds, other_seconds
from topomoe.envs.cluster import StepPool
from topomoe.envs.group_layout import Layout
from topomoe.envs.network_tables import BACKGROUND
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.model import Device, MoEModel
from topomoe.routing_trace import RoutingTrace
from topomoe.sampling import Sampler
from topomoe.step import StepSettings
from topomoe.topologies.errors import InputError

_PART = {"decode": "output", "prefill": "prompt"}
LEAST_SHARE = 0.04  # of the requests that a domain needs to have phases of its own


@dataclass(frozen=True, eq=False)
class Contexts:
    """Every kind of epoch: C = V * D' * levels of them, layout slowest, level fastest.

    Attributes:
        layouts: V layouts.
        domains: indices of the D' domains that have phases; one entry -1 where none has.
        levels: tokens over the settings'.
    """

    layouts: tuple[Layout, ...]
    domains: NDArray[np.int64]
    levels: NDArray[np.float64]

    @property
    def count(self) -> int:
        """C."""
        return len(self.layouts) * len(self.domains) * len(self.levels)

    def split(
        self, context: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (layout, index into domains, level) of each context."""
        rest, level = np.divmod(context, len(self.levels))
        layout, domain = np.divmod(rest, len(self.domains))
        return layout, domain, level

    def number(
        self, layout: NDArray[np.int64], domain: NDArray[np.int64], level: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the context of a layout, an index into domains, and a level."""
        return (layout * len(self.domains) + domain) * len(self.levels) + level


def frequent_domains(trace: RoutingTrace) -> NDArray[np.int64]:
    """Return the domains with enough requests for phases of their own; [-1] if fewer than two."""
    size = np.bincount(trace.request_domain, minlength=len(trace.domain_names))
    chosen = np.flatnonzero(size >= LEAST_SHARE * size.sum())
    return chosen if len(chosen) > 1 else np.array([-1])


def phase_domains(trace: RoutingTrace, settings: ScenarioSettings) -> NDArray[np.int64]:
    """Return the domains that have phases, or [-1] without phases.

    Raises:
        InputError: phases are asked for and the trace has fewer than two such domains.
    """
    if settings.domain_weight == 0:
        return np.array([-1])
    chosen = frequent_domains(trace)
    if len(chosen) < 2:
        raise InputError(
            f"domain_weight must be 0: the trace has fewer than two domains with "
            f"{LEAST_SHARE:.0%} of the requests"
        )
    return chosen


def step_pool(
    trace: RoutingTrace,
    contexts: Contexts,
    settings: ScenarioSettings,
    model: MoEModel,
    device: Device,
    step: StepSettings,
    rng: np.random.Generator,
) -> tuple[StepPool, NDArray[np.float32]]:
    """Return ``settings.pool`` steps of each context, and each step's domain shares [Q, D].

    Decode draws requests alike and one output position of each; prefill packs prompts one after
    another, as ``workload.iter_batches`` does.
    """
    base = np.bincount(trace.request_domain, minlength=len(trace.domain_names))
    base = base / base.sum()
    samplers = {kind: Sampler.of(trace, part) for kind, part in _PART.items()}
    groups = max(len(layout.kinds) for layout in contexts.layouts)
    steps, layers, experts = (
        settings.pool * contexts.count,
        trace.num_layers,
        trace.num_experts,
    )
    counts = np.zeros((steps, groups, layers, experts), dtype=np.float32)
    shared, other = np.zeros((2, steps, groups))
    background = np.zeros((steps, len(BACKGROUND)), dtype=np.float32)
    shares = np.zeros((steps, len(base)), dtype=np.float32)
    context = np.repeat(np.arange(contexts.count), settings.pool)
    layout, domain, level = contexts.split(context)
    for q in range(steps):
        where = contexts.layouts[layout[q]]
        mix = _mix(base, int(contexts.domains[domain[q]]), settings.domain_weight)
        scale = float(contexts.levels[level[q]])
        background[q] = settings.kv_bytes * scale, settings.all_reduce_bytes * scale
        served = np.zeros(len(base))
        for g, (kind, size) in enumerate(zip(where.kinds, where.sizes.tolist(), strict=True)):
            each = settings.decode_tokens if kind == "decode" else settings.prefill_tokens
            tokens = max(1, round(scale * each * size))
            positions = draw_positions(samplers[kind], kind, tokens, mix, rng)
            counts[q, g] = expert_counts(trace, positions)
            per_device = tokens / size
            shared[q, g] = model.num_shared_experts * float(
                expert_seconds(np.array(per_device), model, device, step.tile_tokens)
            )
            other[q, g] = other_seconds(per_device, model, device, kind, step.context_tokens)
            of_domain = trace.request_domain[trace.position_request[positions]]
            served += np.bincount(of_domain, minlength=len(base))
        shares[q] = served / served.sum()
    pool = StepPool(
        counts=counts,
        background=background,
        shared=shared,
        other=other,
        layout=layout.astype(np.int16),
        context=context.astype(np.int16),
    )
    return pool, shares


def typical_steps(pool: StepPool, contexts: Contexts) -> StepPool:
    """Return one step of each context: the mean of its pool."""
    each = [np.flatnonzero(pool.context == c) for c in range(contexts.count)]

    def mean(array: NDArray[Any]) -> NDArray[Any]:
        means = [array[steps].mean(axis=0, dtype=np.float64) for steps in each]
        return np.stack(means).astype(array.dtype)

    return StepPool(
        counts=mean(pool.counts),
        background=mean(pool.background),
        shared=mean(pool.shared),
        other=mean(pool.other),
        layout=np.array([pool.layout[steps[0]] for steps in each], dtype=np.int16),
        context=np.arange(contexts.count, dtype=np.int16),
    )


def draw_positions(
    sampler: Sampler, kind: str, tokens: int, mix: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the positions of ``tokens`` tokens of a prefill or a decode step."""
    if kind == "decode":
        return sampler.tokens(tokens, mix, rng)[0]
    first, length, _ = sampler.runs(tokens, mix, rng)
    start = np.cumsum(length) - length
    return np.asarray(np.repeat(first - start, length) + np.arange(tokens))


def expert_counts(trace: RoutingTrace, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return how many of the tokens chose each expert, [M, E]."""
    layers, experts = trace.num_layers, trace.num_experts
    chosen = trace.experts[:, positions].reshape(layers, -1).astype(np.int64) + 1
    chosen += (experts + 1) * np.arange(layers)[:, None]
    flat = np.bincount(chosen.reshape(-1), minlength=layers * (experts + 1))
    return flat.reshape(layers, experts + 1)[:, 1:].astype(np.float32)


def demand_statistics(
    pool: StepPool,
    layouts: Sequence[Layout],
    received: NDArray[np.float32],
    quadrant: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return concentration and locality of each step's demand, [Q, 2].

    ``received`` [Q, N]: token copies that each device gets, from its group's devices evenly.
    Concentration is the Gini coefficient of what devices receive; locality the share of the bytes
    between devices that stay inside a ``quadrant`` [N] of the grid.
    """
    ordered = np.sort(received.astype(np.float64), axis=1)
    devices = received.shape[1]
    rank = np.arange(1, devices + 1)
    total = np.maximum(ordered.sum(axis=1), 1e-300)
    gini = (2.0 * (ordered @ rank) / total - (devices + 1)) / devices
    near = np.zeros(len(received))
    for v, layout in enumerate(layouts):
        same_group = (layout.group_of[:, None] == layout.group_of) & (layout.group_of >= 0)
        np.fill_diagonal(same_group, False)
        same = same_group & (quadrant[:, None] == quadrant)
        share = same.sum(axis=0) / np.maximum(same_group.sum(axis=0), 1)
        mine = pool.layout == v
        near[mine] = (received[mine] @ share) / total[mine]
    return np.stack([gini, near], axis=1).astype(np.float32)


def _mix(base: NDArray[np.float64], dominant: int, weight: float) -> NDArray[np.float64]:
    if dominant < 0:
        return base
    mix = (1.0 - weight) * base
    mix[dominant] += weight
    return mix


def received_tokens(
    pool: StepPool,
    layouts: Sequence[Layout],
    slot_device: NDArray[np.int16],
    slot_expert: NDArray[np.int16],
) -> NDArray[np.float32]:
    """Return the token copies that each device computes, [Q, N], summed over layers.

    ``slot_device`` [V, S] and ``slot_expert`` [V, M, S]: one placement in each layout. Replicas
    divide an expert's tokens evenly.
    """
    devices = len(layouts[0].group_of)
    groups, layers, experts = pool.counts.shape[1:]
    received = np.zeros((len(pool.layout), devices), dtype=np.float32)
    for v, layout in enumerate(layouts):
        mine = np.flatnonzero(pool.layout == v)
        used = slot_device[v] >= 0
        device = slot_device[v, used].astype(np.int64)
        group = layout.group_of[device].astype(np.int64)
        for m in range(layers):
            expert = slot_expert[v, m, used].astype(np.int64)
            copies = np.zeros((groups, experts))
            np.add.at(copies, (group, expert), 1.0)
            held = np.zeros((groups * experts, devices), dtype=np.float32)
            np.add.at(held, (group * experts + expert, device), 1.0 / copies[group, expert])
            received[mine] += pool.counts[mine, :, m].reshape(len(mine), -1) @ held
    return received
