"""Tabulated steps hold the tokens they should, of the requests they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import topomoe as tm
from topomoe.compute import expert_seconds, other_seconds
from topomoe.envs.cluster import StepPool
from topomoe.envs.group_layout import parse_layout
from topomoe.envs.placement_library import balanced, slot_devices
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.envs.traffic import (
    Contexts,
    demand_statistics,
    frequent_domains,
    phase_domains,
    received_tokens,
    step_pool,
    typical_steps,
)
from topomoe.model import device_preset, model_preset
from topomoe.patterns import quadrant
from topomoe.step import StepSettings
from topomoe.topologies.errors import InputError

TRACE = tm.synthetic_trace("mixtral-8x7b", requests=40, positions=24).filter(layers=(0, 31))
MODEL, DEVICE, STEP = model_preset("mixtral-8x7b"), device_preset("h100"), StepSettings()
LAYOUTS = tuple(
    parse_layout(text, 16, np.random.default_rng(0))
    for text in ("decode all", "prefill 2x4 + decode 6 scattered")
)
CONTEXTS = Contexts(LAYOUTS, np.arange(4), np.array([0.5, 2.0]))
SETTINGS = ScenarioSettings(
    pool=3, decode_tokens=24, prefill_tokens=40, kv_bytes=1000.0, all_reduce_bytes=10.0
)


def made(
    given: ScenarioSettings = SETTINGS, trace: tm.RoutingTrace = TRACE, seed: int = 0
) -> tuple[StepPool, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    return step_pool(trace, CONTEXTS, given, MODEL, DEVICE, STEP, rng)


POOL, SHARES = made()
STEP_LAYOUT, STEP_DOMAIN, STEP_LEVEL = CONTEXTS.split(POOL.context.astype(np.int64))


def test_every_context_has_its_pool() -> None:
    np.testing.assert_array_equal(np.bincount(POOL.context), np.full(CONTEXTS.count, 3))
    np.testing.assert_array_equal(POOL.layout, STEP_LAYOUT)


def test_each_group_has_as_many_choices_as_its_tokens_make() -> None:
    for q in range(len(POOL.layout)):
        layout = LAYOUTS[POOL.layout[q]]
        level = CONTEXTS.levels[STEP_LEVEL[q]]
        for g in range(POOL.counts.shape[1]):
            expected = 0.0
            if g < len(layout.kinds):
                each = 24 if layout.kinds[g] == "decode" else 40
                expected = MODEL.top_k * level * each * layout.sizes[g]
            np.testing.assert_array_equal(POOL.counts[q, g].sum(axis=1), expected)


def test_a_domain_dominates_its_phases() -> None:
    base = np.bincount(TRACE.request_domain) / TRACE.num_requests
    np.testing.assert_allclose(SHARES.sum(axis=1), 1.0, rtol=1e-6)
    for d in range(4):
        mean = SHARES[d == STEP_DOMAIN].mean(axis=0)
        np.testing.assert_allclose(mean, 0.1 * base + 0.9 * np.eye(4)[d], atol=0.05)


def test_with_a_weight_of_one_all_requests_are_the_domains() -> None:
    _, shares = made(replace(SETTINGS, domain_weight=1.0))
    np.testing.assert_array_equal(shares, np.eye(4, dtype=np.float32)[STEP_DOMAIN])


def test_without_a_domain_requests_are_the_traces_mix() -> None:
    lopsided = TRACE.select(np.flatnonzero((TRACE.request_domain == 0) | (np.arange(40) % 4 == 1)))
    base = np.bincount(lopsided.request_domain, minlength=4) / lopsided.num_requests
    contexts = Contexts(LAYOUTS[:1], np.array([-1]), np.array([8.0]))
    _, shares = step_pool(
        lopsided, contexts, SETTINGS, MODEL, DEVICE, STEP, np.random.default_rng(0)
    )
    np.testing.assert_allclose(shares.mean(axis=0), base, atol=0.03)


def test_decode_is_drawn_from_answers_and_prefill_from_prompts() -> None:
    """Prompts choose the first four experts, answers the last four."""
    prompt = TRACE.position < TRACE.prompt_len[TRACE.position_request]
    assert prompt.any()
    assert (~prompt).any()
    experts = TRACE.experts.copy()
    experts[:, prompt], experts[:, ~prompt] = [0, 3], [4, 7]
    pool, _ = made(trace=replace(TRACE, experts=experts))
    for q in range(len(pool.layout)):
        for g, kind in enumerate(LAYOUTS[pool.layout[q]].kinds):
            chosen = set(np.flatnonzero(pool.counts[q, g].sum(axis=0)).tolist())
            assert chosen == ({4, 7} if kind == "decode" else {0, 3})


def test_time_beside_the_experts_is_of_the_tokens_of_a_device() -> None:
    for q in range(len(POOL.layout)):
        layout, level = LAYOUTS[POOL.layout[q]], CONTEXTS.levels[STEP_LEVEL[q]]
        for g, kind in enumerate(layout.kinds):
            tokens = level * (24 if kind == "decode" else 40)
            shared = MODEL.num_shared_experts * float(
                expert_seconds(np.array(tokens), MODEL, DEVICE, STEP.tile_tokens)
            )
            assert POOL.shared[q, g] == pytest.approx(shared)
            rest = other_seconds(tokens, MODEL, DEVICE, kind, STEP.context_tokens)
            assert POOL.other[q, g] == pytest.approx(rest)


def test_background_grows_with_the_level() -> None:
    level = CONTEXTS.levels[STEP_LEVEL]
    np.testing.assert_allclose(POOL.background, level[:, None] * [[1000.0, 10.0]])


def test_pools_are_the_seeds_alone() -> None:
    again, shares = made()
    np.testing.assert_array_equal(POOL.counts, again.counts)
    np.testing.assert_array_equal(SHARES, shares)
    assert (made(seed=1)[0].counts != POOL.counts).any()


def test_a_typical_step_is_the_mean_of_its_context() -> None:
    typical = typical_steps(POOL, CONTEXTS)
    np.testing.assert_array_equal(typical.context, np.arange(CONTEXTS.count))
    for c in range(CONTEXTS.count):
        mine = POOL.context == c
        np.testing.assert_allclose(typical.counts[c], POOL.counts[mine].mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(typical.other[c], POOL.other[mine].mean(axis=0))
        assert typical.layout[c] == POOL.layout[mine][0]


# Domains.


def test_only_frequent_domains_have_phases() -> None:
    keep = (TRACE.request_domain < 2) | (
        np.arange(40) == np.flatnonzero(TRACE.request_domain == 3)[0]
    )
    few = TRACE.select(np.flatnonzero(keep))
    share = np.bincount(few.request_domain, minlength=4) / few.num_requests
    assert share[3] > 0.04
    assert frequent_domains(few).tolist() == [0, 1, 3]
    many = tm.synthetic_trace("mixtral-8x7b", requests=120, positions=8).filter(layers=(0,))
    keep = (many.request_domain < 2) | (
        np.arange(120) == np.flatnonzero(many.request_domain == 3)[0]
    )
    assert frequent_domains(many.select(np.flatnonzero(keep))).tolist() == [0, 1]


def test_phases_take_two_domains() -> None:
    one = TRACE.select(np.flatnonzero(TRACE.request_domain == 2))
    assert frequent_domains(one).tolist() == [-1]
    assert phase_domains(one, replace(SETTINGS, domain_weight=0.0)).tolist() == [-1]
    with pytest.raises(InputError, match="domain_weight must be 0"):
        phase_domains(one, SETTINGS)


# Demand.


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_every_copy_is_received_once_and_within_its_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    slot_device = slot_devices(LAYOUTS, 8, 1.5)
    slots = np.stack(
        [
            balanced(
                rng.gamma(0.5, size=(len(layout.kinds), 2, 8)), layout, slot_device.shape[1], 1.5, 0
            )
            for layout in LAYOUTS
        ]
    )
    received = received_tokens(POOL, LAYOUTS, slot_device, slots)
    for q in range(0, len(POOL.layout), 5):
        layout = LAYOUTS[POOL.layout[q]]
        for g in range(len(layout.kinds)):
            mine = received[q, layout.members(g)].sum()
            assert mine == pytest.approx(POOL.counts[q, g].sum(), rel=1e-5)
        assert not received[q, layout.group_of < 0].any()


def test_concentration_and_locality_of_known_demands() -> None:
    pool = replace(POOL, layout=np.zeros(3, dtype=np.int16))
    received = np.zeros((3, 16), dtype=np.float32)
    received[0] = 5.0  # alike
    received[1, 7] = 9.0  # all to one
    where = quadrant((4, 4))
    received[2, where == 3] = 1.0
    concentration, near = demand_statistics(pool, LAYOUTS[:1], received, where).T
    np.testing.assert_allclose(concentration, [0.0, 15 / 16, 12 / 16], atol=1e-6)
    np.testing.assert_allclose(near, 3 / 15, rtol=1e-5)  # three of fifteen others share a quadrant


def test_groups_inside_quadrants_are_local_whatever_they_send() -> None:
    where = quadrant((4, 4))
    order = np.argsort(where, kind="stable")
    layout = parse_layout("decode 4x4", 16, np.random.default_rng(0))
    group_of = np.empty(16, dtype=np.int16)
    group_of[order] = layout.group_of
    layout = replace(layout, group_of=group_of)
    received = np.random.default_rng(0).random((5, 16)).astype(np.float32)
    pool = replace(POOL, layout=np.zeros(5, dtype=np.int16))
    near = demand_statistics(pool, (layout,), received, where)[:, 1]
    np.testing.assert_allclose(near, 1.0, rtol=1e-6)
