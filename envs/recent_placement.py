"""EPLB made anew every so many epochs from what ran before: what periodic rebalancing does.

The placement ``recent`` of a library follows the timeline's own traffic, so that it changes under
whoever keeps it, and every change moves experts: its row and column of the migration depend on
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, RECENT, Cluster, StepPool, moving_cost
from topomoe.envs.group_layout import Layout
from topomoe.envs.placement_library import SlotArray, balanced
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.envs.step_price import price_library, price_steps

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Recent:
    """What a timeline's own past makes of placements.

    Attributes:
        forecast: float32 [T, M, E], share of each layer's tokens an expert is expected to have.
        stall: float64 [1 or T, P, P] seconds, as in ``Migration``.
        lag: float64 [1 or T, P, P].
        seconds: float64 [4, T, J, A], each step under the placement recent; empty without it.
        slots: int16 [T, M, S], the placement recent in each epoch; empty without it.
        age: float64 [T], epochs since it was made.
    """

    forecast: NDArray[np.float32]
    stall: FloatArray
    lag: FloatArray
    seconds: FloatArray
    slots: SlotArray
    age: NDArray[np.float64]


def step_share(pool: StepPool) -> FloatArray:
    """Return each step's share of tokens an expert, [Q, M, E]: rows sum to 1."""
    load = pool.counts.sum(axis=1, dtype=np.float64)
    return np.asarray(load / load.sum(axis=2, keepdims=True))


def follow_recent(
    cluster: Cluster,
    pool: StepPool,
    steps: NDArray[np.int32],
    layouts: Sequence[Layout],
    settings: ScenarioSettings,
    epoch_seconds: float,
    prior: FloatArray,
) -> Recent:
    """Return what follows from the timeline of steps [T, J]; ``prior`` [M, E] are expected shares.

    ``recent`` is made anew every ``refresh_epochs`` epochs, and for free where the layout changes,
    as all placements are then. While experts move, the epoch is served by the one before.
    """
    forecast = moving_average(step_share(pool)[steps].mean(axis=1), prior, settings.memory)
    layout = pool.layout[steps[:, 0]].astype(np.int64)
    library = np.stack(
        [
            pairwise_seconds(cluster, cluster.slot_expert[:, v], cluster.slot_expert[:, v], v)
            for v in range(len(layouts))
        ]
    )
    if RECENT not in cluster.placements:
        seconds = library if len(layouts) == 1 else library[layout]
        stall, lag = moving_cost(seconds, epoch_seconds, settings.migration_share)
        none = np.zeros((0, 0, 0), dtype=np.int16)
        return Recent(
            forecast, stall, lag, np.zeros((len(PARTS), 0, 0, 0)), none, np.zeros(len(steps))
        )
    epochs = len(steps)
    at = cluster.placements.index(RECENT)
    moved = np.flatnonzero(np.diff(layout, prepend=layout[0]))
    made_at = np.union1d(np.arange(0, epochs, settings.refresh_epochs), moved)
    groups = pool.counts.shape[1]
    slots = cluster.slot_device.shape[1]
    made = np.stack(
        [
            balanced(
                np.repeat(forecast[t][None].astype(np.float64), groups, axis=0),
                layouts[layout[t]],
                slots,
                settings.redundancy,
                settings.seed,
            )
            for t in made_at
        ]
    )
    current = np.searchsorted(made_at, np.arange(epochs), side="right") - 1
    fresh = np.zeros(epochs, dtype=np.bool_)
    fresh[made_at[1:]] = True
    fresh[moved] = False
    before = np.where(fresh, current - 1, current)
    seconds = library[layout].copy()
    for r, t in enumerate(made_at):
        until = made_at[r + 1] if r + 1 < len(made_at) else epochs
        v = int(layout[t])
        own = made[r : r + 1]
        seconds[t:until, :, at] = pairwise_seconds(cluster, cluster.slot_expert[:, v], own, v)[:, 0]
        seconds[t:until, at, :] = pairwise_seconds(cluster, own, cluster.slot_expert[:, v], v)[0]
        seconds[t:until, at, at] = 0.0
        if fresh[t]:
            old = made[r - 1 : r]
            seconds[t, at, :] = pairwise_seconds(cluster, old, cluster.slot_expert[:, v], v)[0]
            seconds[t, at, at] = pairwise_seconds(cluster, old, own, v)[0, 0]
    stall, lag = moving_cost(seconds, epoch_seconds, settings.migration_share)
    own_seconds = _priced(cluster, pool, steps, made, current)
    renewed = np.flatnonzero(fresh)
    if len(renewed):
        old_seconds = _priced(cluster, pool, steps[renewed], made, before[renewed])
        share = lag[renewed, at, at][None, :, None, None]
        own_seconds[:, renewed] = (1.0 - share) * own_seconds[:, renewed] + share * old_seconds
        # Those who keep it are served by the table itself; lag still slows dispatch and combine.
    age = np.arange(epochs, dtype=np.float64) - made_at[current]
    return Recent(forecast, stall, lag, own_seconds, made[current], age)


def expected_excess(
    cluster: Cluster,
    typical: StepPool,
    steps: NDArray[np.int32],
    pool: StepPool,
    made: SlotArray,
    shares: NDArray[np.float64],
    topology: int,
) -> NDArray[np.float32]:
    """Return what the placement recent is expected to cost over the library's best, [T, 1].

    ``typical`` holds one step of each context: the training mean, so that nothing of the epoch
    itself is used but its queue. ``shares`` [T, D'] are those of the domains among the requests of
    the coming epoch, and ``made`` [T, M, S] the placement. 0.1: a tenth dearer.
    """
    epochs, domains = shares.shape
    context = pool.context[steps[:, 0]].astype(np.int64)
    levels = len(typical.context) // (len(cluster.layouts) * domains)
    layout, level = context // (domains * levels), context % levels
    # One price for every placement made, not for every epoch that keeps it.
    new = np.ones(epochs, dtype=np.bool_)
    new[1:] = (made[1:] != made[:-1]).any(axis=(1, 2)) | (layout[1:] != layout[:-1])
    number = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    every = np.arange(domains)[:, None] * levels + np.arange(levels)
    asked = (layout[first, None, None] * domains * levels + every).reshape(len(first), -1)
    priced = price_steps(
        cluster, typical, asked, np.full(len(first), topology), np.ascontiguousarray(made[first])
    ).sum(axis=0)
    usual = price_library(cluster, typical).sum(axis=0)[:, topology]
    kept = [p for p, name in enumerate(cluster.placements) if name != RECENT]
    excess = priced / usual[:, kept].min(axis=1)[asked] - 1.0
    each = excess.reshape(len(first), domains, levels)[number, :, level]
    weight = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray((each * weight).sum(axis=1, keepdims=True), dtype=np.float32)


def moving_average(share: FloatArray, prior: FloatArray, memory: float) -> NDArray[np.float32]:
    """Return what the epochs before each one make expect, [T, M, E]; at first the ``prior``."""
    forecast = np.empty(share.shape, dtype=np.float32)
    now = prior.copy()
    for t in range(len(share)):
        forecast[t] = now
        now = (1.0 - memory) * now + memory * share[t]
    return forecast


def pairwise_seconds(
    cluster: Cluster, before: SlotArray, after: SlotArray, layout: int
) -> FloatArray:
    """Return how long moving from each placement [B, M, S] to each [C, M, S] takes, [B, C].

    The device that gets the most experts that it did not hold decides; weights take
    ``migration_share`` of its NIC.
    """
    old, new = _held(cluster, before, layout), _held(cluster, after, layout)
    kept = np.einsum("bnk,cnk->bcn", old, new)
    arriving = (new.sum(axis=2)[None] - kept).max(axis=2)
    rate = cluster.nic * cluster.migration_share
    pair = cluster.expert_bytes * cluster.layer_scale / rate
    return np.asarray(arriving.astype(np.float64) * pair)


def _held(cluster: Cluster, placements: SlotArray, layout: int) -> NDArray[np.float32]:
    """Return whether each device holds each expert of each layer, [B, N, M * E]."""
    count, layers = placements.shape[:2]
    experts = int(placements.max()) + 1
    experts = max(experts, int(cluster.slot_expert.max()) + 1)
    used = cluster.slot_device[layout] >= 0
    device = cluster.slot_device[layout, used].astype(np.int64)
    held = np.zeros((count, cluster.num_devices, layers, experts), dtype=np.float32)
    b, m = np.ogrid[:count, :layers]
    held[b[..., None], device, m[..., None], placements[:, :, used]] = 1.0
    return held.reshape(count, cluster.num_devices, layers * experts)


def _priced(
    cluster: Cluster,
    pool: StepPool,
    steps: NDArray[np.int32],
    made: SlotArray,
    which: NDArray[np.int64],
) -> FloatArray:
    """Return seconds [4, T, J, A] of steps [T, J] under placements ``made[which]`` everywhere."""
    count = len(cluster.topologies)
    topology = np.tile(np.arange(count), len(steps))
    priced = price_steps(
        cluster, pool, steps.repeat(count, axis=0), topology, made, which.repeat(count)
    )
    return np.ascontiguousarray(
        priced.reshape(len(PARTS), len(steps), count, -1).transpose(0, 1, 3, 2)
    )
