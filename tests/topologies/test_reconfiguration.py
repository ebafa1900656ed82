"""What rewiring costs: the presets, which circuits go dark, and when nothing does."""

from __future__ import annotations

import numpy as np
import pytest

from topomoe.topologies import InputError, Topology, make, route
from topomoe.topologies.reconfiguration import (
    DELAYS,
    ReconfigurationDelay,
    changed_circuits,
    delay_preset,
    exposed_time,
    kept,
    switch_cost,
    switch_time,
)

MEMS = DELAYS["mems"]
NAMES = ("mesh", "torus", "torus-twist-2", "rows", "columns", "expander")


def wiring(circuits: object, grid: tuple[int, int] = (4, 4), **options: object) -> Topology:
    return make("optical", grid, 1e9, 0.0, circuits=circuits, **options)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("plzt", 10e-9),
        ("siph", 7e-6),
        ("rotor", 10e-6),
        ("mems", 25e-3),
        ("mems-control", 69e-3),
        ("nic-bring-up", 5.739),
    ],
)
def test_presets_go_from_nanoseconds_to_seconds(name: str, seconds: float) -> None:
    delay = delay_preset(name)
    assert delay.total == pytest.approx(seconds, rel=1e-12)
    assert delay.total == delay.control + delay.settle + delay.bring_up
    assert delay_preset(delay) is delay
    assert list(DELAYS) == sorted(DELAYS, key=lambda n: DELAYS[n].total)


def test_an_unknown_delay_is_refused() -> None:
    with pytest.raises(
        InputError, match="unknown reconfiguration delay 'mem'; did you mean 'mems'"
    ):
        delay_preset("mem")


def test_circuits_that_both_wirings_hold_stay_lit() -> None:
    """A torus of 4x4 is a mesh and 8 wraps, of two circuits each."""
    changed = changed_circuits([wiring("mesh"), wiring("torus")])
    np.testing.assert_array_equal(changed, [[0, 0], [16, 0]])


def test_changed_circuits_are_those_of_a_plain_restatement() -> None:
    wirings = [wiring(name) for name in NAMES]
    held = [set(map(tuple, w.parameters["circuits"].tolist())) for w in wirings]
    wanted = [[len(a - b) for b in held] for a in held]
    np.testing.assert_array_equal(changed_circuits(wirings), wanted)


def test_one_of_two_parallel_circuits_may_go_dark() -> None:
    ring = [(a, (a + 1) % 4) for a in range(4)]
    double, single = (wiring([*ring, *more], (2, 2)) for more in ([(0, 1)], []))
    np.testing.assert_array_equal(changed_circuits([double, single]), [[0, 1], [0, 0]])
    np.testing.assert_array_equal(switch_cost([double, single], MEMS), [[0, 0.025], [0.025, 0]])


def test_the_order_of_circuits_changes_nothing() -> None:
    first = wiring("torus")
    shuffled = np.random.default_rng(0).permutation(first.parameters["circuits"])
    assert not changed_circuits([first, wiring(shuffled)]).any()


@pytest.mark.parametrize("delay", DELAYS.values(), ids=DELAYS)
def test_switching_is_symmetric_and_costs_the_delay_between_different_wirings(
    delay: ReconfigurationDelay,
) -> None:
    cost = switch_cost([wiring(name) for name in NAMES], delay)
    np.testing.assert_array_equal(cost, cost.T)
    np.testing.assert_array_equal(cost, delay.total * ~np.eye(len(NAMES), dtype=bool))


def test_identical_wirings_cost_nothing() -> None:
    """A twist by all four rows is none, and a wiring built twice is the same."""
    same = [wiring("torus"), wiring("torus"), wiring("torus-twist-4")]
    assert not switch_cost(same, DELAYS["nic-bring-up"]).any()
    seeds = [wiring("expander", seed=seed) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(
        switch_cost(seeds, MEMS) > 0,
        [[False, False, True], [False, False, True], [True, True, False]],
    )


def test_a_topology_without_circuits_is_refused() -> None:
    with pytest.raises(InputError, match="torus is not a wiring of an optical fabric"):
        changed_circuits([wiring("mesh"), make("torus", (4, 4))])


def uniform(devices: int = 16, each: float = 1e5) -> np.ndarray:
    return each * (1 - np.eye(devices))


@pytest.mark.parametrize(("overlap", "wanted"), [(0.0, 0.025), (0.02, 0.005), (0.03, 0.0)])
def test_what_compute_covers_is_hidden_and_the_rest_exposed(overlap: float, wanted: float) -> None:
    assert exposed_time(MEMS, overlap) == pytest.approx(wanted)
    cost = switch_cost([wiring("torus"), wiring("rows")], MEMS, overlap)
    np.testing.assert_allclose(cost, wanted * ~np.eye(2, dtype=bool))
    time = switch_time(uniform(), wiring("torus"), wiring("rows"), "mems", overlap=overlap)
    assert time.exposed == pytest.approx(wanted)
    assert time.hidden + time.exposed == pytest.approx(MEMS.total)


def test_what_is_kept_are_the_circuits_of_both_and_the_base() -> None:
    before, after = wiring("mesh"), wiring("torus")
    lit = kept(before, after)
    assert lit.parameters["circuits"].tolist() == sorted(before.parameters["circuits"].tolist())
    np.testing.assert_array_equal(lit.links, before.links)
    np.testing.assert_array_equal(lit.capacity, before.capacity)
    np.testing.assert_array_equal(lit.optical, before.optical)
    assert lit.default_routing == before.default_routing == "hybrid"
    same = kept(after, after)
    np.testing.assert_array_equal(same.capacity, after.capacity)


def test_one_of_two_parallel_circuits_stays_lit_beside_a_base_link() -> None:
    options = {"base": "mesh", "base_bandwidth": 3e9}
    double = wiring([(0, 1), (0, 1), (2, 3)], (2, 2), **options)
    single = wiring([(0, 1), (3, 2)], (2, 2), **options)
    for lit in (kept(double, single), kept(single, double)):
        at = lit.link_ids(np.array([0, 1, 2, 3]), np.array([1, 0, 3, 2]))
        assert lit.capacity[at].tolist() == [4e9, 3e9, 3e9, 3e9]
        assert lit.optical[at].tolist() == [True, False, False, False]
        assert lit.parameters["circuits"].tolist() == [[0, 1]]


def test_without_common_circuits_only_the_base_stays_lit() -> None:
    rows, columns = wiring("rows"), wiring("columns")
    lit = kept(rows, columns)
    base = rows.parameters["base"]
    assert lit.num_links == base.num_links
    np.testing.assert_array_equal(lit.capacity[lit.link_ids(*base.links.T)], base.capacity)
    assert not lit.optical.any()
    assert lit.default_routing == "ecmp"


def test_stalled_traffic_waits_for_the_exposed_time() -> None:
    demand = uniform()
    rows, torus = wiring("rows"), wiring("torus")
    alone = float(route(torus).transfer_time(demand[None])[0])
    time = switch_time(demand, rows, torus, "mems", overlap="5ms")
    assert time.total == pytest.approx(20e-3 + alone)
    assert time.drained == 0.0
    still = switch_time(demand, torus, torus, "nic-bring-up")
    assert (still.hidden, still.exposed) == (0.0, 0.0)
    assert still.total == pytest.approx(alone)


def test_traffic_that_falls_to_the_base_drains_while_circuits_are_dark() -> None:
    """Between no wait and a full stall, and never longer than what stays lit needs alone."""
    rows, torus = wiring("rows"), wiring("torus")
    lit = kept(rows, torus)
    for each in (1e4, 1e6, 1e8):
        demand = uniform(each=each)
        over_lit = float(route(lit).transfer_time(demand[None])[0])
        over_new = float(route(torus).transfer_time(demand[None])[0])
        for delay in DELAYS.values():
            base = switch_time(demand, rows, torus, delay, mode="base")
            stall = switch_time(demand, rows, torus, delay)
            assert base.total <= stall.total * (1 + 1e-12)
            assert min(over_lit, over_new) * (1 - 1e-9) <= base.total <= over_lit + over_new
            assert base.drained == pytest.approx(min(1.0, base.exposed / over_lit))
            if base.drained == 1.0:
                assert base.total == pytest.approx(over_lit)


def test_the_share_drained_does_not_travel_again() -> None:
    """Half of the demand over the base in the dark time, half over the new wiring after it."""
    demand = uniform()
    rows, columns = wiring("rows"), wiring("columns")
    over_base = float(route(kept(rows, columns)).transfer_time(demand[None])[0])
    over_new = float(route(columns).transfer_time(demand[None])[0])
    delay = ReconfigurationDelay("half", 0.0, over_base / 2, 0.0)
    time = switch_time(demand, rows, columns, delay, mode="base")
    assert time.drained == pytest.approx(0.5)
    assert time.total == pytest.approx(over_base / 2 + over_new / 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "wait"}, r"unknown mode of dark circuits 'wait' \(one of: stall, base\)"),
        ({"delay": "mem"}, "unknown reconfiguration delay 'mem'"),
        ({"overlap": -1.0}, "overlap must be finite and >= 0"),
        ({"demand": uniform(4)}, "demand must be of 16 devices, is of 4"),
        ({"demand": -uniform()}, "demand must be finite and >= 0"),
        ({"before": make("torus", (4, 4))}, "torus is not a wiring of an optical fabric"),
        (
            {
                "mode": "base",
                "before": wiring("torus", base=None),
                "after": wiring("mesh", base=None),
            },
            "mode=base needs an electrical base, optical-mesh has none",
        ),
        (
            {"mode": "base", "before": wiring("torus", base="mesh")},
            "optical-torus and optical-rows are not wirings of one fabric",
        ),
        (
            {"before": make("optical", grid=(2, 2), circuits="torus")},
            "before and after must have the same devices, got 4 and",
        ),
    ],
)
def test_bad_switches_are_named_in_one_line(change: dict[str, object], message: str) -> None:
    good = {"demand": uniform(), "before": wiring("torus"), "after": wiring("rows")}
    with pytest.raises(InputError, match=message) as caught:
        switch_time(**{**good, "delay": "mems", **change})
    assert "\n" not in str(caught.value)


def test_wirings_that_share_nothing_and_have_no_base_keep_nothing() -> None:
    ring = [(a, (a + 1) % 4) for a in range(4)]
    there, back = (wiring(r, (2, 2), base=None) for r in (ring, [(b, a) for a, b in ring]))
    with pytest.raises(InputError, match="share no circuit and have no base"):
        kept(there, back)
