"""What a step costs under any placement of the experts: the kernels behind all tables.

For step q with layout v under topology a and a placement, layer by layer: a device computes
``w[d]``, the sum over its slots of ``counts[g, e] / replicas(g, e)``. Dispatch keeps a link busy
for ``x[l] = sum_d pull[0, d, l] w[d] + sum_b pull[0, N + b, l] background[b]`` seconds, and group g
waits for ``overhead + max_l (x[l] + offset[0, g, l])``; combine alike with direction 1. Compute of
g is the shared expert's seconds and then the slowest device's, which takes
``max(tokens * token_seconds, weight_seconds)`` for every slot with tokens. A layer's part is the
mean over groups by ``cluster.weight``, times ``layer_scale``; layers add up in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topomoe.envs.cluster import PARTS, Cluster, StepPool
from topomoe.envs.codesign_links import packed_links
from topomoe.topologies.errors import InputError
from topomoe.topologies.kernel import exact_kernel, kernel, nan_free_kernel

FloatArray = NDArray[np.float64]
ROWS = 4  # layers whose links are added up together


@dataclass(frozen=True, eq=False)
class StepLoads:
    """What one step puts on each part of the cluster.

    Attributes:
        device_tokens: float32 [M, N], tokens each device computes.
        link_seconds: float32 [2, M, L], seconds each link is busy in dispatch and in combine.
    """

    device_tokens: NDArray[np.float32]
    link_seconds: NDArray[np.float32]


class Tables(NamedTuple):
    """A cluster and a pool as kernels read them; the letters are theirs and ``PackedLinks``'."""

    pull: NDArray[np.float32]
    offset: NDArray[np.float32]
    links: NDArray[np.int64]
    span: NDArray[np.int64]
    group_of: NDArray[np.int16]
    weight: FloatArray
    slot_device: NDArray[np.int16]
    overhead: float
    token_seconds: float
    weight_seconds: float
    layer_scale: float
    counts: NDArray[np.float32]
    background: NDArray[np.float32]
    shared: FloatArray
    other: FloatArray
    layout: NDArray[np.int16]


def tables(cluster: Cluster, pool: StepPool) -> Tables:
    """Return what the kernels read."""
    packed = packed_links(cluster)
    return Tables(
        packed.pull,
        packed.offset,
        packed.links,
        packed.span,
        np.require(cluster.group_of, np.int16, ["C", "W"]),
        np.require(cluster.weight, np.float64, ["C", "W"]),
        np.require(cluster.slot_device, np.int16, ["C", "W"]),
        float(cluster.overhead),
        float(cluster.token_seconds),
        float(cluster.weight_seconds),
        float(cluster.layer_scale),
        np.require(pool.counts, np.float32, ["C", "W"]),
        np.require(pool.background, np.float32, ["C", "W"]),
        np.require(pool.shared, np.float64, ["C", "W"]),
        np.require(pool.other, np.float64, ["C", "W"]),
        np.require(pool.layout, np.int16, ["C", "W"]),
    )


def price_steps(
    cluster: Cluster,
    pool: StepPool,
    steps: NDArray[Any],
    topology: NDArray[Any],
    slot_expert: NDArray[np.int16],
    which: NDArray[Any] | None = None,
) -> FloatArray:
    """Return seconds [4, n] of each step under a topology and a placement of its own.

    The parts are ``PARTS``: dispatch, compute, combine, other. The same step, topology and
    placement give the same bits, whatever else is priced beside them.

    Args:
        cluster: the devices and networks.
        pool: the steps.
        steps: int [n], numbers of steps; or [n, J], J steps under each choice: then [4, n, J].
        topology: int [n].
        slot_expert: int16 [B, M, S], the expert in each slot; -1: none.
        which: int [n], the row of ``slot_expert`` of each; by default B = n, one after another.

    Raises:
        InputError: an array has another shape, or a number is out of range.
    """
    steps = np.asarray(steps)
    rows = np.ascontiguousarray(steps if steps.ndim == 2 else steps[:, None], dtype=np.int64)
    row = np.arange(len(rows)) if which is None else np.ascontiguousarray(which, dtype=np.int64)
    topologies = np.ascontiguousarray(topology, dtype=np.int64)
    _check(cluster, pool, rows, topologies, slot_expert, row)
    slots = np.require(slot_expert, np.int16, ["C", "W"])
    read = tables(cluster, pool)
    layers = np.empty((*rows.shape, slots.shape[1], 3))
    _price_layers(rows, topologies, slots, row, layers, read)
    out = np.empty((len(PARTS), *rows.shape))
    add_layers(rows, layers, read, out)
    return out.reshape(len(PARTS), *steps.shape)


def price_library(cluster: Cluster, pool: StepPool) -> FloatArray:
    """Return seconds [4, Q, A, P] of every step under every configuration of the library."""
    layers = library_layers(cluster, pool)
    steps = np.arange(len(layers))[:, None]
    out = np.empty((len(PARTS), *layers.shape[:3]))
    part = np.empty((len(PARTS), *steps.shape))
    read = tables(cluster, pool)
    for a, p in np.ndindex(*layers.shape[1:3]):
        add_layers(steps, np.ascontiguousarray(layers[:, None, a, p]), read, part)
        out[:, :, a, p] = part[:, :, 0]
    return out


def library_layers(cluster: Cluster, pool: StepPool) -> FloatArray:
    """Return seconds [Q, A, P, M, 3] of each layer: dispatch, compute, combine."""
    placements, layouts, layers, slots = cluster.slot_expert.shape
    shape = (len(pool.layout), placements, len(cluster.topologies))
    step, placement, topology = (axis.ravel() for axis in np.indices(shape))
    which = placement * layouts + pool.layout[step]
    out = np.empty((step.size, 1, layers, 3))
    library = np.ascontiguousarray(cluster.slot_expert).reshape(-1, layers, slots)
    row = np.ascontiguousarray(step[:, None])
    _price_layers(row, topology, library, which, out, tables(cluster, pool))
    return np.ascontiguousarray(out.reshape(*shape, layers, 3).swapaxes(1, 2))


def step_loads(
    cluster: Cluster, pool: StepPool, step: int, topology: int, slot_expert: NDArray[np.int16]
) -> StepLoads:
    """Return what one step puts on devices and links; slot_expert [M, S]."""
    _check(
        cluster, pool, np.array([[step]]), np.array([topology]), slot_expert[None], np.array([0])
    )
    layers, devices = cluster.num_layers, cluster.num_devices
    tokens = np.zeros((layers, devices), dtype=np.float32)
    v, read = int(pool.layout[step]), tables(cluster, pool)
    share = np.empty(slot_expert.shape[1], dtype=np.float32)
    replicas = np.zeros((pool.counts.shape[1], pool.counts.shape[3]), dtype=np.int64)
    for m in range(layers):
        held = np.require(slot_expert[m], np.int16, ["C", "W"])
        slot_shares(held, read.slot_device[v], read.group_of[v], replicas, share)
        layer_tokens(
            np.ascontiguousarray(pool.counts[step, :, m]),
            held,
            share,
            read.slot_device[v],
            read.group_of[v],
            read.token_seconds,
            read.weight_seconds,
            np.empty(devices),
            np.empty(len(replicas)),
            tokens[m],
        )
    sent = np.concatenate([tokens, np.tile(pool.background[step], (layers, 1))], axis=1)
    return StepLoads(tokens, sent @ cluster.pull[v, topology])


def _check(
    cluster: Cluster,
    pool: StepPool,
    steps: NDArray[np.int64],
    topology: NDArray[np.int64],
    slot_expert: NDArray[np.int16],
    which: NDArray[np.int64],
) -> None:
    shape = (cluster.num_layers, cluster.slot_device.shape[1])
    if slot_expert.shape[1:] != shape:
        raise InputError(
            f"slot_expert must have shape [B, {shape[0]}, {shape[1]}], "
            f"got {list(slot_expert.shape)}"
        )
    for name, values, least, count in (
        ("steps", steps, 0, len(pool.layout)),
        ("topology", topology, 0, len(cluster.topologies)),
        ("which", which, 0, len(slot_expert)),
        ("slot_expert", slot_expert, -1, pool.counts.shape[3]),
    ):
        if name in ("topology", "which") and values.shape != (len(steps),):
            raise InputError(f"{name} must have shape [{len(steps)}], got {list(values.shape)}")
        if values.size and not (least <= values.min() and values.max() < count):
            raise InputError(f"{name} must be {least}..{count - 1}")


@kernel
def slot_shares(
    held: NDArray[np.int16],
    slot_device: NDArray[np.int16],
    group_of: NDArray[np.int16],
    replicas: NDArray[np.int64],
    share: NDArray[np.float32],
) -> None:
    """Fill ``share`` [S]: what part of its expert's tokens a slot gets; 0: none.

    ``replicas`` [G, E] is scratch.
    """
    replicas[:] = 0
    for s in range(len(held)):
        share[s] = 0.0
        if slot_device[s] >= 0 and held[s] >= 0 and group_of[slot_device[s]] >= 0:
            replicas[group_of[slot_device[s]], held[s]] += 1
    for s in range(len(held)):
        if slot_device[s] >= 0 and held[s] >= 0 and group_of[slot_device[s]] >= 0:
            share[s] = np.float32(1.0) / np.float32(replicas[group_of[slot_device[s]], held[s]])


@kernel
def layer_tokens(
    counts: NDArray[np.float32],
    held: NDArray[np.int16],
    share: NDArray[np.float32],
    slot_device: NDArray[np.int16],
    group_of: NDArray[np.int16],
    token_seconds: float,
    weight_seconds: float,
    busy: FloatArray,
    slowest: FloatArray,
    tokens: NDArray[np.float32],
) -> None:
    """Fill ``busy`` [N] and ``slowest`` [G], seconds, and the first N of ``tokens``.

    ``counts`` [G, E] are a layer's; ``share`` [S] is of ``slot_shares``.
    """
    for d in range(len(group_of)):
        tokens[d] = 0.0
        busy[d] = 0.0
    for s in range(len(held)):
        if share[s] > 0.0:
            d = slot_device[s]
            part = counts[group_of[d], held[s]] * share[s]
            tokens[d] += part
            if part > 0.0:
                busy[d] += max(part * token_seconds, weight_seconds)
    slowest[:] = 0.0
    for d in range(len(group_of)):
        if group_of[d] >= 0:
            slowest[group_of[d]] = max(slowest[group_of[d]], busy[d])


@kernel
def link_seconds(
    pull: NDArray[np.float32],
    links: int,
    rows: int,
    tokens: NDArray[np.float32],
    seconds: NDArray[np.float32],
) -> None:
    """Fill seconds [rows, links] of [R, L] from pull [D, L] and tokens or bytes [R, D]."""
    for row in range(rows):
        busy = seconds[row]
        for link in range(links):
            busy[link] = 0.0
    # Eight devices at a time: sums are then read and written an eighth as often; for a few rows at
    # a time: what eight devices pull and what the rows add up to then stay close.
    devices = tokens.shape[1]
    whole = devices - devices % 8
    for first in range(0, rows, ROWS):
        last = min(first + ROWS, rows)
        for d in range(0, whole, 8):
            for row in range(first, last):
                busy = seconds[row]
                w0, w1, w2, w3, w4, w5, w6, w7 = tokens[row, d : d + 8]
                if w0 + w1 + w2 + w3 + w4 + w5 + w6 + w7 == 0.0:
                    continue
                for link in range(links):
                    busy[link] += (
                        w0 * pull[d, link]
                        + w1 * pull[d + 1, link]
                        + w2 * pull[d + 2, link]
                        + w3 * pull[d + 3, link]
                        + w4 * pull[d + 4, link]
                        + w5 * pull[d + 5, link]
                        + w6 * pull[d + 6, link]
                        + w7 * pull[d + 7, link]
                    )
        for d in range(whole, devices):
            for row in range(first, last):
                busy = seconds[row]
                one = tokens[row, d]
                if one == 0.0:
                    continue
                for link in range(links):
                    busy[link] += one * pull[d, link]


@nan_free_kernel
def slowest_link(
    seconds: NDArray[np.float32],
    offset: NDArray[np.float32],
    span: NDArray[np.int64],
    weight: FloatArray,
    overhead: float,
) -> float:
    """Return seconds of one direction of a layer, the mean over groups by ``weight`` [G].

    ``span`` [G, 2] is of ``PackedLinks``.
    """
    total = 0.0
    for g in range(len(weight)):
        if weight[g] == 0.0:
            continue
        mine = seconds[span[g, 0] : span[g, 1]]
        late = offset[g, span[g, 0] : span[g, 1]]
        worst = np.float32(0.0)  # a group that uses no link waits for none
        for link in range(len(mine)):
            worst = max(worst, mine[link] + late[link])
        total += weight[g] * (worst + overhead)
    return total


@kernel
def deal(
    v: int,
    q: int,
    m: int,
    held: NDArray[np.int16],
    share: NDArray[np.float32],
    busy: FloatArray,
    slowest: FloatArray,
    tokens: NDArray[np.float32],
    read: Tables,
) -> float:
    """Return compute seconds of layer m of step q; ``share`` [S] is of ``slot_shares``.

    Filled: busy [N] and slowest [G], seconds, and tokens [D] with the background's bytes.
    """
    devices = read.group_of.shape[1]
    layer_tokens(
        read.counts[q, :, m],
        held,
        share,
        read.slot_device[v],
        read.group_of[v],
        read.token_seconds,
        read.weight_seconds,
        busy,
        slowest,
        tokens,
    )
    tokens[devices:] = 0.0
    for kind in range(read.background.shape[1]):
        tokens[devices + kind] = read.background[q, kind]
    computed = 0.0
    for g in range(len(slowest)):
        if read.weight[v, g] > 0.0:
            computed += read.weight[v, g] * (slowest[g] + read.shared[q, g])
    return read.layer_scale * computed


@kernel
def wait(
    v: int,
    a: int,
    rows: int,
    tokens: NDArray[np.float32],
    seconds: NDArray[np.float32],
    read: Tables,
    out: FloatArray,
) -> None:
    """Fill dispatch and combine in out [rows, 3] from tokens [R, D] of ``deal``.

    Filled too: seconds [2, R, L] of the links.
    """
    for direction in range(2):
        links = read.links[v, a, direction]
        link_seconds(read.pull[v, a, direction], links, rows, tokens, seconds[direction])
        for row in range(rows):
            out[row, 2 * direction] = read.layer_scale * slowest_link(
                seconds[direction, row],
                read.offset[v, a, direction],
                read.span[v, a, direction],
                read.weight[v],
                read.overhead,
            )


@kernel
def _price_layers(
    steps: NDArray[np.int64],
    topology: NDArray[np.int64],
    slot_expert: NDArray[np.int16],
    which: NDArray[np.int64],
    out: FloatArray,
    read: Tables,
) -> None:
    """Fill out [n, J, M, 3]."""
    layers, devices = slot_expert.shape[1], read.group_of.shape[1]
    groups, experts = read.counts.shape[1], read.counts.shape[3]
    share = np.empty(slot_expert.shape[2], dtype=np.float32)
    replicas = np.zeros((groups, experts), dtype=np.int64)
    busy, slowest = np.zeros(devices), np.zeros(groups)
    tokens = np.zeros((layers, read.pull.shape[3]), dtype=np.float32)
    seconds = np.zeros((2, layers, read.pull.shape[4]), dtype=np.float32)
    for n in range(len(steps)):
        for j in range(steps.shape[1]):
            q = steps[n, j]
            v = read.layout[q]
            for m in range(layers):
                held = slot_expert[which[n], m]
                slot_shares(held, read.slot_device[v], read.group_of[v], replicas, share)
                out[n, j, m, 1] = deal(v, q, m, held, share, busy, slowest, tokens[m], read)
            wait(v, topology[n], layers, tokens, seconds, read, out[n, j])


@exact_kernel
def add_layers(steps: NDArray[np.int64], layers: FloatArray, read: Tables, out: FloatArray) -> None:
    """Fill out [4, n, J] from layers [n, J, M, 3]: every sum in one order, with the same bits."""
    for n in range(len(steps)):
        for j in range(steps.shape[1]):
            q = steps[n, j]
            for part in range(3):
                out[part, n, j] = 0.0
                for m in range(layers.shape[2]):
                    out[part, n, j] += layers[n, j, m, part]
            other = 0.0
            for g in range(read.weight.shape[1]):
                other += read.weight[read.layout[q], g] * read.other[q, g]
            out[3, n, j] = other
