"""What placements are expected to cost: the forecast as tokens, priced layer by layer.

Loads alone do not say whether a move pays where links bind: two devices with equal loads may be
near or far. So proposals are ranked by what the forecast, at the pool's usual numbers of tokens
and bytes, takes under them on the topology that is set. A move changes tokens on a few devices of
one layer: what these put on the links is added to what the layer put there before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import CoDesignProblem, StepPool
from topomoe.envs.proposals import Moves
from topomoe.envs.step_price import Tables, deal, slot_shares, slowest_link, tables, wait
from topomoe.topologies.kernel import kernel

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SlotArray = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class ForecastPrice:
    """Forecasts as steps, step by row.

    Attributes:
        read: the cluster and the forecasts.
        target_seconds: float64 [R, A], MoE seconds under each forecast's rebalance as the balancer
            lists devices; NaN until first asked for.
    """

    read: Tables
    target_seconds: FloatArray

    @classmethod
    def of(cls, problem: CoDesignProblem, row: IntArray, layout: IntArray) -> ForecastPrice:
        """Return the forecasts of epochs ``row`` [R], each under a layout [R]."""
        cluster, pool = problem.cluster, problem.pool
        tokens = pool.counts.sum(axis=3)
        usual = np.zeros((len(cluster.layouts), *tokens.shape[1:]), dtype=np.float32)
        sent = np.zeros((len(cluster.layouts), pool.background.shape[1]), dtype=np.float32)
        for v in np.unique(pool.layout):
            usual[v] = tokens[pool.layout == v].mean(axis=0)
            sent[v] = pool.background[pool.layout == v].mean(axis=0)
        load = problem.forecast[row]
        total = np.maximum(load.sum(axis=2, keepdims=True), np.finfo(np.float32).tiny)
        none = np.zeros((len(row), tokens.shape[1]))
        expected = StepPool(
            counts=(load / total)[:, None] * usual[layout][..., None],
            background=sent[layout],
            shared=none,
            other=none,
            layout=layout.astype(np.int16),
            context=np.zeros(len(row), dtype=np.int16),
        )
        unknown = np.full((len(row), len(cluster.topologies)), np.nan)
        return cls(tables(cluster, expected), unknown)

    def ranked(
        self,
        row: IntArray,
        topology: IntArray,
        slots: SlotArray,
        moves: Moves,
        target: SlotArray,
    ) -> tuple[Moves, FloatArray]:
        """Return the moves, those that save most first, and what rebalancing saves [n].

        Their ``gain`` is the share of the placement's seconds that they save; it may be negative.
        ``target`` [R, M, S] holds every row's rebalance.
        """
        best = Moves(
            layer=np.full_like(moves.layer, -1),
            slot=np.full_like(moves.slot, -1),
            expert=np.full_like(moves.expert, -1),
            gain=np.zeros_like(moves.gain),
            imbalance=moves.imbalance,
        )
        saved = np.empty(len(row))
        _rank(
            row,
            topology,
            slots,
            (moves.layer, moves.slot, moves.expert),
            target,
            self.target_seconds,
            self.read,
            (best.layer, best.slot, best.expert, best.gain),
            saved,
        )
        return best, saved


@kernel
def _rank(
    row: IntArray,
    topology: IntArray,
    slots: SlotArray,
    moves: tuple[SlotArray, SlotArray, SlotArray],
    target: SlotArray,
    target_seconds: FloatArray,
    read: Tables,
    best: tuple[SlotArray, SlotArray, SlotArray, NDArray[np.float32]],
    saved: FloatArray,
) -> None:
    """Fill the four of ``best``, [n, C, ...], from the three of ``moves``, and ``saved`` [n]."""
    layer, slot, expert = moves
    layers, count = slots.shape[1], layer.shape[1]
    devices, groups = read.group_of.shape[1], read.counts.shape[1]
    share = np.empty((layers, slots.shape[2]), dtype=np.float32)
    replicas = np.zeros((layers, groups, read.counts.shape[3]), dtype=np.int64)
    busy, slowest = np.zeros((layers, devices)), np.zeros((layers, groups))
    busy_after = np.zeros(devices)
    tokens = np.zeros((layers, read.pull.shape[3]), dtype=np.float32)
    seconds = np.zeros((2, layers, read.pull.shape[4]), dtype=np.float32)
    after, change = np.zeros(seconds.shape[2], dtype=np.float32), np.zeros_like(tokens[0])
    part, less, order = np.zeros((layers, 3)), np.zeros(count), np.zeros(count, dtype=np.int64)
    for n in range(len(row)):
        q, a = row[n], topology[n]
        v = read.layout[q]
        device, group = read.slot_device[v], read.group_of[v]
        before = 0.0
        for plan in range(2):  # the rebalance, where it is not known yet; then what is held
            if plan == 0 and not np.isnan(target_seconds[q, a]):
                continue
            every = target[q] if plan == 0 else slots[n]
            for m in range(layers):
                slot_shares(every[m], device, group, replicas[m], share[m])
                part[m, 1] = deal(v, q, m, every[m], share[m], busy[m], slowest[m], tokens[m], read)
            wait(v, a, layers, tokens, seconds, read, part)
            before = 0.0
            for m in range(layers):
                before += part[m, 0] + part[m, 1] + part[m, 2]
            if plan == 0:
                target_seconds[q, a] = before
        for c in range(count):
            m = layer[n, c]
            if m < 0:
                continue
            g = group[device[slot[n, c, 0]]]
            change[:] = 0.0
            busy_after[:] = busy[m]
            move_tokens(
                read.counts[q, g, m],
                slots[n, m],
                share[m],
                replicas[m, g],
                device,
                group,
                slot[n, c],
                expert[n, c, 0],
                read.token_seconds,
                read.weight_seconds,
                change,
                busy_after,
            )
            here = part[m, 0] + part[m, 1] + part[m, 2]
            less[c] = here - _seconds_after(
                v, a, q, g, change, busy_after, slowest[m], seconds[:, m], after, read
            )
        valid = 0
        for c in range(count):  # by what they save; of equal ones the first stays first
            if layer[n, c] < 0:
                continue
            at = valid
            while at > 0 and less[order[at - 1]] < less[c]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = c
            valid += 1
        for at in range(valid):
            c = order[at]
            best[0][n, at] = layer[n, c]
            best[1][n, at] = slot[n, c]
            best[2][n, at] = expert[n, c]
            best[3][n, at] = less[c] / before
        saved[n] = 1.0 - target_seconds[q, a] / before


@kernel
def move_tokens(
    counts: NDArray[np.float32],
    held: SlotArray,
    share: NDArray[np.float32],
    replicas: IntArray,
    device: SlotArray,
    group: SlotArray,
    slot: SlotArray,
    gained: int,
    token_seconds: float,
    weight_seconds: float,
    change: NDArray[np.float32],
    busy: FloatArray,
) -> None:
    """Add what a move changes to tokens ``change`` and seconds ``busy`` of devices.

    ``counts`` and ``replicas`` [E] are the group's; slot [2] and ``gained``, what the first is to
    hold, are a move's.
    """
    first, second = slot
    lost = held[first]
    g = group[device[first]]
    one = np.float32(1.0)
    for s in range(len(held)):
        e = held[s]
        if e != lost and e != gained:
            continue
        if share[s] == 0.0 or group[device[s]] != g or (second >= 0 and s != first and s != second):
            continue
        tokens = counts[e] * share[s]
        if second >= 0:
            other = first if s == second else second
            now = counts[held[other]] * share[other]
        elif s == first:
            now = counts[gained] * (one / np.float32(replicas[gained] + 1))
        elif e == gained:
            now = counts[e] * (one / np.float32(replicas[e] + 1))
        else:
            now = counts[e] * (one / np.float32(replicas[e] - 1))
        change[device[s]] += now - tokens
        if tokens > 0.0:
            busy[device[s]] -= max(tokens * token_seconds, weight_seconds)
        if now > 0.0:
            busy[device[s]] += max(now * token_seconds, weight_seconds)


@kernel
def _seconds_after(
    v: int,
    a: int,
    q: int,
    g: int,
    change: NDArray[np.float32],
    busy: FloatArray,
    slowest: FloatArray,
    seconds: NDArray[np.float32],
    after: NDArray[np.float32],
    read: Tables,
) -> float:
    """Return seconds of a layer after a move in group g that changes tokens by ``change`` [D].

    ``busy`` [N] is after the move; ``slowest`` [G] and ``seconds`` [2, L] are before it; ``after``
    [L] is scratch.
    """
    worst = 0.0
    for d in range(len(busy)):
        if read.group_of[v, d] == g:
            worst = max(worst, busy[d])
    total = 0.0
    for other in range(len(slowest)):
        if read.weight[v, other] > 0.0:
            computed = worst if other == g else slowest[other]
            total += read.weight[v, other] * (computed + read.shared[q, other])
    for direction in range(2):
        links, pull = read.links[v, a, direction], read.pull[v, a, direction]
        before = seconds[direction]
        for link in range(links):
            after[link] = before[link]
        for d in range(len(busy)):
            if change[d] != 0.0:
                more = change[d]
                for link in range(links):
                    after[link] += more * pull[d, link]
        total += slowest_link(
            after,
            read.offset[v, a, direction],
            read.span[v, a, direction],
            read.weight[v],
            read.overhead,
        )
    return read.layer_scale * total
