"""How few bytes can cross between rows of devices, whatever the placement and replica routing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.model import MoEModel, model_preset
from topomoe.placement.registry import check_slots
from topomoe.routing_trace import RoutingTrace
from topomoe.stats import co_activation
from topomoe.topologies.errors import InputError, unknown

FloatArray = NDArray[np.float64]
MOST_EXPERTS = 128  # above it the linear program takes seconds a layer


def least_cross_row_bytes(
    trace: RoutingTrace,
    grid: tuple[int, int],
    slots: int,
    model: str | MoEModel,
    copies: str = "device",
) -> NDArray[np.float64]:
    """Return the bytes [M] that a token must send across rows, there and back, on average.

    For tokens of the trace that start on any device with equal chance; no placement on S slots,
    balanced or not, and no choice of replicas sends fewer. ``copies``: one a destination device, or
    one an ``expert``, where nothing is saved below and the bound is what rows cannot hold.

    Write R for rows, N for devices, s = S/N, p_e for the share of tokens that choose e, p_ef for
    those that choose both. A placement has k_e slots of e, in c_e of the rows.

    - Of a token that starts in row r, count the chosen experts that r lacks: by expectation over r
      u = sum p_e (1 - c_e/R), where 1 <= c_e <= min(k_e, R) and sum k_e = S.
    - Each is served in another row, where a device that serves x of them saves x - 1 <= x(x-1)/2
      copies, at most one for each two experts that share the device. Let y_ef be 1 where some
      device holds both e and f, else 0. The expected saving is at most sum p_ef z_ef, where z_ef,
      y_ef times the share of rows that lack both, is at most 1 - c_e/R, 1 - c_f/R and, as c >= 1,
      (1 - 1/R) y_ef. A slot has s - 1 neighbours, so that sum_f y_ef <= (s - 1) k_e.
    - A device serves at most s of them: the saving is at most (1 - 1/s) u.

    The least u - saving under these linear constraints, whole numbers not asked for, is a linear
    program (HiGHS); every placement is a point of it. Beyond MOST_EXPERTS the two are bounded
    apart: u by the slots that remain going to the experts of largest p, the saving by (1 - 1/R)
    times the Ns(s-1)/2 largest p_ef. Bytes are copies times those of a dispatched
    and a combined copy. Raises InputError as ``place`` does for slots that do not fit.
    """
    rows, columns = grid
    if copies not in ("device", "expert"):
        raise unknown("copies", copies, ("device", "expert"))
    if min(grid) < 1:
        raise InputError(f"grid must be rows x columns >= 1, got {rows}x{columns}")
    devices, experts = rows * columns, trace.num_experts
    check_slots(experts, devices, slots)
    if rows == 1 or slots // devices >= experts:
        return np.zeros(trace.num_layers)
    per_device = slots // devices
    shape = model_preset(model)
    bound = np.empty(trace.num_layers)
    for layer in range(trace.num_layers):
        counts = co_activation(trace, layer)[0] / trace.num_positions
        chosen, together = np.diagonal(counts).copy(), np.triu(counts, 1)
        if per_device == 1 or copies == "expert":
            together[:] = 0.0
        bound[layer] = (_program if experts <= MOST_EXPERTS else _apart)(
            chosen, together, rows, devices, slots
        )
    return np.asarray(bound * (shape.dispatch_bytes + shape.combine_bytes))


def _apart(chosen: FloatArray, together: FloatArray, rows: int, devices: int, slots: int) -> float:
    """Return the least copies a token, what rows lack and what devices save bounded apart."""
    per_device = slots // devices
    spare = float(slots - len(chosen))
    lacked = 0.0
    for p in np.sort(chosen)[::-1]:
        extra = min(rows - 1.0, spare)
        spare -= extra
        lacked += p * (1.0 - (1.0 + extra) / rows)
    couples = devices * per_device * (per_device - 1) // 2
    saved = (1.0 - 1.0 / rows) * float(np.sort(together[together > 0])[::-1][:couples].sum())
    return max(lacked - saved, lacked / per_device)


def _program(
    chosen: FloatArray, together: FloatArray, rows: int, devices: int, slots: int
) -> float:
    """Return the least copies a token by the linear program; columns c [E], k [E], z, saving."""
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, csr_array, vstack

    experts, per_device = len(chosen), slots // devices
    first, second = np.nonzero(together)
    pairs = len(first)
    e, at = np.arange(experts), np.arange(pairs)
    c, k, z, saving = e, experts + e, 2 * experts + at, 2 * experts + pairs
    room = -(1.0 - 1.0 / rows) * (per_device - 1)
    entries = [(e, c, 1.0), (e, k, -1.0), (experts + e, k, room)]
    for i, end in enumerate((first, second)):
        z_row = experts * 2 + i * pairs + at
        entries += [(experts + end, z, 1.0), (z_row, z, 1.0), (z_row, c[end], 1.0 / rows)]
    height = 2 * experts + 2 * pairs
    value = np.concatenate([np.full(len(row), number) for row, _, number in entries])
    where = tuple(np.concatenate([entry[i] for entry in entries]) for i in (0, 1))
    kept = 1.0 - 1.0 / per_device
    by_pair, by_device, total = np.zeros((3, saving + 1))
    by_pair[saving], by_pair[z] = 1.0, -together[first, second]
    by_device[saving], by_device[c] = 1.0, kept * chosen / rows
    total[k] = 1.0
    cost = np.zeros(saving + 1)
    cost[c], cost[saving] = -chosen / rows, -1.0
    main = coo_array((value, where), shape=(height, saving + 1))
    last = coo_array(np.stack([by_pair, by_device]))
    above: Any = vstack([main, last]).tocsr()
    equal: Any = csr_array(total[None])
    found = linprog(
        cost,
        A_ub=above,
        b_ub=np.concatenate(
            [np.zeros(2 * experts), np.ones(2 * pairs), [0.0, kept * chosen.sum()]]
        ),
        A_eq=equal,
        b_eq=[float(slots)],
        bounds=[(1.0, rows)] * experts + [(1.0, devices)] * experts + [(0.0, 1.0)] * pairs
        + [(0.0, None)],
        method="highs",
    )  # fmt: skip
    return max(0.0, float(chosen.sum() + found.fun))
