"""What is proposed to placements before an epoch: moves, and what a rebalance would ship.

All of it is layer by layer, and most layers of most copies are those of a library placement: what
is proposed to these is worked out once for every forecast, when it is first asked for, and kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import Cluster
from topomoe.envs.moves import align_layer, align_scratch, count_received, device_slots
from topomoe.envs.proposals import Moves, insert, propose_layer, propose_scratch
from topomoe.topologies.kernel import kernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SlotArray = NDArray[np.int16]


class Known(NamedTuple):
    """What has been worked out for layer m of library placement p and forecast row r.

    Attributes:
        filled: bool [R, P, M]; the rest holds nothing where this is false.
        slot: int16 [R, P, M, C, 2], the layer's moves as in ``Moves``, best first.
        expert: int16 [R, P, M, C, 2].
        gain: float32 [R, P, M, C], of imbalance; 0: no such move.
        imbalance: float64 [R, P, M], the layer's part.
        received: uint8 [R, P, M, N], experts that each device receives in a rebalance.
    """

    filled: NDArray[np.bool_]
    slot: SlotArray
    expert: SlotArray
    gain: NDArray[np.float32]
    imbalance: FloatArray
    received: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Plans:
    """What proposals depend on.

    Attributes:
        cluster: the devices and the library.
        forecast: float32 [R, M, E], expected loads by row.
        layout: int64 [R].
        target: int16 [R, M, S], the rebalance that each row asks for.
        count: C.
        known: what has been worked out so far.
    """

    cluster: Cluster
    forecast: NDArray[np.float32]
    layout: IntArray
    target: SlotArray
    count: int
    known: Known

    @classmethod
    def of(
        cls,
        cluster: Cluster,
        forecast: NDArray[np.float32],
        layout: IntArray,
        target: SlotArray,
        count: int,
    ) -> Plans:
        """Return plans of which nothing is worked out yet."""
        shape = (len(layout), len(cluster.placements), cluster.num_layers)
        known = Known(
            filled=np.zeros(shape, dtype=np.bool_),
            slot=np.empty((*shape, count, 2), dtype=np.int16),
            expert=np.empty((*shape, count, 2), dtype=np.int16),
            gain=np.empty((*shape, count), dtype=np.float32),
            imbalance=np.empty(shape),
            received=np.empty((*shape, cluster.num_devices), dtype=np.uint8),
        )
        return cls(cluster, forecast, layout, target, count, known)

    def proposed(self, row: IntArray, base: IntArray, slots: SlotArray) -> tuple[Moves, FloatArray]:
        """Return the best moves by imbalance, and the seconds [n] that a rebalance ships for.

        Args:
            row: int64 [n].
            base: int64 [n], the library placement chosen last.
            slots: int16 [n, M, S].
        """
        n, count, cluster = len(row), self.count, self.cluster
        moves = Moves(
            layer=np.full((n, count), -1, dtype=np.int16),
            slot=np.full((n, count, 2), -1, dtype=np.int16),
            expert=np.full((n, count, 2), -1, dtype=np.int16),
            gain=np.zeros((n, count), dtype=np.float32),
            imbalance=np.zeros(n),
        )
        most = np.zeros(n, dtype=np.int64)
        _plan(
            row,
            base,
            slots,
            self.layout,
            self.forecast,
            self.target,
            cluster.slot_expert,
            device_slots(cluster),
            cluster.group_of,
            cluster.weight,
            self.known,
            (moves.layer, moves.slot, moves.expert, moves.gain, moves.imbalance),
            most,
        )
        pair = cluster.expert_bytes * cluster.layer_scale / (cluster.nic * cluster.migration_share)
        return moves, np.asarray(most * pair, dtype=np.float64)


@kernel
def same_slots(first: SlotArray, second: SlotArray) -> bool:
    """Return whether two rows of slots [S] hold the same."""
    same = True
    for s in range(len(first)):
        if first[s] != second[s]:
            same = False
            break
    return same


@kernel
def _plan(
    row: IntArray,
    base: IntArray,
    slots: SlotArray,
    layout: IntArray,
    forecast: NDArray[np.float32],
    target: SlotArray,
    library: SlotArray,
    tables: SlotArray,
    group_of: SlotArray,
    weight: FloatArray,
    known: Known,
    moves: tuple[SlotArray, SlotArray, SlotArray, NDArray[np.float32], FloatArray],
    most: IntArray,
) -> None:
    """Fill the five of ``moves``, [n, C, ...] and [n], and the experts received ``most`` [n]."""
    layers, width = slots.shape[1:]
    devices, count = group_of.shape[1], known.gain.shape[3]
    propose_on = propose_scratch(tables, weight.shape[1], forecast.shape[2], width)
    align_on = align_scratch(devices, tables.shape[2], forecast.shape[2])
    received, ours = np.zeros(devices, dtype=np.int64), np.zeros(devices, dtype=np.int64)
    aligned = np.empty(width, dtype=np.int16)
    own_layer, own_slot = np.empty(count, dtype=np.int16), np.empty((count, 2), dtype=np.int16)
    own_expert, own_gain = np.empty_like(own_slot), np.empty(count, dtype=np.float32)
    layer, slot, expert, gain, imbalance = moves
    for n in range(len(row)):
        r, p = row[n], base[n]
        v = layout[r]
        received[:] = 0
        for m in range(layers):
            held = slots[n, m]
            kept = same_slots(held, library[p, v, m])
            if not (kept and known.filled[r, p, m]):
                if count > 0:
                    own_gain[:] = 0.0
                uneven = propose_layer(
                    m,
                    layers,
                    held,
                    forecast[r, m],
                    tables[v],
                    group_of[v],
                    weight[v],
                    propose_on,
                    own_layer,
                    own_slot,
                    own_expert,
                    own_gain,
                )
                align_layer(target[r, m], held, tables[v], group_of[v], align_on, aligned)
                ours[:] = 0
                count_received(held, aligned, tables[v], ours)
                if kept:
                    known.slot[r, p, m] = own_slot
                    known.expert[r, p, m] = own_expert
                    known.gain[r, p, m] = own_gain
                    known.imbalance[r, p, m] = uneven
                    for d in range(devices):
                        known.received[r, p, m, d] = ours[d]
                    known.filled[r, p, m] = True
            else:
                own_slot[:] = known.slot[r, p, m]
                own_expert[:] = known.expert[r, p, m]
                own_gain[:] = known.gain[r, p, m]
                uneven = known.imbalance[r, p, m]
                for d in range(devices):
                    ours[d] = known.received[r, p, m, d]
            imbalance[n] += uneven
            for d in range(devices):
                received[d] += ours[d]
            for c in range(count):
                if own_gain[c] <= 0.0:
                    break
                insert(
                    own_gain[c],
                    m,
                    own_slot[c, 0],
                    own_expert[c, 0],
                    own_slot[c, 1],
                    own_expert[c, 1],
                    layer[n],
                    slot[n],
                    expert[n],
                    gain[n],
                )
        most[n] = received.max()
