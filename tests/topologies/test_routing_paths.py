"""Routings of given paths: the forms they come in and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topomoe.network import bottleneck
from topomoe.topologies import InputError, Routing, from_links, make, route

RING = from_links([(0, 1), (1, 2), (2, 0)], capacity=1.0, latency=1.0)
# Every ordered pair of the one-way ring, row by row: 0->1, 0->2, 1->0, 1->2, 2->0, 2->1.
PTR = [0, 1, 3, 5, 6, 7, 9]
LINKS = [0, 0, 1, 1, 2, 1, 2, 2, 0]
HOPS = [[0, 1, 2], [2, 0, 1], [1, 2, 0]]


def by_pair(routing: Routing) -> tuple[np.ndarray, np.ndarray]:
    """ptr and link ids of a single-path routing, each path's links in the order they are taken."""
    table = routing.matrix.tocsc()
    links = []
    for pair in range(table.shape[1]):
        left = table.indices[table.indptr[pair] : table.indptr[pair + 1]].tolist()
        at = pair // routing.topology.num_devices
        while left:
            step = next(link for link in left if routing.topology.links[link, 0] == at)
            left.remove(step)
            links.append(step)
            at = routing.topology.links[step, 1]
    return table.indptr, np.array(links)


@pytest.mark.parametrize("name", ["torus", "leaf-spine", "optical"])
def test_all_forms_of_the_same_paths_are_the_same_routing(name: str) -> None:
    topology = make(name, grid=(4, 3))
    wanted = route(topology, "ecmp-hash", seed=4)
    ptr, links = by_pair(wanted)
    off_diagonal = np.flatnonzero(~np.eye(12, dtype=bool).reshape(-1))
    short = np.append(0, ptr[off_diagonal + 1])
    source, destination = np.divmod(off_diagonal, 12)
    order = np.random.default_rng(0).permutation(len(source))
    shuffled_ptr = np.append(0, np.cumsum(np.diff(short)[order]))
    shuffled = np.concatenate([links[short[f] : short[f + 1]] for f in order])
    for given in (
        Routing.from_paths(topology, ptr, links),
        Routing.from_paths(topology, short, links),
        Routing.from_paths(topology, short.tolist(), links.tolist(), source, destination),
        Routing.from_paths(topology, shuffled_ptr, shuffled, source[order], destination[order]),
        Routing.from_paths(topology, shuffled_ptr[:40], shuffled[: shuffled_ptr[39]]),
    ):
        part = given.matrix.sum(axis=0) > 0
        assert (given.matrix[:, part] != wanted.matrix[:, part]).nnz == 0
        assert part.sum() in (132, 39)


def test_hops_and_latency_follow_the_paths_given() -> None:
    routing = Routing.from_paths(RING, PTR, LINKS)
    assert routing.hops.tolist() == HOPS
    assert routing.latency.tolist() == HOPS
    assert routing.reachable.all()


def test_ends_are_read_off_a_few_paths() -> None:
    routing = Routing.from_paths(RING, [0, 2, 3], [1, 2, 0])
    assert routing.hops.tolist() == [[0, 1, 0], [2, 0, 0], [0, 0, 0]]
    assert routing.reachable.tolist() == [
        [True, True, False], [True, True, False], [False, False, True],
    ]  # fmt: skip


def test_demand_without_a_path_is_refused_and_the_rest_computed() -> None:
    routing = Routing.from_paths(RING, [0, 2, 3], [1, 2, 0])
    demand = np.zeros((3, 3))
    demand[1, 0] = 4.0
    assert bottleneck(RING, routing, demand) == 4.0 + 2.0
    demand[2, 1] = 1e-9
    with pytest.raises(InputError, match="demand from device 2 to device 1 has no path"):
        bottleneck(RING, routing, demand)


def test_given_resources_need_not_hang_together() -> None:
    """With source and destination given, links are resources: any list of them is a path."""
    routing = Routing.from_paths(RING, [0, 2], [2, 1], [0], [1])
    assert routing.link_load(np.full((1, 3, 3), 5.0)).tolist() == [[0, 5, 5]]


def test_a_path_given_for_the_diagonal_is_no_flow() -> None:
    routing = Routing.from_paths(RING, [0, 3, 4], [0, 1, 2, 0], [0, 0], [0, 1])
    assert routing.link_load(np.ones((1, 3, 3))).tolist() == [[1, 0, 0]]
    assert bottleneck(RING, routing, np.diag([9.0, 9.0, 9.0])) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ptr": [1, 2]}, "ptr must start at 0 and end at the number of link ids"),
        ({"ptr": [0, 3]}, "ptr must start at 0 and end at the number of link ids"),
        ({"ptr": []}, "ptr must start at 0"),
        ({"ptr": [0, 2, 1, 9]}, "ptr must not decrease"),
        ({"ptr": ["a"]}, "ptr must be numbers, got text"),
        ({"links": [0.5, *LINKS[1:]]}, "links must be whole numbers"),
        ({"links": [3, *LINKS[1:]]}, r"link ids must be in 0\.\.2"),
        ({"links": [-1, *LINKS[1:]]}, r"link ids must be in 0\.\.2"),
        ({"links": [0, 0, 2, *LINKS[3:]]}, "the links of path 1 do not follow each other"),
        ({"links": [1, *LINKS[1:]]}, "path 0 must run 0->1, runs 1->2"),
        ({"source": [0] * 6}, "give both source and destination or neither"),
        ({"source": [0], "destination": [1]}, r"must have one entry a flow \(6\)"),
        ({"source": [0] * 6, "destination": [1] * 6}, "a pair of devices has two paths"),
        ({"source": [0, 0, 1, 1, 2, 3], "destination": [1, 2, 0, 2, 0, 1]}, r"devices 0\.\.2"),
        ({"source": [0, 0, 1, 1, 2, -1], "destination": [1, 2, 0, 2, 0, 1]}, r"devices 0\.\.2"),
        ({"ptr": [0, 0, 1], "links": [0]}, "an empty path names no pair"),
        ({"ptr": [0, 1, 2], "links": [0, 0]}, "a pair of devices has two paths"),
    ],
)
def test_bad_paths_are_named(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"ptr": PTR, "links": LINKS}
    with pytest.raises(InputError, match=f"^paths: .*{message}"):
        Routing.from_paths(RING, **(good | arguments))


def test_ends_at_a_switch_are_no_flow() -> None:
    star = from_links([(0, 2), (2, 1), (1, 2), (2, 0)], 1.0, devices=2)
    with pytest.raises(InputError, match=r"source and destination must be devices 0\.\.1"):
        Routing.from_paths(star, [0, 1], [0])
    assert Routing.from_paths(star, [0, 2, 4], [0, 1, 2, 3]).hops.tolist() == [[0, 2], [2, 0]]
