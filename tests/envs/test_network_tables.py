"""The cluster's network tables against the library's pricing of explicit demands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe import topologies
from topomoe.envs.group_circuits import group_circuits
from topomoe.envs.group_layout import Layout, parse_layout
from topomoe.envs.network_tables import BACKGROUND, background_pattern, network_tables
from topomoe.topologies import budget
from topomoe.topologies.topology import Topology

OUT, BACK, MTU = 7168.0, 14336.0, 4096.0
TEXTS = (
    "decode all",
    "prefill 3x4 scattered",
    "prefill 2x3 + decode 2 + decode 5",
    "prefill 2x4 + decode 8",
)
LAYOUTS = [parse_layout(text, 16, np.random.default_rng(7)) for text in TEXTS]


def made() -> list[Topology]:
    """A fabric with latency, one with switches, and circuits inside groups."""
    circuits = group_circuits(LAYOUTS[3], 4, np.random.default_rng(0))
    return [
        topologies.make("mesh", grid=(4, 4), latency="3us"),
        topologies.make("leaf-spine", grid=(4, 4)),
        budget.build("optical", (4, 4), 5e10, 1e-6, "iso-injection", 0.1, 4, circuits=circuits),
    ]


MADE = made()
ROUTED = [topologies.route(topology) for topology in MADE]
PULL, OFFSET = network_tables(MADE, LAYOUTS, OUT, BACK, MTU)


def explicit(layout: Layout, tokens: np.ndarray[Any, Any], direction: int) -> list[Any]:
    """Each group's demand [N, N] in bytes, pair by pair."""
    demands = []
    for g in range(len(layout.kinds)):
        own = layout.members(g).tolist()
        demand = np.zeros((16, 16))
        for device in own:
            for mate in own:
                if mate == device:
                    continue
                if direction == 0:
                    demand[mate, device] = tokens[device] * OUT / len(own)
                else:
                    demand[device, mate] = tokens[device] * BACK / len(own)
        demands.append(demand)
    return demands


@settings(max_examples=20)
@given(v=st.integers(0, 3), a=st.integers(0, 2), direction=st.integers(0, 1), seed=st.integers(0))
def test_every_group_waits_as_in_the_library(v: int, a: int, direction: int, seed: int) -> None:
    """Loads link by link, then the bottleneck of each group beside all others and background."""
    rng = np.random.default_rng(seed)
    layout, routing = LAYOUTS[v], ROUTED[a]
    tokens = rng.integers(1, 500, 16) * (layout.group_of >= 0)
    sent = rng.integers(0, 10**6, len(BACKGROUND)).astype(float)
    demands = explicit(layout, tokens, direction)
    total = sum(demands) + sum(
        size * background_pattern(name, layout, (4, 4))
        for name, size in zip(BACKGROUND, sent, strict=True)
    )
    use = routing.link_load(total[None]) / routing.topology.capacity
    table = np.concatenate([tokens, sent]) @ PULL[v, a, direction].astype(float)
    links = routing.topology.num_links
    np.testing.assert_allclose(table[:links], use[0], rtol=1e-5, atol=1e-15)
    assert not table[links:].any()
    for g, demand in enumerate(demands):
        expected = routing.worst_pair(use, demand[None], routing.path_offset(MTU))[0]
        wait = (table + OFFSET[v, a, direction, g]).max()
        assert wait == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("a", range(3))
def test_a_group_waits_for_the_links_it_uses_alone(a: int) -> None:
    routing = ROUTED[a]
    for v, layout in enumerate(LAYOUTS):
        for g in range(4):
            if g >= len(layout.kinds):
                assert (OFFSET[v, a, :, g] == -np.inf).all()
                continue
            own = np.zeros((16, 16))
            own[np.ix_(layout.members(g), layout.members(g))] = 1.0
            np.fill_diagonal(own, 0.0)
            used = np.zeros(OFFSET.shape[-1], dtype=bool)
            used[: routing.topology.num_links] = routing.link_load(own[None])[0] > 0
            for direction in (0, 1):
                np.testing.assert_array_equal(OFFSET[v, a, direction, g] > -np.inf, used)


def test_idle_devices_pull_nothing() -> None:
    for v, layout in enumerate(LAYOUTS):
        idle = np.flatnonzero(layout.group_of < 0)
        busy = np.flatnonzero(layout.group_of >= 0)
        assert not PULL[v][:, :, idle].any()
        assert PULL[v][:, :, busy].any(axis=-1).all()


def test_circuits_inside_groups_load_the_busiest_link_less() -> None:
    """Than the torus of the same fabric: the gain that moving circuits is for."""
    layout = parse_layout("prefill 4x8 + decode 32", 64, np.random.default_rng(0))
    circuits = group_circuits(layout, 4, np.random.default_rng(0))
    fabric = ((8, 8), 5e10, 1e-6, "iso-injection", 0.1, 4)
    wirings = [budget.build("optical", *fabric, circuits=lit) for lit in ("torus", circuits)]
    pull, _ = network_tables(wirings, [layout], OUT, BACK, MTU)
    busiest = pull[0, :, 0, :64].sum(axis=1).max(axis=1)
    assert busiest[1] < 0.9 * busiest[0]


# Background traffic.


@pytest.mark.parametrize("layout", LAYOUTS, ids=TEXTS)
def test_caches_go_from_prefill_to_decode_and_a_byte_from_each(layout: Layout) -> None:
    pattern = background_pattern("kv-transfer", layout, (4, 4))
    kind = np.array([*layout.kinds, "idle"])[layout.group_of]
    both = "prefill" in layout.kinds and "decode" in layout.kinds
    np.testing.assert_allclose(pattern.sum(axis=1), both * (kind == "prefill"))
    into = pattern.sum(axis=0)
    assert not into[kind != "decode"].any()
    assert np.ptp(into[kind == "decode"], axis=0) < 1e-12 if both else not into.any()


@pytest.mark.parametrize("layout", LAYOUTS, ids=TEXTS)
def test_rings_pass_a_byte_on_within_a_row(layout: Layout) -> None:
    pattern = background_pattern("all-reduce", layout, (4, 4))
    busy = layout.group_of >= 0
    in_row = busy.reshape(4, 4).sum(axis=1).repeat(4)
    passing = busy & (in_row > 1)
    np.testing.assert_array_equal(pattern.sum(axis=0), passing)
    np.testing.assert_array_equal(pattern.sum(axis=1), passing)
    sender, receiver = np.nonzero(pattern)
    np.testing.assert_array_equal(sender // 4, receiver // 4)
    # One ring: from any device of a row, as many steps as the row has devices lead back.
    after = dict(zip(sender.tolist(), receiver.tolist(), strict=True))
    for start, _ in after.items():
        seen, now = {start}, after[start]
        while now != start:
            assert now not in seen
            seen.add(now)
            now = after[now]
        assert len(seen) == in_row[start]


def test_without_a_grid_the_ring_goes_over_all_devices() -> None:
    pattern = background_pattern("all-reduce", LAYOUTS[0], None)
    np.testing.assert_array_equal(pattern, np.roll(np.eye(16), 1, axis=1))
