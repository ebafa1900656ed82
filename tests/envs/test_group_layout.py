"""Layouts divide the devices of a grid; the circuits made for them stay inside the groups."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import shortest_path

from topomoe.envs.group_circuits import best_strides, group_circuits
from topomoe.envs.group_layout import Layout, parse_layout
from topomoe.topologies import budget
from topomoe.topologies.errors import InputError

pools = st.lists(
    st.tuples(st.sampled_from(["prefill", "decode"]), st.integers(1, 3), st.integers(2, 6)),
    min_size=1,
    max_size=4,
)


def layout_of(text: str, devices: int = 16, seed: int = 0) -> Layout:
    return parse_layout(text, devices, np.random.default_rng(seed))


@given(pools=pools, idle=st.integers(0, 5), scattered=st.booleans(), seed=st.integers(0, 99))
def test_groups_divide_the_devices(
    pools: list[tuple[str, int, int]], idle: int, scattered: bool, seed: int
) -> None:
    text = " + ".join(f"{kind} {count}x{size}" for kind, count, size in pools)
    text += " scattered" * scattered
    needed = sum(count * size for _, count, size in pools)
    layout = layout_of(text, needed + idle, seed)
    assert layout.name == text
    assert layout.kinds == tuple(kind for kind, count, _ in pools for _ in range(count))
    assert layout.sizes.tolist() == [size for _, count, size in pools for _ in range(count)]
    members = [layout.members(g) for g in range(len(layout.kinds))]
    assert [len(own) for own in members] == layout.sizes.tolist()
    held = np.concatenate([*members, np.flatnonzero(layout.group_of < 0)])
    assert sorted(held.tolist()) == list(range(needed + idle))
    if not scattered:
        np.testing.assert_array_equal(np.concatenate(members), np.arange(needed))


def test_all_takes_the_devices_that_are_left() -> None:
    assert layout_of("decode all").sizes.tolist() == [16]
    assert layout_of("prefill 2x4 + decode all").sizes.tolist() == [4, 4, 8]
    assert layout_of("decode 6 + prefill all scattered").sizes.tolist() == [6, 10]


def test_a_size_alone_is_one_group() -> None:
    assert layout_of("prefill 4 + decode 1x8").sizes.tolist() == [4, 8]


def test_scattered_groups_depend_on_the_seed_alone() -> None:
    same = [layout_of("prefill 8 + decode 8 scattered", seed=3).group_of for _ in range(2)]
    other = layout_of("prefill 8 + decode 8 scattered", seed=4).group_of
    np.testing.assert_array_equal(same[0], same[1])
    assert (same[0] != other).any()


WRONG = {
    "": "a layout is pools like",
    "decode": "a layout is pools like",
    "decode 4x": "a layout is pools like",
    "decode x4": "a layout is pools like",
    "decode -4": "a layout is pools like",
    "decode 4.5": "a layout is pools like",
    "decode 8 +": "a layout is pools like",
    "decode 8 scattered + prefill 8": "a layout is pools like",
    "scattered": "a layout is pools like",
    "decode 999999999999x8": "a layout is pools like",
    "decoed 8": "unknown kind of pool 'decoed'; did you mean 'decode'",
    "decode 1": "a group must have at least 2 devices",
    "decode 0x4": "a group must have at least 2 devices",
    "decode 8x1": "a group must have at least 2 devices",
    "decode 15 + prefill all": "a group must have at least 2 devices",
    "decode all + prefill all": "a group must have at least 2 devices",
    "decode 17": "needs 17 devices, the grid has 16",
    "decode all + prefill 2": "needs 18 devices, the grid has 16",
    "prefill 99999x99999": "devices, the grid has 16",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_layout_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=WRONG[text]) as caught:
        layout_of(text)
    assert "\n" not in str(caught.value)


# Circuits.


@given(
    sizes=st.lists(st.integers(2, 9), min_size=1, max_size=4),
    ports=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_circuits_use_every_port_and_stay_inside_groups(
    sizes: list[int], ports: int, seed: int
) -> None:
    text = " + ".join(f"decode {size}" for size in sizes) + " scattered"
    devices = sum(sizes) + 3
    layout = layout_of(text, devices, seed)
    circuits = group_circuits(layout, ports, np.random.default_rng(seed))
    sender, receiver = circuits.T
    group = layout.group_of
    assert (group[sender] == group[receiver]).all()
    assert (sender != receiver).all()
    used = np.where(group >= 0, ports, 0)
    np.testing.assert_array_equal(np.bincount(sender, minlength=devices), used)
    np.testing.assert_array_equal(np.bincount(receiver, minlength=devices), used)
    # Every device of a group reaches every other; no circuit is doubled while others are missing.
    graph = csr_array((np.ones(len(circuits)), (sender, receiver)), (devices, devices))
    hops = shortest_path(graph, unweighted=True)
    for g, size in enumerate(sizes):
        own = layout.members(g)
        assert np.isfinite(hops[np.ix_(own, own)]).all()
        neighbours = {(int(a), int(b)) for a, b in circuits if group[a] == g}
        assert len(neighbours) == size * min(ports, size - 1)


def test_the_fabric_takes_circuits_of_groups_smaller_than_its_ports() -> None:
    layout = layout_of("prefill 2x2 + decode 8")
    circuits = group_circuits(layout, 4, np.random.default_rng(0))
    built = budget.build("optical", (4, 4), 5e10, 1e-6, "iso-injection", 0.1, 4, circuits=circuits)
    assert sorted(built.parameters["circuits"].tolist()) == sorted(circuits.tolist())


def mean_distance(count: int, strides: tuple[int, ...]) -> float:
    sender = np.repeat(np.arange(count), len(strides))
    receiver = (sender + np.tile(strides, count)) % count
    graph = csr_array((np.ones(len(sender)), (sender, receiver)), (count, count))
    return float(shortest_path(graph, unweighted=True).mean())


@pytest.mark.parametrize(("count", "degree"), [(2, 1), (5, 4), (8, 2), (11, 3), (16, 3)])
def test_strides_are_those_of_the_least_mean_distance(count: int, degree: int) -> None:
    """Against all sets with stride 1, by another shortest-path code."""
    chosen = best_strides(count, degree, np.random.default_rng(0))
    assert len(set(chosen)) == degree
    assert chosen[0] == 1
    every = [(1, *rest) for rest in combinations(range(2, count), degree - 1)]
    least = min(mean_distance(count, strides) for strides in every)
    assert mean_distance(count, tuple(chosen)) == pytest.approx(least)


def test_of_many_sets_some_are_drawn_by_the_seed() -> None:
    first, again = (best_strides(64, 4, np.random.default_rng(1)) for _ in range(2))
    assert first == again
    assert mean_distance(64, tuple(first)) < 0.8 * mean_distance(64, (1, 2, 3, 4))
