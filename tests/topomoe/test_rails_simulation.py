"""Nodes with rails end to end: relayed copies cross by the rail and fan out inside the node."""

from __future__ import annotations

import numpy as np
import pytest

import topomoe as tm
from topomoe.demand import DispatchSettings
from topomoe.model import MODELS
from topomoe.network import bottleneck
from topomoe.step import StepSettings
from topomoe.topologies import Topology, make, route
from topomoe.workload import WorkloadSettings, make_batches

NODE, DEVICES = 4, 16
MODEL = MODELS["deepseek-v2-lite"]
TRACE = tm.synthetic_trace(MODEL.name, requests=8, positions=24).filter(layers=(0, 12))
PLACEMENT = tm.place(TRACE, devices=DEVICES, method="contiguous")
BARE = StepSettings(collective_overhead=0.0, mtu=0.0)
RNG = np.random.default_rng(0)
ORIGIN = RNG.integers(DEVICES, size=TRACE.num_positions)


def rails(**options: object) -> Topology:
    return make("rails", (4, 4), "400Gbps", 0.0, node_size=NODE, **options)


def demand(copies: str) -> np.ndarray:
    sent, _ = tm.dispatch(
        TRACE.experts[0], ORIGIN, PLACEMENT[0], MODEL, copies=copies, node_size=NODE
    )
    return sent


def chosen_devices() -> np.ndarray:
    """The device of every token's experts, [P, K]: one replica each, so that none is drawn."""
    device = np.zeros(MODEL.num_experts, dtype=np.int64)
    slots = PLACEMENT.slot_expert.shape[1] // DEVICES
    device[PLACEMENT.slot_expert[0]] = np.arange(PLACEMENT.slot_expert.shape[1]) // slots
    return device[TRACE.experts[0]]


def load_by_kind(topology: Topology, bytes_sent: np.ndarray) -> dict[str, np.ndarray]:
    """The link loads by where a link leaves from and leads to."""
    _, first_rail, first_spine, _ = topology.parameters["switches"]
    load = route(topology).link_load(bytes_sent[None])[0]
    tail, head = topology.links.T
    return {
        "nic": load[(tail < DEVICES) & (head >= first_rail)],
        "node": load[(tail < DEVICES) & (head < first_rail)],
        "spine": load[(head >= first_spine) | (tail >= first_spine)],
    }


def test_a_relayed_copy_crosses_on_its_senders_rail() -> None:
    source, destination = np.nonzero(demand("node-relay"))
    across = source // NODE != destination // NODE
    assert across.any()
    assert (source % NODE == destination % NODE)[across].all()


@pytest.mark.parametrize("policy", [None, "ecmp"])
def test_relayed_copies_take_the_rail_or_the_nodes_switch_and_nothing_else(
    policy: str | None,
) -> None:
    topology = rails()
    hops = route(topology, policy).hops
    assert (hops[demand("node-relay") > 0] == 2).all()
    assert (load_by_kind(topology, demand("node-relay"))["spine"] == 0).all()


def test_a_nic_carries_one_copy_a_token_and_node() -> None:
    """Counted from the tokens alone: per token the other nodes of its experts, on its own rail."""
    nodes = chosen_devices() // NODE
    here = ORIGIN // NODE
    wanted = np.zeros(DEVICES)
    for token, home in enumerate(here):
        wanted[ORIGIN[token]] += len(set(nodes[token].tolist()) - {home})
    nic = load_by_kind(rails(), demand("node-relay"))["nic"]
    np.testing.assert_allclose(nic, wanted * MODEL.dispatch_bytes)


def test_relaying_moves_bytes_from_the_nics_to_the_nodes_links() -> None:
    relayed, direct = (load_by_kind(rails(), demand(c)) for c in ("node-relay", "device"))
    assert relayed["nic"].sum() < direct["nic"].sum()
    topology = rails()
    routing = route(topology)
    times = [bottleneck(topology, routing, demand(c)) for c in ("node-relay", "device")]
    assert times[0] < times[1]


def test_a_step_on_rails_costs_what_its_dispatch_costs_by_hand() -> None:
    topology = rails()
    dispatch = DispatchSettings(copies="node-relay", node_size=NODE)
    workload = WorkloadSettings(batches=3, batch_tokens=128)
    times = tm.simulate(
        TRACE, topology, PLACEMENT, MODEL, workload=workload, dispatch=dispatch, step=BARE, seed=5
    ).times
    for b, batch in enumerate(
        make_batches(TRACE, DEVICES, (4, 4), workload, np.random.default_rng(5))
    ):
        for m in range(TRACE.num_layers):
            there, _ = tm.dispatch(
                TRACE.experts[m, batch.positions],
                batch.origin,
                PLACEMENT[m],
                MODEL,
                copies="node-relay",
                node_size=NODE,
            )
            for part, sent in (
                ("dispatch", there),
                ("combine", there.T * MODEL.combine_bytes / MODEL.dispatch_bytes),
            ):
                wanted = bottleneck(topology, route(topology), sent)
                assert getattr(times, part)[b, m] == pytest.approx(wanted, rel=1e-6)
    assert (times.bound <= (times.dispatch + times.combine) * (1 + 1e-6)).all()


def test_faster_links_inside_a_node_are_never_slower() -> None:
    dispatch = DispatchSettings(copies="node-relay", node_size=NODE)
    means = [
        tm.simulate(
            TRACE,
            rails(node_bandwidth=speed),
            PLACEMENT,
            MODEL,
            batch_tokens=128,
            batches=3,
            dispatch=dispatch,
            step=BARE,
        ).moe_time.mean
        for speed in ("900GB/s", "450GB/s", "50GB/s", "5GB/s")
    ]
    assert means == sorted(means)
    assert means[-1] > means[0]
