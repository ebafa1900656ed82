"""The tasks of ``topomoe decisions``, and the scenarios that they are on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from topomoe.commands.decisions_settings import MAPPED, QUARTER, DecisionsSettings
from topomoe.envs.scenario import load_scenario
from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.topologies.registry import parse_grid

Rows = list[dict[str, Any]]
Progress = Callable[[int, int], None]
OWN = ("epochs", "test_epochs", "episode_length", "layers", "pool", "synthetic_requests", "seed")


@dataclass(frozen=True)
class Task:
    """What one process does at a time: a part on a scenario, at one point of the part's grid.

    ``steps`` is how often it reports progress.
    """

    part: str
    scenario: str = ""
    phase_epochs: float = 0.0
    redundancy: float = 0.0
    devices: int = 0
    steps: int = 1


def tasks_of(settings: DecisionsSettings) -> list[Task]:
    """Return all tasks, in the order of the results."""
    mapped = [name for name in settings.scenarios if name in MAPPED]
    found: list[Task] = []
    for part in settings.parts:
        if part == "boundary":
            found += [
                Task(part, name, phase, redundancy, steps=len(delays_of(settings, name)))
                for name in mapped
                for redundancy in settings.redundancies
                for phase in settings.phase_lengths
            ]
        elif part == "size":
            devices = settings.scale.devices
            found += [Task(part, name, devices=count) for name in mapped for count in devices]
        elif part == "scale":
            found.append(Task(part, steps=len(settings.scale.devices) * (settings.scale.seeds + 1)))
        else:
            found += [Task(part, name) for name in settings.scenarios]
    return found


def delays_of(settings: DecisionsSettings, scenario: str) -> tuple[float, ...]:
    """Return the delays of a map: epochs of a migration, or seconds of a reconfiguration."""
    return settings.migrations if scenario == "default" else settings.switch_delays


def scenario_of(
    settings: DecisionsSettings, name: str, grid: str = "", **changes: Any
) -> ScenarioSettings:
    """Return a scenario with the study's own trace, timelines and changes.

    On another grid than its own, the layouts of ``pools`` divide that one.
    """
    found = load_scenario(name)
    own = {field: getattr(settings, field) for field in (*OWN, "trace", "model")}
    for field in ("decode_tokens", "prefill_tokens"):
        own[field] = getattr(settings, field) or getattr(found, field)
    grid = grid or settings.grid
    if grid and parse_grid(grid) != parse_grid(found.grid):
        own["grid"] = grid
        if name == "pools":
            own["layouts"] = pool_layouts(*parse_grid(grid))
    return replace(found, **{**own, **changes})


def pool_layouts(rows: int, columns: int) -> tuple[str, ...]:
    """Return prefill groups of a row, or of two, beside a decode group, on any grid.

    >>> pool_layouts(8, 8)[:2]
    ('prefill 4x8 + decode 32', 'prefill 6x8 + decode 16')
    """
    half, quarter = rows // 2, rows // QUARTER
    decode = half * columns
    return (
        f"prefill {half}x{columns} + decode {decode}",
        f"prefill {half + quarter}x{columns} + decode {quarter * columns}",
        f"prefill {quarter}x{2 * columns} + decode {decode}",
        f"prefill {half}x{columns} + decode {decode} scattered",
    )


def seeds_of(settings: DecisionsSettings) -> tuple[int, ...]:
    """Return the seeds of the held-out timelines."""
    return tuple(range(settings.timelines))
