"""What a step costs, part by part, and its distribution over batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from topomoe.model import device_preset
from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
OVERLAPS = ("none", "two-batch")
FIDELITIES = ("bottleneck", "max-min")


@dataclass(frozen=True)
class StepSettings:
    """What a step costs beside the bytes on the links."""

    device: str = "h100"
    """Accelerator preset: h100, h800, h200, a100 or b200."""
    collective_overhead: units.Seconds = 10e-6
    """Seconds to start one all-to-all or all-gather."""
    mtu: units.Bytes = 4096.0
    """Packet bytes, for store-and-forward at each hop; 0 leaves it out."""
    tile_tokens: int = 0
    """Round an expert's tokens up to whole GEMM tiles of this many; 0: no rounding."""
    overlap: str = "none"
    """none, or two-batch: half the tokens communicate while the other half computes."""
    context_tokens: int = 4096
    """Tokens a request attends to, for attention's share of the step."""
    fidelity: str = "bottleneck"
    """Network model: bottleneck, or max-min (fair sharing, event by event; far slower)."""
    max_min_rtol: float = 1e-3
    """Flows within this share of the clock finish together in max-min; 0: exact."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        device_preset(self.device)
        if self.overlap not in OVERLAPS:
            raise unknown("overlap", self.overlap, OVERLAPS)
        if self.fidelity not in FIDELITIES:
            raise unknown("fidelity", self.fidelity, FIDELITIES)
        if not 0 <= self.max_min_rtol < 1:
            raise InputError(f"max_min_rtol must be in [0, 1), got {self.max_min_rtol}")
        for field in ("collective_overhead", "mtu", "tile_tokens", "context_tokens"):
            value = getattr(self, field)
            if not 0 <= value < np.inf:
                raise InputError(f"{field} must be finite and >= 0, got {value}")


@dataclass(frozen=True, eq=False)
class TimeSummary:
    """A time in seconds over batches: ``samples`` [B] and what they come to."""

    samples: FloatArray

    @property
    def mean(self) -> float:
        """Mean seconds."""
        return float(self.samples.mean())

    @property
    def p50(self) -> float:
        """Median seconds."""
        return self.percentile(50)

    @property
    def p95(self) -> float:
        """95th percentile, seconds."""
        return self.percentile(95)

    @property
    def p99(self) -> float:
        """99th percentile, seconds."""
        return self.percentile(99)

    def percentile(self, q: float) -> float:
        """Return the q-th percentile in seconds."""
        return float(np.percentile(self.samples, q))


@dataclass(frozen=True, eq=False)
class StepTime:
    """The parts of B steps through M layers, in seconds; nothing is overlapped inside a part.

    ``halves`` holds the same parts for the two half batches of ``overlap="two-batch"``, in which
    one half communicates while the other computes.
    """

    dispatch: FloatArray  # [B, M]
    compute: FloatArray  # [B, M], of the slowest device
    combine: FloatArray  # [B, M]
    backward: FloatArray  # [B, M]: training's two more all-to-alls and twice the compute, else 0
    other: FloatArray  # [B]: attention, dense layers, head
    bound: FloatArray  # [B, M]: below what any routing needs for dispatch and combine
    halves: tuple[StepTime, StepTime] | None = None

    @cached_property
    def moe(self) -> FloatArray:
        """Seconds of the MoE layers of each step, [B]."""
        if self.halves is not None:
            return _pipelined(*self.halves, with_other=False)
        layers = self.dispatch + self.compute + self.combine + self.backward
        return np.asarray(layers.sum(axis=1))

    @cached_property
    def step(self) -> FloatArray:
        """Seconds of each whole step, [B]."""
        if self.halves is not None:
            return _pipelined(*self.halves, with_other=True)
        return self.moe + self.other


def _pipelined(first: StepTime, second: StepTime, with_other: bool) -> FloatArray:
    """Return the seconds [B] of two half batches that take turns on network and device.

    In every layer one half's all-to-alls run beside the other's compute (and attention), then the
    roles change; each half also waits for its own.
    """
    layers = first.dispatch.shape[1]

    def parts(half: StepTime) -> tuple[FloatArray, FloatArray]:
        network = half.dispatch + half.combine
        device = half.compute + (half.other[:, None] / layers if with_other else 0.0)
        return network, device

    (network_a, device_a), (network_b, device_b) = parts(first), parts(second)
    layer = np.maximum(network_a, device_b) + np.maximum(network_b, device_a)
    return np.asarray((layer + first.backward + second.backward).sum(axis=1))


@dataclass(frozen=True, eq=False)
class SimulationResult:
    """What ``simulate`` found for one placement on one network."""

    times: StepTime
    tokens: NDArray[np.int64]  # [B]
    max_over_mean: FloatArray  # [B, M] of device load in token-expert pairs
    remote_bytes: FloatArray  # [B, M] on the network, in training with the backward pass
    cross_row_bytes: FloatArray  # [B, M] of them between different rows of the grid
    dispatch_demand: FloatArray  # [N, N] of them going out, a mean over steps and layers
    combine_demand: FloatArray  # [N, N] of them coming back, a mean over steps and layers
    device_load: FloatArray  # [M, N] mean token-expert pairs a step
    requests: int  # distinct requests behind the batches
    positions: int  # distinct token positions behind the batches
    mean_interval: tuple[float, float] | None  # 95 % for the mean step, over requests
    dropped_share: FloatArray  # [B, M] of the token-expert pairs, beyond the experts' capacity
    rerouted_share: FloatArray  # [B, M] of the pairs, to another expert than the trace's
    pre_drop_cv: FloatArray  # [B, M] of the experts' loads, before any capacity

    @property
    def mean_demand(self) -> FloatArray:
        """Bytes between devices both ways, [N, N], a mean over steps and layers."""
        return self.dispatch_demand + self.combine_demand

    @cached_property
    def step_time(self) -> TimeSummary:
        """The whole step."""
        return TimeSummary(self.times.step)

    @cached_property
    def moe_time(self) -> TimeSummary:
        """The MoE layers alone."""
        return TimeSummary(self.times.moe)

    def moe_seconds(self) -> dict[str, float]:
        """Return the seconds of a step's MoE layers: mean, p50, p99, and the means of parts."""
        times, moe = self.times, self.moe_time
        return {
            "moe_s": moe.mean,
            "moe_p50_s": moe.p50,
            "moe_p99_s": moe.p99,
            "dispatch_s": float(times.dispatch.sum(axis=1).mean()),
            "compute_s": float(times.compute.sum(axis=1).mean()),
            "combine_s": float(times.combine.sum(axis=1).mean()),
        }

    def to_frame(self) -> pd.DataFrame:
        """Return a row a batch and layer: the parts in seconds, balance and bytes."""
        import pandas as pd

        batches, layers = self.times.dispatch.shape
        return pd.DataFrame(
            {
                "batch": np.repeat(np.arange(batches), layers),
                "layer": np.tile(np.arange(layers), batches),
                "tokens": np.repeat(self.tokens, layers),
                "dispatch_s": self.times.dispatch.ravel(),
                "compute_s": self.times.compute.ravel(),
                "combine_s": self.times.combine.ravel(),
                "backward_s": self.times.backward.ravel(),
                "network_bound_s": self.times.bound.ravel(),
                "max_over_mean": self.max_over_mean.ravel(),
                "remote_bytes": self.remote_bytes.ravel(),
                "cross_row_bytes": self.cross_row_bytes.ravel(),
                "dropped_share": self.dropped_share.ravel(),
                "rerouted_share": self.rerouted_share.ravel(),
                "pre_drop_cv": self.pre_drop_cv.ravel(),
            }
        )
