from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe import topologies
from topomoe.envs.cluster import Cluster, StepPool
from topomoe.envs.codesign_links import packed_links
from topomoe.envs.group_layout import parse_layout
from topomoe.envs.network_tables import background_pattern, network_tables
from topomoe.envs.step_price import library_layers, price_library, price_steps, step_loads
from topomoe.topologies.errors import InputError

OUT, BACK = 7168.0, 14336.0  # bytes of a token copy
LAYOUTS = {
    text: parse_layout(text, 16, np.random.default_rng(0))
    for text in ("decode 16", "prefill 8 + decode 8 scattered", "prefill 5 + decode 5")
}
LAYERS, EXPERTS, SLOTS = 3, 10, 48


def random_cluster(seed: int, names: tuple[str, ...] = ("torus", "mesh")) -> tuple[Any, ...]:
    """A 4x4 cluster with three layouts and random placements, and a pool of random steps."""
    rng = np.random.default_rng(seed)
    made = [topologies.make(name, grid=(4, 4), latency="3us") for name in names]
    layouts = list(LAYOUTS.values())
    groups = [layout.group_of for layout in layouts]
    pull, offset = network_tables(made, layouts, OUT, BACK, 0.0)
    weight = np.zeros((3, 2))
    for v, layout in enumerate(layouts):
        weight[v, : len(layout.sizes)] = layout.sizes / layout.sizes.sum()
    slot_device = np.tile(np.repeat(np.arange(16), 3).astype(np.int16), (3, 1))
    slot_expert = np.empty((2, 3, LAYERS, SLOTS), dtype=np.int16)
    for p, v, m in np.ndindex(2, 3, LAYERS):
        for g in (0, 1):
            mine = np.flatnonzero(groups[v][slot_device[v]] == g)
            experts = np.concatenate([np.arange(EXPERTS), rng.integers(EXPERTS, size=SLOTS)])
            slot_expert[p, v, m, mine] = rng.permutation(experts[: len(mine)])
        slot_expert[p, v, m, groups[v][slot_device[v]] < 0] = -1
    cluster = Cluster(
        topologies=names,
        placements=("first", "second"),
        layouts=tuple(LAYOUTS),
        pull=pull,
        offset=offset,
        group_of=np.stack(groups),
        weight=weight,
        slot_device=slot_device,
        slot_expert=slot_expert,
        overhead=5e-6,
        token_seconds=2e-8,
        weight_seconds=4e-6,
        layer_scale=2.5,
        reconfiguration=np.zeros((len(names), len(names))),
        expert_bytes=1e7,
        nic=5e10,
        migration_share=0.2,
        grid=(4, 4),
    )
    count = 9
    counts = rng.integers(0, 400, (count, 2, LAYERS, EXPERTS)).astype(np.float32)
    counts[rng.random(counts.shape) < 0.2] = 0.0
    pool = StepPool(
        counts=counts,
        background=(1e5 * rng.random((count, 2))).astype(np.float32),
        shared=1e-5 * rng.random((count, 2)),
        other=1e-3 * rng.random((count, 2)),
        layout=(np.arange(count) % 3).astype(np.int16),
        context=np.zeros(count, dtype=np.int16),
    )
    return cluster, pool, [topologies.route(topology) for topology in made]


def device_tokens(
    cluster: Cluster, pool: StepPool, q: int, slot_expert: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Tokens [M, N] and compute seconds [M, N], slot by slot from the definition."""
    v = pool.layout[q]
    tokens, seconds = np.zeros((LAYERS, 16)), np.zeros((LAYERS, 16))
    for m in range(LAYERS):
        for s, d in enumerate(cluster.slot_device[v]):
            g, e = cluster.group_of[v, d], slot_expert[m, s]
            if g < 0:
                continue
            mates = cluster.group_of[v][cluster.slot_device[v]] == g
            share = pool.counts[q, g, m, e] / np.sum(slot_expert[m][mates] == e)
            tokens[m, d] += share
            if share > 0:
                seconds[m, d] += max(share * cluster.token_seconds, cluster.weight_seconds)
    return tokens, seconds


def restated(
    cluster: Cluster, pool: StepPool, q: int, a: int, slot_expert: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """The four parts of a step in plain numpy."""
    v = pool.layout[q]
    tokens, seconds = device_tokens(cluster, pool, q, slot_expert)
    parts = np.zeros(4)
    for g, weight in enumerate(cluster.weight[v]):
        if weight == 0:
            continue
        for m in range(LAYERS):
            for direction in (0, 1):
                pull = cluster.pull[v, a, direction].astype(float)
                x = tokens[m] @ pull[:16] + pool.background[q].astype(float) @ pull[16:]
                wait = np.max(x + cluster.offset[v, a, direction, g])
                parts[2 * direction] += weight * cluster.layer_scale * (cluster.overhead + wait)
            slowest = seconds[m, cluster.group_of[v] == g].max()
            parts[1] += weight * cluster.layer_scale * (pool.shared[q, g] + slowest)
        parts[3] += weight * pool.other[q, g]
    return parts


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_steps_cost_what_the_definition_says(seed: int) -> None:
    cluster, pool, *_ = random_cluster(seed)
    library = price_library(cluster, pool)
    for q in range(9):
        for a, p in np.ndindex(2, 2):
            expected = restated(cluster, pool, q, a, cluster.slot_expert[p, pool.layout[q]])
            np.testing.assert_allclose(library[:, q, a, p], expected, rtol=3e-6)


@pytest.mark.parametrize("text", LAYOUTS)
@pytest.mark.parametrize("name", ["torus", "mesh", "leaf-spine"])
def test_the_network_is_that_of_the_library(text: str, name: str) -> None:
    """The bottleneck of the explicit demand of every group, with the others' as background."""
    cluster, pool, (routing,) = random_cluster(5, (name,))
    pool = replace(pool, counts=pool.counts + 1.0)  # the library's latency needs demand
    v = list(LAYOUTS).index(text)
    q = int(np.flatnonzero(pool.layout == v)[0])
    slot_expert = cluster.slot_expert[0, v]
    tokens, _ = device_tokens(cluster, pool, q, slot_expert)
    group = LAYOUTS[text].group_of
    other = np.zeros((16, 16))
    for sent, kind in zip(pool.background[q], ("kv-transfer", "all-reduce"), strict=True):
        other += float(sent) * background_pattern(kind, LAYOUTS[text], (4, 4))
    demands = np.zeros((2, LAYERS, 2, 16, 16))  # of group g, there or back
    for g, m in np.ndindex(2, LAYERS):
        mine = np.flatnonzero(group == g)
        for i in mine:
            for d in mine:
                if i != d:
                    demands[g, m, 0, i, d] = tokens[m, d] * OUT / mine.size
                    demands[g, m, 1, d, i] = tokens[m, d] * BACK / mine.size
    parts = price_steps(cluster, pool, np.array([q]), np.array([0]), slot_expert[None])[:, 0]
    for direction in (0, 1):
        expected = 0.0
        for g, m in np.ndindex(2, LAYERS):
            if cluster.weight[v, g] > 0:
                both = demands[:, m, direction].sum(axis=0)
                use = routing.link_load((both + other)[None]) / routing.topology.capacity
                own = demands[g, m, direction][None]
                wait = routing.worst_pair(use, own, routing.path_offset(None))[0]
                expected += cluster.weight[v, g] * 2.5 * (cluster.overhead + wait)
        assert parts[2 * direction] == pytest.approx(expected, rel=1e-5)


def test_without_background_or_other_groups_it_is_transfer_time() -> None:
    cluster, pool, (routing,) = random_cluster(6, ("torus",))
    pool = replace(pool, counts=pool.counts + 1.0, background=0.0 * pool.background)
    tokens, _ = device_tokens(cluster, pool, 0, cluster.slot_expert[0, 0])
    there = np.repeat(tokens[:, None] * OUT / 16, 16, axis=1) * (1 - np.eye(16))
    seconds = routing.transfer_time(there, routing.path_offset(None))
    parts = price_steps(
        cluster, pool, np.array([0]), np.array([0]), cluster.slot_expert[0, 0][None]
    )
    assert parts[0, 0] == pytest.approx(2.5 * (seconds + cluster.overhead).sum(), rel=1e-5)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_links_left_out_are_never_the_slowest(seed: int) -> None:
    cluster, *_ = random_cluster(1)
    packed = packed_links(cluster)
    rng = np.random.default_rng(seed)
    sent = 1e4 * rng.random(18) * (rng.random(18) < 0.6)
    for at in np.ndindex(3, 2, 2):
        all_of_them = sent @ cluster.pull[at].astype(float) + cluster.offset[at]
        kept = sent @ packed.pull[at][:18].astype(float) + packed.offset[at]
        worst, ours = all_of_them.max(axis=1), kept[:, : packed.links[at]].max(axis=1)
        np.testing.assert_allclose(np.maximum(ours, 0.0), np.maximum(worst, 0.0), rtol=1e-12)
    assert packed.links.max() < cluster.pull.shape[-1]


def test_layers_add_up_to_the_library_to_the_last_bit() -> None:
    cluster, pool, *_ = random_cluster(4)
    layers, library = library_layers(cluster, pool), price_library(cluster, pool)
    for part in range(3):
        total = layers[..., 0, part] + layers[..., 1, part] + layers[..., 2, part]
        np.testing.assert_array_equal(library[part], total)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_token_is_computed_once(seed: int) -> None:
    cluster, pool, *_ = random_cluster(seed)
    for q in range(9):
        v = pool.layout[q]
        used = np.unique(cluster.group_of[v])
        loads = step_loads(cluster, pool, q, 0, cluster.slot_expert[1, v])
        chosen = pool.counts[q, used[used >= 0]].sum(axis=(0, 2))
        np.testing.assert_allclose(loads.device_tokens.sum(axis=1), chosen, rtol=1e-5)
        assert not loads.device_tokens[:, cluster.group_of[v] < 0].any()


def test_the_busiest_link_is_the_wait_where_paths_have_no_latency() -> None:
    cluster, pool, *_ = random_cluster(2)
    cluster = replace(cluster, offset=np.where(np.isinf(cluster.offset), -np.inf, 0.0))
    cluster = replace(cluster, offset=cluster.offset.astype(np.float32))
    loads = step_loads(cluster, pool, 0, 1, cluster.slot_expert[0, 0])
    parts = price_steps(cluster, pool, np.array([0]), np.array([1]), cluster.slot_expert[:1, 0])
    wait = loads.link_seconds.max(axis=2).sum(axis=1) + LAYERS * cluster.overhead
    np.testing.assert_allclose(parts[[0, 2], 0], 2.5 * wait, rtol=1e-6)


def test_a_step_costs_the_same_bits_whatever_is_beside_it() -> None:
    cluster, pool, *_ = random_cluster(1)
    library = price_library(cluster, pool)
    steps = np.array([[0, 3, 6], [3, 6, 0]])
    both = price_steps(cluster, pool, steps, np.array([1, 0]), cluster.slot_expert[:, 0])
    np.testing.assert_array_equal(both[:, 0], library[:, [0, 3, 6], 1, 0])
    np.testing.assert_array_equal(both[:, 1], library[:, [3, 6, 0], 0, 1])


def test_a_group_of_one_device_sends_nothing() -> None:
    cluster, pool, *_ = random_cluster(3)
    alone = replace(cluster, offset=np.full_like(cluster.offset, -np.inf))
    parts = price_steps(alone, pool, np.array([0]), np.array([0]), cluster.slot_expert[:1, 0])
    assert parts[0, 0] == pytest.approx(2.5 * LAYERS * cluster.overhead)


@pytest.mark.parametrize("field", ["steps", "topology", "slot_expert", "which", "shape"])
def test_what_is_out_of_range_is_refused(field: str) -> None:
    cluster, pool, *_ = random_cluster(0)
    given: dict[str, Any] = {
        "steps": np.array([0]),
        "topology": np.array([0]),
        "slot_expert": cluster.slot_expert[:1, 0].copy(),
        "which": np.array([0]),
    }
    if field == "shape":
        given["slot_expert"] = given["slot_expert"][:, :, 1:]
    elif field == "slot_expert":
        given[field][0, 0, 0] = EXPERTS
    else:
        given[field] = np.array([99])
    with pytest.raises(InputError, match="slot_expert" if field == "shape" else field):
        price_steps(cluster, pool, **given)
