"""The four traffic patterns: what each concentrates, and that level 0 is exactly uniform."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topomoe.patterns import PATTERNS, locality, pattern_demand, phased_demand, quadrant
from topomoe.topologies.errors import InputError

names = pytest.mark.parametrize("name", PATTERNS)


@names
def test_level_zero_is_exactly_uniform(name: str) -> None:
    demand = pattern_demand(name, (4, 8), 0.0, 1e9, np.random.default_rng(0))
    off = demand[~np.eye(32, dtype=bool)]
    assert (off == off[0]).all()
    assert (demand == pattern_demand("uniform", (4, 8), 1.0, 1e9)).all()


@names
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 8), columns=st.integers(3, 8), level=st.floats(0, 1), seed=st.integers(0, 9)
)
def test_all_levels_send_the_same_bytes_and_none_to_oneself(
    name: str, rows: int, columns: int, level: float, seed: int
) -> None:
    demand = pattern_demand(name, (rows, columns), level, 5e6, np.random.default_rng(seed))
    assert demand.sum() == pytest.approx(5e6)
    assert (np.diagonal(demand) == 0).all()
    assert (demand[~np.eye(rows * columns, dtype=bool)] > 0).all()


def test_hotspot_sends_80_percent_to_5_percent_of_the_devices() -> None:
    received = pattern_demand("hotspot", (10, 10), rng=np.random.default_rng(1)).sum(axis=0)
    assert np.sort(received)[-5:].sum() == pytest.approx(0.8)
    assert np.sort(received)[-5:] == pytest.approx(0.16)


def test_regional_keeps_95_percent_inside_quadrants() -> None:
    demand = pattern_demand("regional", (6, 4))
    assert locality(demand, (6, 4)) == pytest.approx(0.95)
    half = pattern_demand("regional", (6, 4), level=0.5)
    uniform = locality(pattern_demand("uniform", (6, 4)), (6, 4))
    assert locality(half, (6, 4)) == pytest.approx((0.95 + uniform) / 2)
    assert locality(np.stack([demand, half]), (6, 4)).shape == (2,)


def test_skewed_destinations_follow_the_power_law() -> None:
    for exponent in (0.5, 1.0, 2.0):
        demand = pattern_demand("skewed", 64, rng=np.random.default_rng(0), exponent=exponent)
        sender = np.argmin(demand.sum(axis=0))
        received = np.sort(np.delete(demand[sender], sender))[::-1]
        assert received / received[0] == pytest.approx(np.arange(1, 64) ** -exponent)


def test_quadrants_split_rows_and_columns_in_half() -> None:
    assert quadrant((2, 4)).reshape(2, 4).tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert quadrant((3, 3)).reshape(3, 3).tolist() == [[0, 0, 1], [0, 0, 1], [2, 2, 3]]
    assert (quadrant(16) == quadrant((4, 4))).all()


def test_the_same_seed_draws_the_same_hot_devices() -> None:
    first, again, other = (
        pattern_demand("hotspot", 100, rng=np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_phases_take_turns() -> None:
    run = phased_demand((4, 4), 70, rng=np.random.default_rng(0))
    assert run.shape == (70, 16, 16)
    assert (run[0] == run[14]).all()
    assert (run[14] != run[15]).any()
    assert (run[15] == pattern_demand("uniform", (4, 4))).all()
    assert locality(run, (4, 4))[30:45] == pytest.approx(0.95)
    assert (run[60:] != run[:10]).any()  # a new hotspot


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'hotspot'"):
        pattern_demand("hotspots", 16)
    for level in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="level must be in"):
            pattern_demand("uniform", 16, level)
    for grid in (0, 1, -4, (0, 4), (-2, -2)):
        with pytest.raises(InputError, match="at least 2 devices"):
            pattern_demand("uniform", grid)
    with pytest.raises(InputError, match="total_bytes"):
        pattern_demand("uniform", 16, total_bytes=float("nan"))
    with pytest.raises(InputError, match="exponent"):
        pattern_demand("skewed", 16, exponent=-1)
    with pytest.raises(InputError, match="regional needs"):
        pattern_demand("regional", (2, 2))
    with pytest.raises(InputError, match="steps"):
        phased_demand(16, 0)
    with pytest.raises(InputError, match="demand must be"):
        locality(np.zeros((3, 3)), 16)
