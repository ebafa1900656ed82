"""Shapes of Mixture-of-Experts models and of the devices they run on, with presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from topomoe.topologies.errors import InputError, unknown

FP8_SCALE_BLOCK = 128  # hidden elements that share one 4-byte scale (DeepSeek-V3, section 3.3)


@dataclass(frozen=True)
class MoEModel:
    """The shape of a Mixture-of-Experts transformer, as far as step time depends on it.

    Attention is data-parallel: each device holds all attention and dense weights and runs them on
    the tokens that start on it. Expert weights are spread over the devices.
    """

    name: str
    num_layers: int  # MoE layers, M
    num_dense_layers: int  # layers without routed experts, before the MoE layers
    num_experts: int  # routed experts a layer, E
    top_k: int  # experts a token, K
    hidden: int
    expert_intermediate: int
    num_shared_experts: int  # each as large as a routed expert, run for every token
    attention_parameters: int  # a layer
    attention_width: int  # heads x (query-key + value) head size: core attention FLOPs per context
    kv_bytes: int  # cache bytes a token and layer
    dense_intermediate: int  # of the dense layers
    vocabulary: int
    weight_bytes: float  # a parameter: 1 FP8, 2 BF16, .53 MXFP4 with its scales

    @property
    def expert_parameters(self) -> int:
        """Parameters of one expert: gate, up and down projections."""
        return 3 * self.hidden * self.expert_intermediate

    @property
    def expert_flops(self) -> float:
        """FLOPs of one token in one expert."""
        return 2.0 * self.expert_parameters

    @property
    def expert_weight_bytes(self) -> float:
        """Bytes of one expert's weights: what a device reads to run it and moves to migrate it."""
        return self.expert_parameters * self.weight_bytes

    @property
    def dispatch_bytes(self) -> int:
        """Bytes a dispatched copy of a token: FP8 hidden and a 4-byte scale per 128 of it."""
        return self.hidden + 4 * ceil(self.hidden / FP8_SCALE_BLOCK)

    @property
    def combine_bytes(self) -> int:
        """Bytes of a partial result sent back: BF16 hidden."""
        return 2 * self.hidden


@dataclass(frozen=True)
class Device:
    """An accelerator: sustained (not peak) rates."""

    name: str
    fp8_flops: float  # sustained FLOP/s of expert GEMMs with weights of at most one byte
    bf16_flops: float  # sustained FLOP/s with two-byte weights
    memory_bandwidth: float  # bytes/s

    def flops(self, model: MoEModel) -> float:
        """Return the sustained FLOP/s at the model's weight precision."""
        return self.fp8_flops if model.weight_bytes <= 1 else self.bf16_flops


# Shapes from each model's published configuration file; names as those files give them.
_MODELS = (
    MoEModel(
        "deepseek-v3",
        num_layers=58,
        num_dense_layers=3,
        num_experts=256,
        top_k=8,
        hidden=7168,
        expert_intermediate=2048,
        num_shared_experts=1,
        attention_parameters=187_105_280,
        attention_width=128 * (192 + 128),
        kv_bytes=2 * 576,
        dense_intermediate=18432,
        vocabulary=129_280,
        weight_bytes=1.0,
    ),
    MoEModel(
        "kimi-k2",
        num_layers=60,
        num_dense_layers=1,
        num_experts=384,
        top_k=8,
        hidden=7168,
        expert_intermediate=2048,
        num_shared_experts=1,
        attention_parameters=101_122_048,
        attention_width=64 * (192 + 128),
        kv_bytes=2 * 576,
        dense_intermediate=18432,
        vocabulary=163_840,
        weight_bytes=1.0,
    ),
    MoEModel(
        "deepseek-v2-lite",
        num_layers=26,
        num_dense_layers=1,
        num_experts=64,
        top_k=6,
        hidden=2048,
        expert_intermediate=1408,
        num_shared_experts=2,
        attention_parameters=13_762_560,
        attention_width=16 * (192 + 128),
        kv_bytes=2 * 576,
        dense_intermediate=10944,
        vocabulary=102_400,
        weight_bytes=2.0,
    ),
    MoEModel(
        "gpt-oss-20b",
        num_layers=24,
        num_dense_layers=0,
        num_experts=32,
        top_k=4,
        hidden=2880,
        expert_intermediate=2880,
        num_shared_experts=0,
        attention_parameters=26_542_080,
        attention_width=64 * (64 + 64),
        kv_bytes=2 * 2 * 8 * 64,
        dense_intermediate=0,
        vocabulary=201_088,
        weight_bytes=0.53125,
    ),
    MoEModel(
        "mixtral-8x7b",
        num_layers=32,
        num_dense_layers=0,
        num_experts=8,
        top_k=2,
        hidden=4096,
        expert_intermediate=14336,
        num_shared_experts=0,
        attention_parameters=41_943_040,
        attention_width=32 * (128 + 128),
        kv_bytes=2 * 2 * 8 * 128,
        dense_intermediate=0,
        vocabulary=32_000,
        weight_bytes=2.0,
    ),
)
MODELS: Mapping[str, MoEModel] = {model.name: model for model in _MODELS}

# Vendor peaks (dense) times the share of them that grouped GEMMs of expert size sustain. The A100
# has no FP8 units: its BF16 rate stands for both.
_SUSTAINED = 0.53
_DEVICES = (
    Device("h100", _SUSTAINED * 1979e12, _SUSTAINED * 989e12, 3.35e12),
    Device("h800", _SUSTAINED * 1979e12, _SUSTAINED * 989e12, 3.35e12),
    Device("h200", _SUSTAINED * 1979e12, _SUSTAINED * 989e12, 4.8e12),
    Device("a100", _SUSTAINED * 312e12, _SUSTAINED * 312e12, 2.039e12),
    Device("b200", _SUSTAINED * 4500e12, _SUSTAINED * 2250e12, 8.0e12),
)
DEVICES: Mapping[str, Device] = {device.name: device for device in _DEVICES}


def model_preset(model: str | MoEModel) -> MoEModel:
    """Return the preset of that name, or the model itself."""
    if isinstance(model, MoEModel):
        return model
    if model not in MODELS:
        raise unknown("model", model, MODELS)
    return MODELS[model]


def device_preset(device: str | Device) -> Device:
    """Return the preset of that name, or the device itself."""
    if isinstance(device, Device):
        return device
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    return DEVICES[device]


def match_model(num_layers: int, num_experts: int, top_k: int) -> MoEModel:
    """Return the preset whose layers, experts and top-k are those of a trace.

    Raises InputError where no preset matches: the model must then be named.
    """
    for model in _MODELS:
        if (model.num_layers, model.num_experts, model.top_k) == (num_layers, num_experts, top_k):
            return model
    raise InputError(
        f"no model preset has {num_layers} MoE layers, {num_experts} experts and top-{top_k}: "
        f"name one with model= (one of: {', '.join(MODELS)})"
    )


def expert_capacity(factor: float, tokens: int, top_k: int, num_experts: int) -> int:
    """Return ceil(factor * T * K / E), the token-expert pairs that one expert takes of a batch.

    >>> expert_capacity(1.25, 128, 2, 32), expert_capacity(1.1, 50, 2, 10)
    (10, 11)
    """
    # Rounded first: 1.1 * 100 is 110.00000000000001, and nobody means a twelfth.
    return ceil(round(factor * (tokens * top_k) / num_experts, 9))
