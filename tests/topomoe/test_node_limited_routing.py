"""Node-limited routing: a token's experts lie in few groups, so its copies reach few nodes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import topomoe as tm
from topomoe.model import MODELS
from topomoe.routing_trace import RoutingTrace
from topomoe.synthetic import PRESETS
from topomoe.topologies import InputError, make, route

MODEL = MODELS["deepseek-v3"]
NODE, NODES = 8, 8
GROUP = MODEL.num_experts // NODES


@cache
def trace_of(groups: int, kept: int) -> RoutingTrace:
    settings = replace(PRESETS[MODEL.name], num_layers=2, num_groups=groups, token_groups=kept)
    return tm.synthetic_trace(requests=24, positions=40, settings=settings)


def groups_of(trace: RoutingTrace) -> np.ndarray:
    """The number of groups that each token's experts lie in, [M, P]."""
    group = np.sort(trace.experts // GROUP, axis=2)
    return 1 + (np.diff(group, axis=2) != 0).sum(axis=2)


def test_a_token_stays_within_its_groups() -> None:
    """Four of eight, as in DeepSeek-V3 (2024), section 2.1.2; free tokens reach five and more."""
    assert groups_of(trace_of(8, 4)).max() == 4
    assert groups_of(trace_of(1, 1)).max() > 4


def test_a_limit_that_limits_nothing_changes_nothing() -> None:
    np.testing.assert_array_equal(trace_of(8, 8).experts, trace_of(1, 1).experts)


def test_the_limit_leaves_the_load_as_calibrated() -> None:
    free, limited = (trace.load() for trace in (trace_of(1, 1), trace_of(8, 4)))
    for layer in range(2):
        assert np.corrcoef(free[layer], limited[layer])[0, 1] > 0.97


def test_copies_reach_at_most_four_nodes_where_a_group_is_a_node() -> None:
    """Contiguous experts: group g is on node g, and a NIC carries at most one copy a node."""
    topology = make("rails", (NODES, NODE), node_size=NODE, latency=0.0)
    _, first_rail, _, _ = topology.parameters["switches"]
    devices = NODES * NODE
    carried = []
    for trace in (trace_of(8, 4), trace_of(1, 1)):
        placement = tm.place(trace, devices=devices, method="contiguous")
        origin = np.arange(trace.num_positions) % devices
        sent, _ = tm.dispatch(
            trace.experts[0], origin, placement[0], MODEL, copies="node-relay", node_size=NODE
        )
        load = route(topology).link_load(sent[None])[0]
        tail, head = topology.links.T
        nic = load[(tail < devices) & (head >= first_rail)] / MODEL.dispatch_bytes
        tokens = np.bincount(origin, minlength=devices)
        carried.append((nic / tokens).max())
    assert carried[0] <= 4 < carried[1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_groups": 3}, "num_groups must divide num_experts, got num_groups=3 and num_exp"),
        ({"num_groups": 8, "token_groups": 9}, r"token_groups must be in 1\.\.8, got 9"),
        ({"num_groups": 8, "token_groups": 0}, r"token_groups must be in 1\.\.8, got 0"),
        (
            {"num_groups": 128, "token_groups": 3},
            "token_groups must hold top_k experts, got token_groups=3 of 2 and top_k=8",
        ),
    ],
)
def test_groups_that_do_not_fit_are_named(changed: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        replace(PRESETS[MODEL.name], **changed)
