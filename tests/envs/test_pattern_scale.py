"""Patterns in turn on whole fabrics: closed-form costs and statistics, and what may not mix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topomoe.envs.pattern_scale import (
    HELD_OUT,
    TRAINING,
    charged,
    demand_statistics,
    fabric_routings,
    iteration_cost,
    mean_demand,
    pattern_timeline,
)
from topomoe.envs.pattern_scale_settings import PATH_LATENCY, ScaleSettings, near_square
from topomoe.patterns import HOT_SHARE, INSIDE_SHARE, PATTERNS
from topomoe.topologies.errors import InputError

SMALL = ScaleSettings(devices=(16,), phases=8, episode_phases=4, phase_iterations=3)


def test_uniform_path_latency_on_a_torus_is_its_mean_distance() -> None:
    # A ring of 4 is 1 apart on average, itself included: (1 + 1) * 16 / 15 between two devices.
    settings = ScaleSettings(fabrics=("torus",), accountings=(PATH_LATENCY,), latency=1e-6)
    (torus,) = fabric_routings(settings, 16)[PATH_LATENCY]
    demand = mean_demand(settings, 16, "uniform")[None]
    np.testing.assert_allclose(iteration_cost(PATH_LATENCY, torus, demand), [2e-6 * 16 / 15])


def test_path_latency_does_not_depend_on_how_much_is_sent() -> None:
    (torus,) = fabric_routings(ScaleSettings(fabrics=("torus",)), 16)[PATH_LATENCY]
    demand = mean_demand(SMALL, 16, "hotspot")[None]
    one, ten = (iteration_cost(PATH_LATENCY, torus, times * demand) for times in (1.0, 10.0))
    np.testing.assert_allclose(one, ten)
    one, ten = (iteration_cost("iso-injection", torus, times * demand) for times in (1.0, 10.0))
    assert ten > 5 * one


@pytest.mark.parametrize("devices", [16, 32])
def test_at_equal_injection_no_pattern_is_faster_than_on_the_fat_tree(devices: int) -> None:
    tree, mesh, torus = fabric_routings(ScaleSettings(), devices)["iso-injection"]
    for pattern in PATTERNS:
        demand = mean_demand(ScaleSettings(), devices, pattern)[None]
        times = [float(iteration_cost("iso-injection", r, demand)[0]) for r in (tree, mesh, torus)]
        assert times[0] < min(times[1:]), pattern
        # Its own bound: what the busiest device sends or receives.
        busiest = max(demand.sum(axis=1).max(), demand.sum(axis=2).max())
        assert times[0] >= busiest / ScaleSettings().bandwidth


@pytest.mark.parametrize("devices", [16, 64, 128])
def test_statistics_of_the_patterns_are_what_defines_them(devices: int) -> None:
    found = {
        pattern: demand_statistics(mean_demand(SMALL, devices, pattern)[None], devices)[0]
        for pattern in PATTERNS
    }
    rows, columns = near_square(devices)
    hot = max(1, round(0.05 * devices))
    quadrant = devices // 4
    assert rows * columns == devices
    for pattern in ("uniform", "regional"):
        assert found[pattern][0] == pytest.approx(0.0, abs=1e-6)
    # Two levels of load: the Lorenz curve has one corner. Hot devices get their share of the rest.
    assert found["hotspot"][0] == pytest.approx(HOT_SHARE - hot / devices, abs=0.03)
    assert found["regional"][1] == pytest.approx(INSIDE_SHARE)
    assert found["uniform"][1] == pytest.approx((quadrant - 1) / (devices - 1), rel=1e-5)


def test_a_timeline_holds_the_patterns_in_turn_and_is_hypothetical() -> None:
    timeline = pattern_timeline(SMALL, 16, 0, TRAINING)
    assert timeline.pattern.tolist() == np.tile(np.arange(4), 2).repeat(3).tolist()
    assert set(timeline.problems) == set(SMALL.accountings)
    for problem in timeline.problems.values():
        assert problem.num_epochs == 24
        assert problem.episode_length == 12
        assert problem.switching == "hypothetical"
        assert problem.demand_names == ("concentration", "locality")
        assert (problem.cost > 0).all()
    concentration, locality = timeline.problems[PATH_LATENCY].demand.T
    hotspot, regional = (timeline.pattern == PATTERNS.index(n) for n in ("hotspot", "regional"))
    assert concentration[hotspot].min() > 0.65 > concentration[regional].max()
    assert locality[regional].min() > 0.9 > locality[~regional].max()


def test_the_same_seed_draws_the_same_and_sides_draw_apart() -> None:
    name = "iso-cost"
    one = pattern_timeline(SMALL, 16, 0, TRAINING).problems[name]
    alone = ScaleSettings(
        devices=(16,), phases=8, episode_phases=4, phase_iterations=3, accountings=(name,)
    )
    again = pattern_timeline(alone, 16, 0, TRAINING).problems[name]
    assert one.cost.tobytes() == again.cost.tobytes()
    for other in (
        pattern_timeline(SMALL, 16, 0, HELD_OUT).problems[name],
        pattern_timeline(SMALL, 16, 1, TRAINING).problems[name],
    ):
        assert (one.cost != other.cost).any(axis=1).all()


def test_charging_changes_only_what_a_switch_costs() -> None:
    free = pattern_timeline(SMALL, 16, 0, TRAINING).problems["iso-cost"]
    problem = charged(free, 25e-6)
    np.testing.assert_array_equal(problem.switch_cost, 25e-6 * (1 - np.eye(3)))
    np.testing.assert_array_equal(problem.metric, problem.switch_cost)
    assert problem.cost.tobytes() == free.cost.tobytes()
    assert not free.switch_cost.any()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"devices": ()}, "devices"),
        ({"devices": (16, 16)}, "devices"),
        ({"devices": (4,)}, "devices must be >= 8"),
        ({"devices": (13,)}, "no prime, got 13"),
        ({"accountings": ("iso-dollar",)}, "iso-dollar"),
        ({"delays": ()}, "delays"),
        ({"phases": 0}, "phases must be >= 1, got 0"),
        ({"episode_phases": 33}, "episode_phases must be <= phases, got 33 and 32"),
        ({"device_bytes": 0.0}, "device_bytes"),
        ({"optimal_devices": -1}, "optimal_devices"),
        ({"seeds": 0}, "seeds"),
    ],
)
def test_bad_settings_are_named_in_one_line(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        ScaleSettings(**changes)
    assert "\n" not in str(caught.value)
