"""The settings of a switching scenario: fabric, traffic over time, what rewiring costs."""

from __future__ import annotations

from dataclasses import dataclass

from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.reconfiguration import DELAYS

LIBRARIES = ("wirings", "fabrics")


@dataclass(frozen=True)
class ScenarioSettings:
    """A cluster whose request mix moves between long prompts and long answers.

    Prompts run as prefill in one expert-parallel group a row of the grid, answers as decode in one
    group of all devices. An epoch holds steps of both, in proportion to its mix.
    """

    trace: str = ""
    """Folder of routing traces (.npz); empty: the synthetic trace of the model."""
    model: str = ""
    """Model preset; empty: the one the trace matches, deepseek-v3 without a trace."""
    grid: str = "16x8"
    """Devices as rows x columns."""
    library: str = "wirings"
    """wirings of one optical fabric, or fabrics that no switch turns into each other (marked
    hypothetical)."""
    configurations: tuple[str, ...] = (
        "mesh",
        "torus",
        "torus-twist-4",
        "torus-twist-8",
        "rows",
        "expander",
    )
    """The library: wirings, or topology names with library fabrics."""
    delay: str = "mems-control"
    """Reconfiguration delay: plzt, siph, rotor, mems, mems-control or nic-bring-up."""
    bandwidth: units.Bandwidth = 50e9
    """Bytes/s (or 400Gbps) that leave a device, split over circuits and base."""
    latency: units.Seconds = 1e-6
    """Latency of a link."""
    base_share: float = 0.1
    """Share of the bandwidth that the fabric gives its electrical base."""
    ports: int = 4
    """Circuit ports a device."""
    prefill_tokens: int = 4096
    """Tokens a prefill step of one row."""
    decode_tokens: int = 8192
    """Tokens a decode step of all devices."""
    layers: int = 8
    """MoE layers tabulated, evenly spaced over the model's; 0: all."""
    pool: int = 32
    """Steps of each phase tabulated; epochs draw from them."""
    epoch_steps: int = 4
    """Steps an epoch."""
    epochs: int = 1600
    """Epochs of the training timeline, and of the held-out one."""
    episode_length: int = 100
    """Epochs an episode."""
    phase_epochs: float = 12.0
    """Mean epochs that a mix of mostly prompts or mostly answers lasts."""
    synthetic_requests: int = 96
    """Requests of the synthetic trace (without --trace)."""
    seed: int = 0
    """Seed of every random draw."""

    def __post_init__(self) -> None:
        """Check every field; InputError names the field and what it must be."""
        if self.library not in LIBRARIES:
            raise unknown("library", self.library, LIBRARIES)
        if self.delay not in DELAYS:
            raise unknown("reconfiguration delay", self.delay, DELAYS)
        if len(set(self.configurations)) != len(self.configurations) or not self.configurations:
            raise InputError("configurations must name one or more different configurations")
        for name in (
            "prefill_tokens",
            "decode_tokens",
            "pool",
            "epoch_steps",
            "epochs",
            "episode_length",
            "ports",
            "synthetic_requests",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be >= 1, got {getattr(self, name)}")
        for name in ("layers", "seed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.episode_length > self.epochs:
            raise InputError(
                f"episode_length must be <= epochs, got {self.episode_length} and {self.epochs}"
            )
        if not self.phase_epochs >= 1:
            raise InputError(f"phase_epochs must be >= 1, got {self.phase_epochs}")
        if not 0 < self.base_share < 1:
            raise InputError(f"base_share must be in (0, 1), got {self.base_share}")
