"""Dragonfly: groups complete inside, evenly joined outside, at most one global hop needed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from topomoe.topologies import InputError, Topology, make, route


def group_of(topology: Topology) -> np.ndarray:
    return np.asarray(topology.parameters["place"])


def global_links(topology: Topology) -> Counter[tuple[int, int]]:
    """Capacity between groups, in links, by pair of groups."""
    place = group_of(topology)
    count: Counter[tuple[int, int]] = Counter()
    for (tail, head), capacity in zip(topology.links.tolist(), topology.capacity, strict=True):
        if place[tail] != place[head]:
            count[place[tail].item(), place[head].item()] += round(capacity)
    return count


@pytest.mark.parametrize("h", [1, 2, 3])
def test_the_largest_balanced_dragonfly_has_one_link_between_all_groups(h: int) -> None:
    """a = 2h, p = h, g = a*h + 1: Kim et al., section 3.1."""
    a, groups = 2 * h, 2 * h * h + 1
    devices = a * h * groups
    topology = make("dragonfly", (devices, 1), bandwidth=1.0, latency=0.0)
    assert [topology.parameters[key] for key in ("routers_per_group", "groups")] == [a, groups]
    assert topology.num_nodes == devices + a * groups
    assert topology.num_links == 2 * devices + groups * a * (a - 1) + groups * (groups - 1)
    pairs = {(i, j) for i in range(groups) for j in range(groups) if i != j}
    assert global_links(topology) == dict.fromkeys(pairs, 1)
    degree = np.bincount(topology.links[:, 0])[devices:]
    assert set(degree) == {h + (a - 1) + h}
    assert topology.least_hops.max() <= 3 + 2


@pytest.mark.parametrize("grid", [(16, 8), (4, 4), (5, 3), (8, 2), (1, 2), (10, 10)])
def test_routers_are_filled_in_order_and_groups_are_complete(grid: tuple[int, int]) -> None:
    topology = make("dragonfly", grid, bandwidth=1.0, latency=0.0)
    devices = topology.num_devices
    p, a, h, groups = (
        topology.parameters[key]
        for key in ("devices_per_router", "routers_per_group", "global_links", "groups")
    )
    host = topology.links[topology.links[:, 0] < devices]
    assert host.tolist() == [[d, devices + d // p] for d in range(devices)]
    place = group_of(topology)
    assert place[devices:].tolist() == [r // a for r in range(a * groups)]
    assert (place[host[:, 0]] == place[host[:, 1]]).all()
    between = (topology.links >= devices).all(axis=1)
    local = between & (place[topology.links[:, 0]] == place[topology.links[:, 1]])
    assert local.sum() == groups * a * (a - 1)
    joined = global_links(topology)
    assert len(joined) == groups * (groups - 1)
    assert set(joined.values()) <= {a * h // max(groups - 1, 1)}
    out = np.zeros(topology.num_nodes)
    crosses = between & ~local
    np.add.at(out, topology.links[crosses, 0], topology.capacity[crosses])
    assert out.max(initial=0) <= h
    assert topology.least_hops[~np.eye(devices, dtype=bool)].min() >= 2
    assert topology.least_hops.max() <= 3 + 2


def test_every_link_of_two_groups_carries_their_pairs() -> None:
    """Two groups with all their ports between them, uniform traffic: nothing else can carry it."""
    topology = make(
        "dragonfly",
        (4, 4),
        bandwidth=1.0,
        latency=0.0,
        devices_per_router=2,
        routers_per_group=4,
        global_links=1,
    )
    assert topology.parameters["groups"] == 2
    assert global_links(topology) == {(0, 1): 4, (1, 0): 4}
    load = route(topology).link_load(np.where(np.eye(16, dtype=bool), 0.0, 1.0)[None])[0]
    place = group_of(topology)[topology.links]
    assert load[place[:, 0] < place[:, 1]].sum() == pytest.approx(8 * 8)
    np.testing.assert_allclose(load[place[:, 0] != place[:, 1]], 16.0)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"devices_per_router": 4}, (4, 8, 4)),
        ({"global_links": 2}, (2, 4, 2)),
        ({"routers_per_group": 5}, (3, 5, 3)),
        ({"devices_per_router": 2, "routers_per_group": 16, "global_links": 1}, (2, 16, 1)),
    ],
)
def test_what_is_not_given_is_balanced(
    options: dict[str, int], wanted: tuple[int, int, int]
) -> None:
    parameters = make("dragonfly", (8, 8), **options).parameters
    keys = ("devices_per_router", "routers_per_group", "global_links")
    assert tuple(parameters[key] for key in keys) == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 1}, "dragonfly: groups must hold 64 devices, 1 of 4 x 2 hold 8"),
        ({"groups": 10}, r"dragonfly: groups must be <= a\*h \+ 1 = 9 with 4 routers a group"),
        (
            {"devices_per_router": 1, "routers_per_group": 2, "global_links": 1},
            r"dragonfly: groups must be <= a\*h \+ 1 = 3 with 2 routers a group and 1 global .* 32",
        ),
        ({"global_links": 0}, "dragonfly: global_links must be >= 1, got 0"),
        ({"routers_per_group": 2.5}, "dragonfly: routers_per_group must be a whole number"),
        ({"group": 3}, "unknown option of dragonfly 'group'; did you mean 'groups'"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        make("dragonfly", (8, 8), **options)
