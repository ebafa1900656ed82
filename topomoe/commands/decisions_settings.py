"""The settings of ``topomoe decisions``."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from topomoe.envs.pattern_scale_settings import ScaleSettings, near_square
from topomoe.topologies import units
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.registry import parse_grid

PARTS = ("boundary", "gains", "queue", "size", "scale")
MAPPED = ("default", "pools")
SCENARIOS = (*MAPPED, "hard")
QUARTER = 4  # rows of a grid are moved between pools by quarters


@dataclass(frozen=True)
class DecisionsSettings:
    """Where switching pays, what brings the gain, and how it grows with the cluster."""

    parts: tuple[str, ...] = PARTS
    """What is studied: boundary (delay x phase length x redundancy), gains (topology, placement and
    routing apart), queue (with and without queue features), size (devices) and scale (OptiMoE's
    table)."""
    scenarios: tuple[str, ...] = SCENARIOS
    """Scenarios of gains and queue; boundary and size take default and pools of them."""
    trace: str = ""
    """Routing trace: folder, .npz file or bundled name; empty: a synthetic one of the model."""
    model: str = ""
    """Model preset; empty: the one the trace matches, deepseek-v2-lite without a trace."""
    grid: str = ""
    """Devices as rows x columns, 4, 8, 12 ... rows; empty: the scenario's own."""
    phase_lengths: tuple[float, ...] = (4.0, 12.0, 48.0)
    """boundary: mean epochs of a phase; layouts last proportionally longer or shorter."""
    redundancies: tuple[float, ...] = (1.0, 2.0)
    """boundary: expert slots over experts, rounded up to whole slots a device."""
    migrations: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0)
    """boundary of default: epochs that moving from one placement to another lasts on average."""
    switch_delays: tuple[units.Seconds, ...] = (1e-5, 0.025, 0.069, 0.3, 1.0, 5.739)
    """boundary of pools: reconfiguration delays, from a rotor's to a NIC's bring-up."""
    epochs: int = 1500
    """Epochs of the training timelines."""
    test_epochs: int = 600
    """Epochs of the validation timelines and of each held-out one."""
    episode_length: int = 50
    """Epochs an episode."""
    timelines: int = 3
    """Held-out timelines, with seeds 0, 1, ..."""
    layers: int = 4
    """MoE layers tabulated; 0: all."""
    pool: int = 16
    """Steps tabulated for each kind of epoch."""
    decode_tokens: int = 0
    """Tokens a device in a decode step; 0: the scenario's own."""
    prefill_tokens: int = 0
    """Tokens a device in a prefill step; 0: the scenario's own."""
    synthetic_requests: int = 240
    """Requests of the synthetic trace (without --trace)."""
    seed: int = 0
    """Seed of every random draw of the scenarios and learners."""
    scale: ScaleSettings = field(default_factory=ScaleSettings)
    """OptiMoE's table; its devices are also those of size."""

    def __post_init__(self) -> None:
        """Check what the scenarios cannot; InputError names the field."""
        for name, choices in (("parts", PARTS), ("scenarios", SCENARIOS)):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(f"{name} must name one or more different ones, got {list(values)}")
            for value in values:
                if value not in choices:
                    raise unknown(name.removesuffix("s"), value, choices)
        for name, least in (
            ("phase_lengths", 1.0),
            ("redundancies", 1.0),
            ("migrations", 0.0),
            ("switch_delays", 0.0),
        ):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise InputError(f"{name} must hold one or more different values")
            for value in values:
                if not least <= value < inf:
                    raise InputError(f"{name} must be >= {least:g} and finite, got {value}")
        for name in ("decode_tokens", "prefill_tokens"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.timelines < 1:
            raise InputError(f"timelines must be >= 1, got {self.timelines}")
        if self.test_epochs < 2 * self.episode_length:
            raise InputError(
                f"test_epochs must hold two episodes of {self.episode_length} epochs, one to "
                f"choose what learners do and one to choose among agents, got {self.test_epochs}"
            )
        if self.grid:
            _check_rows(parse_grid(self.grid)[0], "grid", self.grid)
        if "size" in self.parts:
            for devices in self.scale.devices:
                _check_rows(near_square(devices)[0], "devices", devices)


def _check_rows(rows: int, name: str, given: object) -> None:
    if rows % QUARTER:
        raise InputError(f"{name} must make a grid of {QUARTER}, 8, 12 ... rows, got {given}")
