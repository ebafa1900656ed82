"""Compute time: the roofline of the experts' GEMMs, and of attention and dense layers.

An expert with any token reads all its weights, so a sliver of an expert is not free: balance in
tokens is not balance in seconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topomoe.model import Device, MoEModel

FloatArray = NDArray[np.float64]


def roofline(model: MoEModel, device: Device) -> tuple[float, float]:
    """Return the seconds of one token's FLOPs in one expert, and of reading the expert's weights.

    Their ratio is the knee: an expert with fewer tokens takes as long as with one.
    """
    weights = model.expert_weight_bytes / device.memory_bandwidth
    return model.expert_flops / device.flops(model), weights


def expert_seconds(
    tokens: NDArray[np.int64] | FloatArray,
    model: MoEModel,
    device: Device,
    tile_tokens: int = 0,
) -> FloatArray:
    """Return the seconds [...] that one expert needs for each entry of ``tokens`` [...].

    The larger of its FLOPs at the sustained rate and its weights at the memory's bandwidth; nothing
    without a token. ``tile_tokens`` rounds tokens up to whole GEMM tiles (0: no rounding).
    """
    padded = -(-tokens // tile_tokens) * tile_tokens if tile_tokens else tokens
    token_seconds, weight_seconds = roofline(model, device)
    return np.where(tokens > 0, np.maximum(padded * token_seconds, weight_seconds), 0.0)


def device_seconds(
    slot_load: NDArray[np.int64],
    origin_tokens: NDArray[np.int64],
    num_devices: int,
    model: MoEModel,
    device: Device,
    tile_tokens: int = 0,
    shared_routed: bool = False,
) -> FloatArray:
    """Return the seconds of each device's experts, [M, N], for slot_load [M, S].

    A local shared expert runs on the device where a token starts: origin_tokens [N] of them.
    """
    slots = expert_seconds(slot_load, model, device, tile_tokens)
    total = slots.reshape(*slot_load.shape[:-1], num_devices, -1).sum(axis=-1)
    if model.num_shared_experts and not shared_routed:
        shared = expert_seconds(origin_tokens, model, device, tile_tokens)
        total = total + model.num_shared_experts * shared
    return np.asarray(total)


def other_seconds(
    tokens: float, model: MoEModel, device: Device, phase: str, context_tokens: int
) -> float:
    """Return the seconds of attention, dense layers and output head for a device's ``tokens``.

    Each is the larger of FLOPs and bytes. Attention reads its weights once and, in decode, each
    token's cache of ``context_tokens``; prefill and training attend to half the context on average.
    The head runs in decode and training; in prefill only a request's last token needs it.
    """
    if tokens <= 0:
        return 0.0
    rate, bandwidth = device.flops(model), device.memory_bandwidth
    layers = model.num_layers + model.num_dense_layers

    def gemm(parameters: float) -> float:
        return max(2.0 * parameters * tokens / rate, parameters * model.weight_bytes / bandwidth)

    context = float(context_tokens) if phase == "decode" else context_tokens / 2.0
    core_flops = 2.0 * model.attention_width * context * tokens
    cache = model.kv_bytes * context * tokens if phase == "decode" else 0.0
    attention = gemm(model.attention_parameters) + max(core_flops / rate, cache / bandwidth)
    dense = gemm(3.0 * model.hidden * model.dense_intermediate)
    head = 0.0 if phase == "prefill" else gemm(float(model.hidden) * model.vocabulary)
    return layers * attention + model.num_dense_layers * dense + head
