"""No placement on any topology brings a step below its bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.envs.step_bound import step_bound
from topomoe.envs.step_price import price_library, price_steps
from topomoe.envs.tiny_cluster import tiny_problem

PROBLEM = tiny_problem(epochs=60, episode_length=20)
CLUSTER, POOL = PROBLEM.cluster, PROBLEM.pool
BOUND = step_bound(CLUSTER, POOL)


def random_placement(layout: int, rng: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
    """Slots [M, S] in which every group has every expert; a device may hold one several times."""
    device = CLUSTER.slot_device[layout]
    experts = POOL.counts.shape[3]
    slots = np.full((CLUSTER.num_layers, len(device)), -1, dtype=np.int16)
    group = np.where(device >= 0, CLUSTER.group_of[layout][device], -1)
    for g in range(int(group.max()) + 1):
        mine = np.flatnonzero(group == g)
        for m in range(CLUSTER.num_layers):
            extra = rng.integers(experts, size=len(mine) - experts)
            slots[m, mine] = rng.permutation(np.concatenate([np.arange(experts), extra]))
    return slots


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), step=st.integers(0, len(BOUND) - 1))
def test_no_random_placement_is_below(seed: int, step: int) -> None:
    slots = random_placement(int(POOL.layout[step]), np.random.default_rng(seed))
    count = len(CLUSTER.topologies)
    seconds = price_steps(
        CLUSTER, POOL, np.full(count, step), np.arange(count), np.tile(slots, (count, 1, 1))
    ).sum(axis=0)
    assert (seconds >= BOUND[step] * (1 - 1e-6)).all()


def test_no_configuration_of_the_library_is_below_and_the_bound_is_near() -> None:
    best = price_library(CLUSTER, POOL).sum(axis=0).min(axis=(1, 2))
    assert (best >= BOUND * (1 - 1e-6)).all()
    assert (0.4 * best < BOUND).all()


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_no_traffic_is_below_however_it_is_spread(seed: int) -> None:
    """Few tokens, hot experts, experts without a token, groups with little to do."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.3, 20.0, POOL.counts.shape)).astype(np.float32)
    counts[rng.random(counts.shape) < rng.random()] = 0.0
    pool = replace(POOL, counts=counts)
    cluster = replace(CLUSTER, weight_seconds=10.0 ** rng.uniform(-8, -4))
    seconds = price_library(cluster, pool).sum(axis=0).min(axis=(1, 2))
    assert (seconds >= step_bound(cluster, pool) * (1 - 1e-6)).all()


def test_what_no_placement_changes_is_met_exactly() -> None:
    """Without link time, FLOPs and weights: overheads, the shared expert and the rest."""
    free = replace(
        CLUSTER,
        pull=np.zeros_like(CLUSTER.pull),
        offset=np.where(np.isinf(CLUSTER.offset), CLUSTER.offset, np.float32(0.0)),
        token_seconds=0.0,
        weight_seconds=0.0,
    )
    expected = price_library(free, POOL).sum(axis=0)[:, 0, 0]
    np.testing.assert_allclose(step_bound(free, POOL), expected, rtol=1e-9)
    layers = CLUSTER.num_layers * CLUSTER.layer_scale
    np.testing.assert_allclose(expected, layers * (2 * CLUSTER.overhead + 1e-5) + 2e-3, rtol=1e-6)


def test_perfect_balance_meets_the_bound_on_compute() -> None:
    """One group of 16 devices, 16 experts with as many tokens each, one expert a device."""
    counts = np.zeros_like(POOL.counts)
    counts[:, 0] = 32.0
    even = replace(POOL, counts=counts)
    free = replace(
        CLUSTER,
        pull=np.zeros_like(CLUSTER.pull),
        offset=np.where(np.isinf(CLUSTER.offset), CLUSTER.offset, np.float32(0.0)),
        weight_seconds=10.0 * CLUSTER.token_seconds,
    )
    device = CLUSTER.slot_device[0]
    placed = np.full((1, CLUSTER.num_layers, len(device)), -1, dtype=np.int16)
    placed[..., [int(np.flatnonzero(device == d)[0]) for d in range(16)]] = np.arange(16)
    seconds = price_steps(free, even, np.array([0]), np.array([0]), placed).sum()
    assert POOL.layout[0] == 0
    assert seconds == pytest.approx(step_bound(free, even)[0], rel=1e-6)


def test_what_the_cheapest_device_gets_over_links_alike_meets_the_bound() -> None:
    """Every device loads all links alike, one least, which holds the only expert with tokens.

    A link that nothing loads but whose path is long then waits without adding to the others.
    """
    cost = np.linspace(2.0, 3.0, 16, dtype=np.float32) * np.float32(1e-8)
    pull, offset = np.zeros_like(CLUSTER.pull), CLUSTER.offset.copy()
    used = offset[0, :, :, 0] > -np.inf
    pull[0, :, :, :16] = cost[:, None] * used[:, :, None]
    offset[offset > -np.inf] = 0.0
    counts = np.zeros_like(POOL.counts)
    counts[:, 0, :, 0] = 1000.0
    one = replace(POOL, counts=counts)
    free = replace(CLUSTER, pull=pull, offset=offset, token_seconds=0.0, weight_seconds=0.0)
    device = CLUSTER.slot_device[0]
    placed = np.full((1, CLUSTER.num_layers, len(device)), -1, dtype=np.int16)
    placed[..., [int(np.flatnonzero(device == d)[0]) for d in range(16)]] = np.arange(16)
    seconds = price_steps(free, one, np.array([0]), np.array([0]), placed).sum()
    assert seconds == pytest.approx(step_bound(free, one)[0], rel=1e-5)
    for a, direction in np.ndindex(used.shape[:2]):
        link = int(np.flatnonzero(used[a, direction])[0])
        pull[0, a, direction, :, link] = 0.0
        offset[0, a, direction, 0, link] = 3e-5
    late = replace(free, pull=pull.copy(), offset=offset.copy())
    seconds = price_steps(late, one, np.array([0]), np.array([0]), placed).sum()
    assert seconds >= step_bound(late, one)[0]


def test_more_tokens_never_lower_the_bound() -> None:
    more = replace(POOL, counts=POOL.counts + 5.0)
    assert (step_bound(CLUSTER, more) > BOUND).all()
