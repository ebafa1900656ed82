"""Compute: rooflines of experts, attention and the rest, and the shapes of the presets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topomoe.compute import device_seconds, expert_seconds, other_seconds
from topomoe.model import (
    DEVICES,
    MODELS,
    Device,
    MoEModel,
    device_preset,
    match_model,
    model_preset,
)
from topomoe.topologies.errors import InputError

V3, LITE, MIXTRAL = (MODELS[n] for n in ("deepseek-v3", "deepseek-v2-lite", "mixtral-8x7b"))
H100 = DEVICES["h100"]
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
every_device = pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)


def seconds(tokens: int, model: MoEModel = V3, tile: int = 0) -> float:
    return float(expert_seconds(np.array([tokens]), model, H100, tile)[0])


# One expert.


@every_model
def test_one_token_takes_as_long_as_reading_the_expert(model: MoEModel) -> None:
    assert seconds(1, model) == model.expert_weight_bytes / H100.memory_bandwidth


@every_model
def test_many_tokens_take_as_long_as_their_arithmetic(model: MoEModel) -> None:
    flops = 2 * 3 * model.hidden * model.expert_intermediate * 100_000
    assert seconds(100_000, model) == pytest.approx(flops / H100.flops(model), rel=1e-12)


def test_an_expert_without_tokens_is_not_read() -> None:
    assert seconds(0) == 0.0
    assert seconds(0, tile=64) == 0.0


def test_a_sliver_of_an_expert_costs_all_its_weights() -> None:
    """Balanced in tokens, not in seconds: 64 tokens of one expert, or one of each of 64."""
    together, slivers = np.zeros((1, 64), dtype=np.int64), np.ones((1, 64), dtype=np.int64)
    together[0, 0] = 64
    nothing = np.zeros(1, dtype=np.int64)
    model = replace(V3, num_shared_experts=0)
    one, many = (
        device_seconds(load, nothing, 1, model, H100)[0, 0] for load in (together, slivers)
    )
    assert many == pytest.approx(64 * seconds(1))
    assert many > 60 * one


def test_tokens_are_rounded_up_to_whole_tiles() -> None:
    many = 10_000 * 64
    assert seconds(many + 1, tile=64) == seconds(many + 64)
    assert seconds(many, tile=64) == seconds(many)
    assert seconds(many + 1, tile=64) > seconds(many + 1)


@given(
    tokens=st.integers(0, 10**6), more=st.integers(0, 10**5), tile=st.sampled_from([0, 1, 16, 128])
)
def test_more_tokens_are_never_faster(tokens: int, more: int, tile: int) -> None:
    assert seconds(tokens + more, tile=tile) >= seconds(tokens, tile=tile)
    assert seconds(tokens, tile=tile) >= seconds(tokens)


# A device.


def test_a_device_takes_the_sum_of_its_slots() -> None:
    load = np.array([[3, 0, 100_000, 5], [1, 1, 0, 0]])
    got = device_seconds(load, np.zeros(2, dtype=np.int64), 2, MIXTRAL, H100)
    wanted = [
        [seconds(3, MIXTRAL), seconds(100_000, MIXTRAL) + seconds(5, MIXTRAL)],
        [2 * seconds(1, MIXTRAL), 0.0],
    ]
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_a_local_shared_expert_runs_where_tokens_start() -> None:
    load = np.array([[0, 7, 0, 0]])
    start = np.array([50_000, 0])
    local = device_seconds(load, start, 2, LITE, H100)
    routed = device_seconds(load, start, 2, LITE, H100, shared_routed=True)
    np.testing.assert_allclose(routed, [[seconds(7, LITE), 0]])
    np.testing.assert_allclose(local - routed, [[2 * seconds(50_000, LITE), 0]])


# Attention, dense layers, head.


@every_model
@pytest.mark.parametrize("phase", ["decode", "prefill", "training"])
def test_the_rest_of_a_step_grows_with_tokens_and_context(model: MoEModel, phase: str) -> None:
    assert other_seconds(0, model, H100, phase, 4096) == 0.0
    times = [other_seconds(t, model, H100, phase, 4096) for t in (1, 2, 64, 4096, 65536)]
    assert times == sorted(times)
    assert times[0] > 0
    by_context = [other_seconds(4096, model, H100, phase, c) for c in (0, 128, 4096, 65536)]
    assert by_context == sorted(by_context)
    assert by_context[0] < by_context[-1]


@every_model
def test_one_token_without_context_reads_every_weight_once(model: MoEModel) -> None:
    layers = model.num_layers + model.num_dense_layers
    parameters = (
        layers * model.attention_parameters
        + model.num_dense_layers * 3 * model.hidden * model.dense_intermediate
        + model.hidden * model.vocabulary
    )
    wanted = parameters * model.weight_bytes / H100.memory_bandwidth
    assert other_seconds(1, model, H100, "decode", 0) == pytest.approx(wanted, rel=1e-12)
    head = model.hidden * model.vocabulary * model.weight_bytes / H100.memory_bandwidth
    assert other_seconds(1, model, H100, "prefill", 0) == pytest.approx(wanted - head, rel=1e-12)


def test_decode_reads_the_cache_of_every_token() -> None:
    """Far above what attention's arithmetic needs, so that time is the cache's bytes."""
    model = replace(V3, attention_width=1)
    cache = (58 + 3) * 1152 * 4096 * 512 / H100.memory_bandwidth
    without = other_seconds(512, model, H100, "decode", 0)
    assert other_seconds(512, model, H100, "decode", 4096) == pytest.approx(without + cache)


# Presets.


def test_an_expert_of_deepseek_v3_is_44_megabytes() -> None:
    assert V3.expert_parameters == 44_040_192
    assert V3.expert_weight_bytes == 44_040_192.0
    assert V3.expert_flops == 88_080_384.0


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("deepseek-v3", 671e9),
        ("kimi-k2", 1.04e12),
        ("deepseek-v2-lite", 15.7e9),
        ("gpt-oss-20b", 20.9e9),
        ("mixtral-8x7b", 46.7e9),
    ],
)
def test_the_parameters_of_a_preset_are_those_published(name: str, published: float) -> None:
    """Left out: norms, biases, attention sinks, and multi-token prediction modules."""
    model = MODELS[name]
    experts = model.num_experts + model.num_shared_experts
    router = model.num_experts * model.hidden
    moe = model.num_layers * (experts * model.expert_parameters + router)
    dense = model.num_dense_layers * 3 * model.hidden * model.dense_intermediate
    attention = (model.num_layers + model.num_dense_layers) * model.attention_parameters
    embedding_and_head = 2 * model.vocabulary * model.hidden
    total = moe + dense + attention + embedding_and_head
    assert total == pytest.approx(published, rel=0.015)


@every_device
def test_models_of_two_byte_weights_run_at_the_bf16_rate(device: Device) -> None:
    assert device_preset(device.name) is device
    for model in MODELS.values():
        wanted = device.bf16_flops if model.weight_bytes == 2 else device.fp8_flops
        assert device.flops(model) == wanted
    assert device.fp8_flops >= device.bf16_flops


def test_bf16_takes_twice_as_long_as_fp8_on_an_h100_to_within_its_peaks() -> None:
    wide = replace(V3, weight_bytes=2.0)
    assert seconds(100_000, wide) / seconds(100_000) == pytest.approx(1979 / 989)
    assert seconds(1, wide) / seconds(1) == 2.0


@every_model
def test_a_trace_of_a_models_shape_finds_the_model(model: MoEModel) -> None:
    assert match_model(model.num_layers, model.num_experts, model.top_k) is model
    assert model_preset(model.name) is model_preset(model) is model


def test_unknown_names_and_shapes_are_refused() -> None:
    with pytest.raises(InputError, match="unknown model 'deepseek-v4'; did you mean 'deepseek-v3'"):
        model_preset("deepseek-v4")
    with pytest.raises(InputError, match="unknown device 'h10'"):
        device_preset("h10")
    with pytest.raises(InputError, match="no model preset has 32 MoE layers, 8 experts and top-1"):
        match_model(32, 8, 1)
