"""Four synthetic traffic patterns between devices, from exactly uniform to their full strength.

The patterns are those that OptiMoE (NeurIPS 2025 ML for Systems workshop) switches topologies by:
``hotspot`` (5 % of the devices receive 80 % of the bytes), ``uniform`` (all pairs), ``regional``
(95 % of the bytes stay inside their quadrant of the grid) and ``skewed`` (power-law destinations).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError, unknown

PATTERNS = ("hotspot", "uniform", "regional", "skewed")
HOT_DEVICES = 0.05
HOT_SHARE = 0.80
INSIDE_SHARE = 0.95


def pattern_demand(
    name: str,
    grid: tuple[int, int] | int,
    level: float = 1.0,
    total_bytes: float = 1.0,
    rng: np.random.Generator | None = None,
    exponent: float = 1.0,
) -> NDArray[np.float64]:
    """Bytes between every two devices, [N, N], zero diagonal, ``total_bytes`` in all.

    ``grid`` is (rows, columns), or a number of devices that is laid out as square as it can be.
    ``level`` goes from 0 (every pair exactly equal, whatever the pattern) to 1 (the full pattern),
    linear in the bytes of each pair. ``rng`` draws which devices are hot (without one, the first).
    ``exponent`` is that of ``skewed``: the r-th hottest destination weighs r^-exponent.

    Raises InputError for an unknown name, a level outside [0, 1], fewer than two devices, or
    ``regional`` on a grid whose quadrants hold one device each.
    """
    if name not in PATTERNS:
        raise unknown("pattern", name, PATTERNS)
    if not 0 <= level <= 1:
        raise InputError(f"level must be in [0, 1], got {level}")
    if not 0 <= total_bytes < np.inf:
        raise InputError(f"total_bytes must be finite and >= 0, got {total_bytes}")
    if not 0 <= exponent < np.inf:
        raise InputError(f"exponent must be finite and >= 0, got {exponent}")
    rows, columns = _grid(grid)
    devices = rows * columns
    pairs = ~np.eye(devices, dtype=np.bool_)
    ranked = np.arange(devices) if rng is None else rng.permutation(devices)  # hottest first
    uniform = total_bytes * pairs / (devices * (devices - 1))
    if name == "uniform":
        return uniform
    if name == "skewed":
        weight = np.empty(devices)
        weight[ranked] = np.arange(1, devices + 1, dtype=np.float64) ** -exponent
        shape = pairs * weight
        full = total_bytes * shape / shape.sum()
    elif name == "hotspot":
        hot = np.zeros(devices, dtype=np.bool_)
        hot[ranked[: max(1, round(HOT_DEVICES * devices))]] = True
        full = total_bytes * _two_levels(pairs & hot, pairs & ~hot, HOT_SHARE)
    else:
        where = quadrant((rows, columns))
        inside = where[:, None] == where[None, :]
        if not (pairs & inside).any():
            raise InputError(
                f"regional needs quadrants of >= 2 devices, got a {rows}x{columns} grid"
            )
        full = total_bytes * _two_levels(pairs & inside, pairs & ~inside, INSIDE_SHARE)
    return np.asarray((1.0 - level) * uniform + level * full)


def phased_demand(
    grid: tuple[int, int] | int,
    steps: int,
    names: Sequence[str] = PATTERNS,
    phase_steps: int = 15,
    level: float = 1.0,
    total_bytes: float = 1.0,
    rng: np.random.Generator | None = None,
) -> NDArray[np.float64]:
    """Demand of a run that changes pattern every ``phase_steps`` steps, [steps, N, N].

    The patterns take turns in the order of ``names``; each phase draws its hot devices anew.
    Raises InputError as ``pattern_demand`` does, and for fewer than one step.
    """
    if steps < 1 or phase_steps < 1 or not names:
        raise InputError(
            f"steps, phase_steps and the number of names must be >= 1, "
            f"got {steps}, {phase_steps} and {len(names)}"
        )
    phases = [
        pattern_demand(names[p % len(names)], grid, level, total_bytes, rng)
        for p in range(-(-steps // phase_steps))
    ]
    return np.repeat(np.stack(phases), phase_steps, axis=0)[:steps]


def quadrant(grid: tuple[int, int] | int) -> NDArray[np.int64]:
    """Quadrant of every device of a grid, [N], in 0..3; the first half is the larger."""
    rows, columns = _grid(grid)
    row, column = np.divmod(np.arange(rows * columns), columns)
    return 2 * (row >= -(-rows // 2)) + (column >= -(-columns // 2))


def locality(demand: NDArray[np.float64], grid: tuple[int, int] | int) -> NDArray[np.float64]:
    """Share of the bytes between devices that stay inside a quadrant, [..., N, N] -> [...]."""
    where = quadrant(grid)
    if demand.shape[-2:] != (len(where), len(where)):
        raise InputError(f"demand must be [..., {len(where)}, {len(where)}], got {demand.shape}")
    between = demand * ~np.eye(len(where), dtype=np.bool_)
    total = np.asarray(between.sum(axis=(-2, -1)))
    inside = (between * (where[:, None] == where)).sum(axis=(-2, -1))
    return np.asarray(np.divide(inside, total, out=np.zeros(total.shape), where=total > 0))


def _two_levels(
    favoured: NDArray[np.bool_], others: NDArray[np.bool_], share: float
) -> NDArray[np.float64]:
    """Spread ``share`` of one byte evenly over the favoured pairs, the rest over the others."""
    return np.asarray(share * favoured / favoured.sum() + (1 - share) * others / others.sum())


def _grid(grid: tuple[int, int] | int) -> tuple[int, int]:
    if isinstance(grid, int):
        rows = next((r for r in range(isqrt(max(grid, 0)), 0, -1) if grid % r == 0), 0)
        grid = (rows, grid // rows if rows else 0)
    rows, columns = grid
    if rows < 1 or columns < 1 or rows * columns < 2:
        raise InputError(f"grid must hold at least 2 devices, got {rows}x{columns}")
    return rows, columns
