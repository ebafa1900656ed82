"""Placements of a scenario's library: every group complete, no device with an expert twice."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.envs import placement_library
from topomoe.envs.group_layout import Layout, parse_layout
from topomoe.envs.placement_library import annealed, balanced, slot_devices, slots_per_device
from topomoe.envs.step_price import price_steps
from topomoe.envs.tiny_cluster import tiny_problem
from topomoe.placement import place

TEXTS = ("decode all", "prefill 2x5 + decode 4", "prefill 3x4 + decode 4 scattered")
LAYOUTS = [parse_layout(text, 16, np.random.default_rng(0)) for text in TEXTS]


def check(slots: np.ndarray, device: np.ndarray, layout: Layout, experts: int) -> None:  # type: ignore[type-arg]
    """Every group holds every expert; no device holds one twice; slots without device are empty."""
    assert (slots[:, device < 0] == -1).all()
    for row in slots:
        for g in range(len(layout.kinds)):
            mine = np.isin(device, layout.members(g))
            assert set(row[mine].tolist()) == set(range(experts))
        for d in range(16):
            held = row[device == d].tolist()
            assert len(set(held)) == len(held)


@pytest.mark.parametrize(
    ("experts", "devices", "redundancy", "slots"),
    [(64, 64, 1.5, 2), (64, 64, 1.0, 1), (8, 16, 1.5, 1), (10, 4, 1.2, 3), (10, 3, 1.0, 4)],
)
def test_slots_are_whole_and_enough(
    experts: int, devices: int, redundancy: float, slots: int
) -> None:
    assert slots_per_device(experts, devices, redundancy) == slots
    assert slots * devices >= experts * redundancy - 1e-6


@given(experts=st.integers(1, 40), redundancy=st.floats(1.0, 4.0))
def test_a_group_has_slots_alike_on_its_devices_and_idle_ones_none(
    experts: int, redundancy: float
) -> None:
    table = slot_devices(LAYOUTS, experts, redundancy)
    for row, layout in zip(table, LAYOUTS, strict=True):
        count = np.bincount(row[row >= 0], minlength=16)
        assert not count[layout.group_of < 0].any()
        for g, size in enumerate(layout.sizes):
            own = count[layout.members(g)]
            assert (own == slots_per_device(experts, int(size), redundancy)).all()
            assert own.sum() >= experts


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), v=st.integers(0, 2))
def test_balanced_placements_are_complete(seed: int, v: int) -> None:
    rng = np.random.default_rng(seed)
    load = rng.gamma(0.4, size=(4, 2, 12)) * (rng.random((4, 2, 12)) < 0.8)
    table = slot_devices(LAYOUTS, 12, 1.5)
    slots = balanced(load, LAYOUTS[v], table.shape[1], 1.5, 0)
    check(slots, table[v], LAYOUTS[v], 12)


def test_each_group_is_placed_for_its_own_load() -> None:
    rng = np.random.default_rng(0)
    load = rng.gamma(0.4, size=(3, 2, 12))
    table = slot_devices(LAYOUTS, 12, 1.5)[1]
    before = balanced(load, LAYOUTS[1], len(table), 1.5, 0)
    load[1] = load[1][:, ::-1]
    after = balanced(load, LAYOUTS[1], len(table), 1.5, 0)
    changed = LAYOUTS[1].group_of[table[(before != after).any(axis=0)]]
    assert set(changed.tolist()) == {1}


def test_one_group_is_placed_as_the_library_places() -> None:
    load = np.random.default_rng(1).gamma(0.4, size=(1, 2, 12))
    slots = balanced(load, LAYOUTS[0], 32, 1.5, 0)
    assert slots_per_device(12, 16, 1.5) == 2
    expected = place(load[0], devices=16, slots=32, method="eplb", seed=0).slot_expert
    np.testing.assert_array_equal(slots, expected)


def test_no_load_at_all_is_even() -> None:
    table = slot_devices(LAYOUTS, 12, 1.5)
    slots = balanced(np.zeros((3, 2, 12)), LAYOUTS[1], table.shape[1], 1.5, 0)
    check(slots, table[1], LAYOUTS[1], 12)


# Annealing.


@pytest.mark.parametrize("v", [0, 1])
def test_annealing_lowers_what_it_prices_and_keeps_placements_whole(
    v: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement_library, "ROUNDS", 10)
    problem = tiny_problem(epochs=60, episode_length=20, layers=2)
    cluster, pool = problem.cluster, problem.pool
    layout = parse_layout(cluster.layouts[v], 16, np.random.default_rng(0))
    steps = np.flatnonzero(pool.layout == v)[:6]  # fewer than a sample: all are priced
    start = cluster.slot_expert[0, v]
    anneal = partial(annealed, cluster, pool, start, v, 1, steps)
    better = anneal(np.random.default_rng(0))
    check(better, cluster.slot_device[v], layout, 16)
    group = np.where(cluster.slot_device[v] < 0, -1, cluster.group_of[v][cluster.slot_device[v]])
    for m in range(2):
        for g in (0, 1):
            held = (np.sort(slots[m][group == g]).tolist() for slots in (better, start))
            assert next(held) == next(held)  # swaps change no number of replicas

    def seconds(slots: np.ndarray) -> float:  # type: ignore[type-arg]
        topology = np.full(len(steps), 1)
        which = np.zeros(len(steps), dtype=np.int64)
        return float(price_steps(cluster, pool, steps, topology, slots[None], which).sum())

    assert seconds(better) < seconds(start)
    np.testing.assert_array_equal(better, anneal(np.random.default_rng(0)))
    np.testing.assert_array_equal(start, cluster.slot_expert[0, v])
