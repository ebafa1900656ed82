"""Where copies of a co-design episode stand: at its start, and stored to go on later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.envs.codesign_task import CoDesignTask
from topomoe.envs.proposals import Moves
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SlotArray = NDArray[np.int16]
BoolArray = NDArray[np.bool_]
Rows = TypeVar("Rows")
# What the rest of a state follows from.
STORED = (
    "start",
    "done",
    "topology",
    "base",
    "moved",
    "returned",
    "layout",
    "slot_expert",
    "average",
    "own",
)


@dataclass(frozen=True, eq=False)
class CoDesignState:
    """Where n copies stand.

    Attributes:
        start: int64 [n], first epoch of each episode on the timeline.
        done: int64 [n], epochs of the episode that are over.
        topology: int64 [n].
        base: int64 [n], the library placement chosen last.
        moved: bool [n], whether moves or a rebalance have led away from it.
        returned: bool [n], whether a change of layout has just taken them back to it.
        layout: int64 [n], the devices' layout as far as it is known.
        slot_expert: int16 [n, M, S], the placement, in that layout.
        average: float64 [n, K], moving average of the library's costs / scale.
        own: float64 [n], cost of the last epoch as it ran / scale.
        moves: the proposals for the coming epoch.
        target_gain: float64 [n], share of a step's MoE seconds that rebalancing would save by the
            forecast, on devices in the balancer's order.
        target_share: float64 [n], share of an epoch that it would take.
    """

    start: IntArray
    done: IntArray
    topology: IntArray
    base: IntArray
    moved: BoolArray
    returned: BoolArray
    layout: IntArray
    slot_expert: SlotArray
    average: FloatArray
    own: FloatArray
    moves: Moves
    target_gain: FloatArray
    target_share: FloatArray


def begin(task: CoDesignTask, start: ArrayLike) -> CoDesignState:
    """Return n copies at the start of the episodes whose first epochs are ``start`` [n].

    Raises:
        InputError: an episode does not lie within the timeline.
    """
    switching = task.problem.switching
    first = np.atleast_1d(np.asarray(start, dtype=np.int64))
    last = switching.num_epochs - switching.episode_length
    if first.size and (first.min() < 0 or first.max() > last):
        raise InputError(f"an episode's first epoch must be 0..{last}, got {first.tolist()}")
    n = first.size
    prior = switching.prior / switching.scale
    topology, base = divmod(task.start, switching.num_placements)
    bases = np.full(n, base, dtype=np.int64)
    topologies = np.full(n, topology, dtype=np.int64)
    slots = task.library_slots(first, bases)
    layout = task.of_epoch[first]
    return CoDesignState(
        start=first,
        done=np.zeros(n, dtype=np.int64),
        topology=topologies,
        base=bases,
        moved=np.zeros(n, dtype=np.bool_),
        returned=np.zeros(n, dtype=np.bool_),
        layout=layout,
        slot_expert=slots,
        average=np.tile(prior[task.columns], (n, 1)),
        own=np.full(n, prior[task.start]),
        **plans(task, first, topologies, bases, layout, slots),
    )


def put_rows(into: Rows, rows: BoolArray, fresh: Rows) -> None:
    """Write the copies ``fresh`` over those of ``rows`` [n] of a state, in place."""
    assert is_dataclass(into)
    for field in fields(into):
        mine, theirs = getattr(into, field.name), getattr(fresh, field.name)
        if is_dataclass(mine):
            put_rows(mine, rows, theirs)
        else:
            mine[rows] = theirs


def stored(state: CoDesignState) -> dict[str, NDArray[Any]]:
    """Return what a state follows from, by name, for ``resumed``."""
    return {name: getattr(state, name).copy() for name in STORED}


def resumed(task: CoDesignTask, arrays: Mapping[str, NDArray[Any]], copies: int) -> CoDesignState:
    """Return the state that ``stored`` gave.

    Raises:
        InputError: this is not the state of so many copies of this problem.
    """
    switching, cluster = task.problem.switching, task.problem.cluster
    if set(arrays) != set(STORED):
        raise InputError(f"the copies' state must hold {list(STORED)}")
    like = begin(task, np.zeros(copies, dtype=np.int64))
    given = {name: np.array(arrays[name]) for name in STORED}
    for name, array in given.items():
        wanted = getattr(like, name)
        if array.dtype != wanted.dtype or array.shape != wanted.shape:
            raise InputError(
                f"{name} must be {wanted.dtype} {list(wanted.shape)} in the copies' state, "
                f"got {array.dtype} {list(array.shape)}"
            )
    ranges = {
        "start": (0, switching.num_epochs - switching.episode_length),
        "done": (0, switching.episode_length - 1),
        "topology": (0, len(cluster.topologies) - 1),
        "base": (0, len(cluster.placements) - 1),
        "layout": (0, len(cluster.layouts) - 1),
        "slot_expert": (-1, task.problem.pool.counts.shape[3] - 1),
    }
    for name, (least, most) in ranges.items():
        if given[name].size and not least <= given[name].min() <= given[name].max() <= most:
            raise InputError(f"{name} must be {least}..{most} in the copies' state")
    for name in ("average", "own"):
        if not np.isfinite(given[name]).all():
            raise InputError(f"{name} must be finite in the copies' state")
    coming = given["start"] + given["done"]
    known = (given[name] for name in ("topology", "base", "layout", "slot_expert"))
    proposed = plans(task, coming, *known)
    fields_: dict[str, Any] = {**given, **proposed}
    return CoDesignState(**fields_)


def plans(
    task: CoDesignTask,
    epoch: IntArray,
    topology: IntArray,
    base: IntArray,
    layout: IntArray,
    slots: SlotArray,
) -> dict[str, Any]:
    """Return what is proposed for ``epoch`` [n] to placements in ``layout`` [n]."""
    row = np.where(task.of_epoch[epoch] == layout, epoch, task.stale[epoch])
    moves, seconds = task.plans.proposed(row, base, slots)
    moves, saved = task.price.ranked(row, topology, slots, moves, task.plans.target)
    share = np.minimum(seconds / task.problem.epoch_seconds, 1.0)
    return {"moves": moves, "target_gain": saved, "target_share": share}
