"""Which single change of a placement helps most, by the forecast loads: swaps and replica moves.

In every layer and group the hottest device gives one of its experts to a colder device, for a
colder expert of it (a swap), or a colder device drops a replica of an expert that has others and
takes a replica of a hot expert instead (a replica move). For every slot of the hottest device the
best of each kind is a candidate; the best candidates over layers and groups are proposed.

Imbalance is the largest device load over the mean, a mean over layers and, by the groups' weights,
over groups: 1 is perfect. What a move lowers it by is its gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import Cluster
from topomoe.envs.moves import device_slots
from topomoe.topologies.kernel import kernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SlotArray = NDArray[np.int16]
ProposeScratch: TypeAlias = tuple[
    IntArray, SlotArray, IntArray, IntArray, FloatArray, FloatArray, FloatArray, IntArray
]
LEAST_GAIN = 1e-5  # of imbalance: less is not proposed


@dataclass(frozen=True, eq=False)
class Moves:
    """C proposals for each of n placements, best first.

    Attributes:
        layer: int16 [n, C]; -1: there is no such proposal.
        slot: int16 [n, C, 2], the slots written; the second is -1 in a replica move.
        expert: int16 [n, C, 2], what they are to hold.
        gain: float32 [n, C], imbalance saved by the forecast; 0 without a proposal.
        imbalance: float64 [n], of the placements as they are.
    """

    layer: NDArray[np.int16]
    slot: NDArray[np.int16]
    expert: NDArray[np.int16]
    gain: NDArray[np.float32]
    imbalance: NDArray[np.float64]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether there is such a proposal, [n, C]."""
        return np.asarray(self.layer >= 0)


def propose(
    cluster: Cluster,
    slot_expert: NDArray[np.int16],
    forecast: NDArray[np.float32],
    layout: NDArray[Any],
    count: int,
    epoch: NDArray[Any] | None = None,
) -> Moves:
    """Return the ``count`` best moves of each placement.

    No move puts an expert on a device twice or takes an expert's last slot in a group.

    Args:
        cluster: the devices.
        slot_expert: int16 [n, M, S].
        forecast: [T, M, E] expected loads, up to a factor a layer.
        layout: int [n].
        count: C.
        epoch: int [n], the row of ``forecast`` for each; by default T = n, one after another.
    """
    n = len(slot_expert)
    row = np.arange(n) if epoch is None else epoch
    moves = Moves(
        layer=np.full((n, count), -1, dtype=np.int16),
        slot=np.full((n, count, 2), -1, dtype=np.int16),
        expert=np.full((n, count, 2), -1, dtype=np.int16),
        gain=np.zeros((n, count), dtype=np.float32),
        imbalance=np.zeros(n),
    )
    _propose(
        np.require(slot_expert, np.int16, ["C", "W"]),
        np.require(forecast, np.float32, ["C", "W"]),
        np.ascontiguousarray(row, dtype=np.int64),
        np.ascontiguousarray(layout, dtype=np.int64),
        device_slots(cluster),
        np.require(cluster.group_of, np.int16, ["C", "W"]),
        np.require(cluster.weight, np.float64, ["C", "W"]),
        moves.layer,
        moves.slot,
        moves.expert,
        moves.gain,
        moves.imbalance,
    )
    return moves


def apply_moves(
    slot_expert: NDArray[np.int16], moves: Moves, chosen: NDArray[np.int64]
) -> NDArray[np.int16]:
    """Return placements [n, M, S] after move ``chosen`` [n] of each; -1, or no move: unchanged."""
    after = slot_expert.copy()
    rows = np.flatnonzero((chosen >= 0) & moves.valid[np.arange(len(chosen)), chosen])
    picked = chosen[rows]
    layer, slot = moves.layer[rows, picked], moves.slot[rows, picked]
    expert = moves.expert[rows, picked]
    for end in (0, 1):
        has = slot[:, end] >= 0
        after[rows[has], layer[has], slot[has, end]] = expert[has, end]
    return after


@kernel
def _propose(
    slot_expert: SlotArray,
    forecast: NDArray[np.float32],
    row: IntArray,
    layout: IntArray,
    slots: SlotArray,
    group_of: SlotArray,
    weight: FloatArray,
    layer: SlotArray,
    slot: SlotArray,
    expert: SlotArray,
    gain: NDArray[np.float32],
    imbalance: FloatArray,
) -> None:
    """Fill the last five, [n, C] and [n]; slots [V, N, ...] as ``device_slots`` has them."""
    layers, experts = forecast.shape[1], forecast.shape[2]
    scratch = propose_scratch(slots, weight.shape[1], experts, slot_expert.shape[2])
    for n in range(len(slot_expert)):
        v = layout[n]
        for m in range(layers):
            imbalance[n] += propose_layer(
                m,
                layers,
                slot_expert[n, m],
                forecast[row[n], m],
                slots[v],
                group_of[v],
                weight[v],
                scratch,
                layer[n],
                slot[n],
                expert[n],
                gain[n],
            )


@kernel
def propose_scratch(slots: SlotArray, groups: int, experts: int, width: int) -> ProposeScratch:
    """Return what ``propose_layer`` works on; slots [V, N, ...], ``width`` S."""
    devices, most = slots.shape[1], slots.shape[2]
    return (
        np.zeros((groups, experts), dtype=np.int64),  # replicas
        np.zeros((groups, experts, devices * most), dtype=np.int16),  # devices of an expert
        np.full((devices, experts), -1, dtype=np.int64),  # the last call that saw it there
        np.zeros(1, dtype=np.int64),  # calls
        np.zeros(devices),  # load
        np.zeros(devices),  # load with one more replica of an expert
        np.zeros(width),  # load of each slot
        np.zeros(devices, dtype=np.int64),  # devices of a group
    )


@kernel
def propose_layer(
    m: int,
    layers: int,
    held: SlotArray,
    expected: NDArray[np.float32],
    table: SlotArray,
    group: SlotArray,
    share: FloatArray,
    scratch: ProposeScratch,
    layer: SlotArray,
    slot: SlotArray,
    expert: SlotArray,
    gain: NDArray[np.float32],
) -> float:
    """Put layer m's moves among the best [C] and return its part of the imbalance."""
    replicas, holder, stamp, now, load, diluted, part, member = scratch
    devices, most = table.shape
    groups = len(share)
    imbalance = 0.0
    now[0] += 1
    replicas[:] = 0
    for d in range(devices):
        g = group[d]
        for i in range(most):
            s = table[d, i]
            if s < 0 or g < 0 or held[s] < 0:
                continue
            e = held[s]
            holder[g, e, replicas[g, e]] = d
            replicas[g, e] += 1
            stamp[d, e] = now[0]
    for d in range(devices):
        load[d] = 0.0
        for i in range(most):
            s = table[d, i]
            if s < 0 or group[d] < 0:
                break
            e = held[s]
            part[s] = expected[e] / replicas[group[d], e] if e >= 0 else 0.0
            load[d] += part[s]
    for g in range(groups):
        if share[g] <= 0.0:
            continue
        # The three hottest devices: what stays the largest when two of them change.
        hot, second, third, total, members = -1, -1, -1, 0.0, 0
        for d in range(devices):
            if group[d] != g:
                continue
            member[members] = d
            members += 1
            total += load[d]
            if hot < 0 or load[d] > load[hot]:
                hot, second, third = d, hot, second
            elif second < 0 or load[d] > load[second]:
                second, third = d, second
            elif third < 0 or load[d] > load[third]:
                third = d
        if total <= 0.0:
            imbalance += share[g] / layers
            continue
        scale = share[g] * members / (total * layers)
        imbalance += scale * load[hot]
        if members < 2:
            continue
        for i in range(most):
            s = table[hot, i]
            if s < 0 or held[s] < 0:
                continue
            e = held[s]
            given = part[s]
            # A swap.
            best, at = load[hot], -1
            for k in range(members):
                c = member[k]
                if c == hot or stamp[c, e] == now[0]:
                    continue
                rest = second if c != second else third
                other = load[rest] if rest >= 0 else 0.0
                if other >= best:
                    continue
                for j in range(most):
                    t = table[c, j]
                    if t < 0:
                        break
                    if held[t] < 0 or stamp[hot, held[t]] == now[0]:
                        continue
                    change = given - part[t]
                    worst = max(other, load[hot] - change, load[c] + change)
                    if worst < best:
                        best, at = worst, t
            if at >= 0:
                insert(
                    scale * (load[hot] - best),
                    m,
                    s,
                    held[at],
                    at,
                    e,
                    layer,
                    slot,
                    expert,
                    gain,
                )
            # A replica move.
            fewer = expected[e] / (replicas[g, e] + 1)
            for k in range(members):
                diluted[member[k]] = load[member[k]]
            for h in range(replicas[g, e]):
                diluted[holder[g, e, h]] -= given - fewer
            top, next_top = -1, -1
            for k in range(members):
                d = member[k]
                if top < 0 or diluted[d] > diluted[top]:
                    top, next_top = d, top
                elif next_top < 0 or diluted[d] > diluted[next_top]:
                    next_top = d
            best, at = load[hot], -1
            for k in range(members):
                c = member[k]
                if stamp[c, e] == now[0]:
                    continue
                other = diluted[top] if c != top else diluted[next_top]
                if other >= best:
                    continue
                for j in range(most):
                    t = table[c, j]
                    if t < 0:
                        break
                    f = held[t]
                    if f < 0 or replicas[g, f] < 2:
                        continue
                    count = replicas[g, f]
                    worst = max(other, diluted[c] - part[t] + fewer)
                    if worst >= best:
                        continue
                    more = part[t] / (count - 1)
                    for h in range(count):
                        d = holder[g, f, h]
                        if d != c:
                            worst = max(worst, diluted[d] + more)
                    if worst < best:
                        best, at = worst, t
            if at >= 0:
                insert(
                    scale * (load[hot] - best),
                    m,
                    at,
                    e,
                    -1,
                    -1,
                    layer,
                    slot,
                    expert,
                    gain,
                )
    return imbalance


@kernel
def insert(
    value: float,
    m: int,
    first_slot: int,
    first_expert: int,
    second_slot: int,
    second_expert: int,
    layer: NDArray[np.int16],
    slot: NDArray[np.int16],
    expert: NDArray[np.int16],
    gain: NDArray[np.float32],
) -> None:
    """Keep a candidate where it is among the best; of equal ones the first found."""
    count = len(layer)
    if value < LEAST_GAIN or count == 0 or np.float32(value) <= gain[count - 1]:
        return
    at = count - 1
    while at > 0 and gain[at - 1] < np.float32(value):
        layer[at], gain[at] = layer[at - 1], gain[at - 1]
        slot[at] = slot[at - 1]
        expert[at] = expert[at - 1]
        at -= 1
    layer[at], gain[at] = m, value
    slot[at, 0], slot[at, 1] = first_slot, second_slot
    expert[at, 0], expert[at, 1] = first_expert, second_expert
