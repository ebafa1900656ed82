"""What a router's trace costs on networks: orderings, pairing, capacity and expert choice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from topomoe.commands.router_network import kept_load, priced_model, scattered, step_rows
from topomoe.commands.router_network_settings import NetworkPriceSettings
from topomoe.model import model_preset
from topomoe.placement import place
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError

SMALL = NetworkPriceSettings(grid="4x4", batches=20, batch_tokens=2048)
NETWORKS = ["torus", "leaf-spine"]


def make_trace(
    experts: int = 8, top_k: int = 2, skew: float = 0.0, layers: int = 2, requests: int = 24
) -> RoutingTrace:
    """Return 32-token requests of a router that likes experts by ``skew`` standard normals."""
    rng = np.random.default_rng(0)
    tokens = requests * 32
    score = skew * rng.normal(size=(layers, 1, experts)) + rng.gumbel(
        size=(layers, tokens, experts)
    )
    return RoutingTrace(
        experts=np.ascontiguousarray((-score).argsort(axis=2)[:, :, :top_k], dtype=np.int16),
        request_start=np.arange(requests + 1) * 32,
        request_ids=tuple(map(str, range(requests))),
        domain_names=("code", "prose"),
        request_domain=np.arange(requests, dtype=np.int32) % 2,
        position=np.tile(np.arange(32, dtype=np.int32), requests),
        prompt_len=np.full(requests, 16, dtype=np.int32),
        num_experts=experts,
        repetition=np.zeros(requests, dtype=np.bool_),
    )


def by_topology(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["topology"]: row for row in rows}


def test_rows_are_of_every_placement_and_topology_and_their_parts_add_up() -> None:
    rows = step_rows(make_trace(skew=1.0), replace(SMALL, placements=("contiguous", "exact")))
    cells = [(row["placement"], row["topology"]) for row in rows]
    assert cells == [(p, t) for p in ("contiguous", "exact") for t in NETWORKS]
    for row in rows:
        assert row["record"] == "step"
        parts = row["dispatch_s"] + row["compute_s"] + row["combine_s"]
        assert row["moe_s"] == pytest.approx(parts)
        assert 0 < row["bound_s"] <= row["dispatch_s"] + row["combine_s"]
        assert row["moe_p50_s"] <= row["moe_p99_s"]
        assert row["dropped_share"] == 0
        assert row["requests"] == 12  # half of them: the placement was made from the others


def test_balanced_placement_is_faster_than_a_blind_one_for_a_skewed_router() -> None:
    rows = step_rows(make_trace(skew=1.5), replace(SMALL, placements=("contiguous", "eplb")))
    blind, balanced = rows[1], rows[3]
    assert balanced["device_max_over_mean"] < blind["device_max_over_mean"]
    assert balanced["moe_s"] < blind["moe_s"]


def test_a_skewed_router_is_slower_than_an_even_one_under_the_same_placement() -> None:
    settings = replace(SMALL, placements=("contiguous",))
    even, skewed = (step_rows(make_trace(skew=s), settings) for s in (0.0, 1.5))
    for flat, steep in zip(even, skewed, strict=True):
        assert steep["moe_p99_s"] > flat["moe_p99_s"]


def test_top_1_sends_half_of_top_2_less_what_meets_on_a_device() -> None:
    one, two = (step_rows(make_trace(16, k), SMALL)[0] for k in (1, 2))
    assert 0.5 <= one["remote_bytes"] / two["remote_bytes"] < 0.6
    assert one["moe_s"] < two["moe_s"]


def test_bytes_are_those_of_the_priced_width() -> None:
    """Each of 16 experts in two of 32 slots: a token's copy stays on 1 device in 16 on average."""
    trace = make_trace(16, 1)
    row = step_rows(trace, SMALL)[0]
    width = model_preset("deepseek-v2-lite")
    sent = 2048 * trace.num_layers * (15 / 16) * (width.dispatch_bytes + width.combine_bytes)
    assert row["remote_bytes"] == pytest.approx(sent, rel=0.01)
    wider = step_rows(trace, replace(SMALL, width="deepseek-v3"))[0]
    assert wider["remote_bytes"] == pytest.approx(3.5 * row["remote_bytes"], rel=0.01)


def test_the_priced_model_has_the_routers_shape_and_no_shared_expert() -> None:
    model = priced_model(make_trace(16, 2, layers=3), "deepseek-v2-lite")
    assert (model.num_layers, model.num_experts, model.top_k) == (3, 16, 2)
    assert (model.hidden, model.expert_intermediate) == (2048, 1408)
    assert model.num_shared_experts == 0


def test_a_tighter_capacity_drops_more_and_sends_less() -> None:
    trace = make_trace(16, 2, skew=1.0)
    rows = [by_topology(step_rows(trace, SMALL, factor)) for factor in (0.9, 1.25, 2.0, 0.0)]
    for name in NETWORKS:
        dropped = [row[name]["dropped_share"] for row in rows]
        assert dropped == sorted(dropped, reverse=True)
        assert dropped[0] > 0.1
        assert dropped[-1] == 0
        seconds = [row[name]["moe_s"] for row in rows]
        assert seconds == sorted(seconds)
    sent = [row["torus"]["remote_bytes"] for row in rows]
    kept = [1 - row["torus"]["dropped_share"] for row in rows]
    # A pair that shares its token's copy with another is dropped for nothing.
    assert sent[0] / sent[-1] == pytest.approx(kept[0], abs=0.06)


def test_a_capacity_that_holds_all_changes_nothing() -> None:
    trace = make_trace(8, 2, skew=0.5)
    assert step_rows(trace, SMALL, 8.0) == step_rows(trace, SMALL, 0.0)


def test_kept_load_is_cut_at_the_capacity() -> None:
    load = np.array([[1.0, 2.0, 9.0], [4.0, 4.0, 4.0]])
    assert kept_load(load, 1.25).tolist() == [[1.0, 2.0, 5.0], [4.0, 4.0, 4.0]]


def test_tokens_without_a_second_expert_send_and_compute_less() -> None:
    """Expert choice leaves tokens with fewer experts: -1 is no pair."""
    full = make_trace(16, 2)
    experts = full.experts.copy()
    experts[:, ::2, 1] = -1
    whole, part = (step_rows(t, SMALL)[0] for t in (full, replace(full, experts=experts)))
    assert part["remote_bytes"] == pytest.approx(0.75 * whole["remote_bytes"], rel=0.03)
    assert part["moe_s"] < whole["moe_s"]
    assert part["dropped_share"] == 0


def test_same_seed_same_rows_and_another_splits_otherwise() -> None:
    trace = make_trace(skew=1.0)
    assert step_rows(trace, SMALL, 1.25, seed=3) == step_rows(trace, SMALL, 1.25, seed=3)
    assert step_rows(trace, SMALL, 1.25, seed=3) != step_rows(trace, SMALL, 1.25, seed=4)


def test_all_of_a_window_is_priced_whatever_its_prompt() -> None:
    trace = make_trace(skew=1.0)
    longer = replace(trace, prompt_len=np.full(trace.num_requests, 1, dtype=np.int32))
    assert step_rows(trace, SMALL) == step_rows(longer, SMALL)


def test_training_adds_a_backward_pass_to_the_parts() -> None:
    trace = make_trace()
    prefill, training = (
        step_rows(trace, replace(SMALL, phase=p))[0] for p in ("prefill", "training")
    )
    forward = training["dispatch_s"] + training["compute_s"] + training["combine_s"]
    assert forward == pytest.approx(prefill["moe_s"])
    assert training["moe_s"] > 2 * forward


def test_shuffled_devices_hold_the_same_experts_with_the_same_shares() -> None:
    placement = place(make_trace(8, 2, skew=1.0), devices=16, slots=32, method="eplb")
    moved = scattered(placement, seed=0)
    for m in range(placement.num_layers):
        before, after = (
            sorted(
                zip(
                    p.slot_expert[m].reshape(16, -1).tolist(),
                    p.slot_share[m].reshape(16, -1).tolist(),
                    strict=True,
                )
            )
            for p in (placement, moved)
        )
        assert before == after
    assert (moved.slot_expert != placement.slot_expert).any()
    assert scattered(placement, seed=0).slot_expert.tolist() == moved.slot_expert.tolist()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grid": "4"}, "grid"),
        ({"topologies": ()}, "topologies must name at least one"),
        ({"topologies": ("torus", "torus")}, "topologies must not name anything twice"),
        ({"placements": ("best",)}, "placement method"),
        ({"slots": -1}, "slots must be >= 0"),
        ({"width": "gpt-9"}, "model"),
        ({"device": "abacus"}, "device"),
        ({"phase": "dream"}, "phase"),
        ({"batches": 0}, "batches"),
        ({"batch_tokens": 0}, "batch_tokens"),
        ({"scored_fraction": 1.0}, "scored_fraction must be in"),
        ({"bandwidth": 0.0}, "bandwidth must be > 0"),
        ({"latency": -1.0}, "latency must be >= 0"),
    ],
)
def test_settings_name_what_is_wrong(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NetworkPriceSettings(**changed)


def test_slots_that_do_not_fit_and_a_trace_of_one_request_are_refused() -> None:
    with pytest.raises(InputError, match="slots must be >= experts"):
        step_rows(make_trace(32), replace(SMALL, slots=16))
    with pytest.raises(InputError, match="multiple of devices"):
        step_rows(make_trace(32), replace(SMALL, slots=40))
    with pytest.raises(InputError, match="at least 2 requests"):
        step_rows(make_trace(requests=1), SMALL)
