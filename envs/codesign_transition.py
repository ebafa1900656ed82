"""Co-design as a pure function of arrays: topologies switch, placements move freely.

As in ``topomoe.envs.transition`` all functions work on n copies at once. While a placement is one
of the library, epochs cost what the library's tables say; else they are priced step by step
(``topomoe.envs.step_price``), and both agree. Where the devices' layout changes from one epoch to
the next, as pools grow and shrink, every policy's placement becomes the library placement that it
chose last, as made for the new layout: the scheduler moves devices and weights alike for all, and
that is not charged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.envs.codesign_charge import Change, charge_change
from topomoe.envs.codesign_layout import KEEP
from topomoe.envs.codesign_state import CoDesignState, plans
from topomoe.envs.codesign_task import CoDesignTask
from topomoe.envs.layout import COST_LIMIT
from topomoe.envs.moves import aligned
from topomoe.envs.proposals import apply_moves
from topomoe.envs.transition import AVERAGE_WEIGHT
from topomoe.topologies.errors import InputError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
SlotArray = NDArray[np.int16]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class CoDesignOutcome:
    """What one epoch cost n copies, in seconds; the fields are those of ``Outcome`` and:

    Attributes:
        topology: int64 [n], the topology it ran under.
        base: int64 [n], the library placement chosen last.
        moved: float64 [n], share of slots that hold another expert than there.
        masked: bool [n], whether an action was masked, and therefore nothing was done.
        returned: bool [n], whether a change of layout took the placement back to the library.
    """

    epoch: IntArray
    topology: IntArray
    base: IntArray
    moved: FloatArray
    components: Mapping[str, FloatArray]
    reconfiguration: FloatArray
    migration: FloatArray
    cost: FloatArray
    switched: BoolArray
    masked: BoolArray
    returned: BoolArray


def step(
    task: CoDesignTask, state: CoDesignState, action: ArrayLike
) -> tuple[CoDesignState, FloatArray, CoDesignOutcome]:
    """Set what ``action`` says, run one epoch, return the state, reward [n] and outcome.

    ``action`` is [n, 2], or [n] on a fixed topology; what ``masks`` rules out changes nothing. The
    reward is -(epoch cost + switching cost) / scale.

    Raises:
        InputError: an action is out of range, or an episode is already over.
    """
    switching = task.problem.switching
    rewire, placing = _choices(task, action, state.start.size)
    if (state.done >= switching.episode_length).any():
        raise InputError("the episode is over: reset before the next step")
    topology, placing, masked = _unmasked(task, state, rewire, placing)
    epoch = state.start + state.done
    layout = task.of_epoch[epoch]
    returned = layout != state.layout
    before = state.slot_expert
    if returned.any():
        before = before.copy()
        before[returned] = task.library_slots(epoch[returned], state.base[returned])
    was_moved = state.moved & ~returned
    after, base, moved = _placed(task, state, placing, epoch, before, was_moved, returned)
    change = Change(
        epoch=epoch,
        topology=np.stack([state.topology, topology], axis=1),
        base=np.stack([state.base, base], axis=1),
        moved=np.stack([was_moved, moved], axis=1),
        before=before,
        after=after,
    )
    charged = charge_change(task, change)
    own = sum(charged.components.values(), np.zeros(len(epoch)))
    done = state.done + 1
    coming = np.where(done < switching.episode_length, epoch + 1, epoch)
    expected = task.of_epoch[coming] if task.known else layout
    leaves = expected != layout
    slots = after
    if leaves.any():
        slots = after.copy()
        slots[leaves] = task.library_slots(coming[leaves], base[leaves])
    following = CoDesignState(
        start=state.start,
        done=done,
        topology=topology,
        base=base,
        moved=moved & ~leaves,
        returned=moved & leaves,
        layout=expected,
        slot_expert=slots,
        average=(1 - AVERAGE_WEIGHT) * state.average
        + AVERAGE_WEIGHT / switching.scale * switching.cost[epoch[:, None], task.columns],
        own=own / switching.scale,
        **plans(task, coming, topology, base, expected, slots),
    )
    result = CoDesignOutcome(
        epoch=epoch,
        topology=topology,
        base=base,
        moved=_moved_share(task, epoch, base, after),
        components=charged.components,
        reconfiguration=charged.reconfiguration,
        migration=charged.migration,
        cost=charged.cost,
        switched=charged.switched,
        masked=masked,
        returned=state.returned | (returned & state.moved),
    )
    return following, -charged.cost / switching.scale, result


def masks(task: CoDesignTask, state: CoDesignState) -> tuple[BoolArray, BoolArray]:
    """Return which topologies [n, choices] and placement choices [n, choices] there are.

    On a fixed topology the first has no columns. Circuits for the forecast demand need such in the
    library; a move needs a proposal. All else can always be chosen.
    """
    layout, n = task.layout, state.start.size
    topologies = np.ones((n, layout.topology_choices), dtype=np.bool_)
    if layout.fitted and not layout.fixed:
        topologies[:, -1] = task.problem.fitted[state.layout] >= 0
    placements = np.ones((n, layout.placement_choices), dtype=np.bool_)
    placements[:, layout.first_move : layout.rebalance_choice] = state.moves.valid
    return topologies, placements


def observe(task: CoDesignTask, state: CoDesignState) -> NDArray[np.float32]:
    """Return the observations, float32 [n, layout.size], laid out as ``task.layout`` says."""
    switching, layout = task.problem.switching, task.layout
    n = state.start.size
    observation = np.zeros((n, layout.size), dtype=np.float32)
    copies = np.arange(n)
    epoch = state.start + state.done
    more = (state.done < switching.episode_length)[:, None]
    coming = np.where(more[:, 0], epoch, epoch - 1)
    started = state.done[:, None] > 0
    if not layout.fixed:
        observation[copies, state.topology] = 1.0
        observation[copies, layout["placement"].start + state.base] = 1.0
    # A layout that was last seen need not be that of the coming epoch.
    seen = np.where(task.of_epoch[coming] == state.layout, coming, coming - 1)
    observation[:, layout["moved"].start] = state.moved * _moved_share(
        task, seen, state.base, state.slot_expert
    )
    last = np.where(started, switching.cost[epoch[:, None] - 1, task.columns], 0.0)
    last = np.where(started, last, switching.prior[task.columns])
    observation[:, layout["last"]] = np.minimum(last / switching.scale, COST_LIMIT)
    observation[:, layout["average"]] = np.minimum(state.average, COST_LIMIT)
    observation[:, layout["own"].start] = np.minimum(state.own, COST_LIMIT)
    if layout.num_demand:
        observation[:, layout["demand"]] = np.where(started, switching.demand[epoch - 1], 0.0)
    if layout.observe == "after":
        relative = switching.cost[coming[:, None], task.columns] / switching.scale
        observation[:, layout["coming"]] = np.minimum(relative, COST_LIMIT) * more
    observation[:, layout["imbalance"].start] = np.minimum(state.moves.imbalance, COST_LIMIT)
    observation[:, layout["gains"]] = np.clip(state.moves.gain, -COST_LIMIT, COST_LIMIT)
    both = np.stack([state.target_gain, state.target_share], axis=1)
    observation[:, layout["rebalance"]] = np.clip(both, -COST_LIMIT, COST_LIMIT)
    if layout.queue:
        observation[:, layout["queue"]] = np.where(more, switching.features[coming], 0.0)
    observation[:, -1] = 1.0 - state.done / switching.episode_length
    return observation


def _moved_share(
    task: CoDesignTask, epoch: IntArray, base: IntArray, slots: SlotArray
) -> FloatArray:
    """Return the share of ``slots`` [n, M, S] that the library fills otherwise, [n]."""
    used = (task.problem.cluster.slot_device[task.of_epoch[epoch]] >= 0).sum(axis=1)
    off = (slots != task.library_slots(epoch, base)).sum(axis=(1, 2))
    return np.asarray(off / (used * slots.shape[1]))


def _choices(task: CoDesignTask, action: ArrayLike, copies: int) -> tuple[IntArray, IntArray]:
    """Return the topology choices (-1: fixed) and placement choices [n], checked."""
    layout = task.layout
    counts = [layout.topology_choices, layout.placement_choices][layout.fixed :]
    chosen = np.asarray(action)
    shape = (copies,) if layout.fixed else (copies, 2)
    if chosen.shape != shape or not np.issubdtype(chosen.dtype, np.integer):
        raise InputError(
            f"actions must be whole numbers of shape {list(shape)}, "
            f"got shape {list(chosen.shape)} of {chosen.dtype}"
        )
    table = chosen.reshape(copies, -1).astype(np.int64)
    for column, count in enumerate(counts):
        wrong = (table[:, column] < 0) | (table[:, column] >= count)
        if wrong.any():
            what = "placement" if column == len(counts) - 1 else "topology"
            raise InputError(
                f"a {what} action must be 0..{count - 1}, got {table[wrong, column][0]}"
            )
    return (np.full(copies, -1) if layout.fixed else table[:, 0]), table[:, -1]


def _unmasked(
    task: CoDesignTask, state: CoDesignState, rewire: IntArray, placing: IntArray
) -> tuple[IntArray, IntArray, BoolArray]:
    """Return the topologies, the placement choices, and who asked for what is masked, [n] each."""
    topologies, placements = masks(task, state)
    copies = np.arange(len(placing))
    possible = placements[copies, placing]
    masked = ~possible
    placing = np.where(possible, placing, KEEP)
    if task.layout.fixed:
        return state.topology, placing, masked
    possible = topologies[copies, rewire]
    wanted = np.where(
        rewire < task.layout.num_topologies, rewire, task.problem.fitted[state.layout]
    )
    return np.where(possible, wanted, state.topology), placing, masked | ~possible


def _placed(
    task: CoDesignTask,
    state: CoDesignState,
    placing: IntArray,
    epoch: IntArray,
    before: SlotArray,
    was_moved: BoolArray,
    returned: BoolArray,
) -> tuple[SlotArray, IntArray, BoolArray]:
    """Return the slots chosen, the library placement they go back to, and whether they left it."""
    layout = task.layout
    from_library = (placing > KEEP) & (placing < layout.first_move)
    base = np.where(from_library, placing - 1, state.base)
    rebalances = placing == layout.rebalance_choice
    # A proposal for a layout that is no more cannot be carried out.
    moves = (placing >= layout.first_move) & ~rebalances & ~returned
    moved = (was_moved & ~from_library) | moves | rebalances
    after = apply_moves(before, state.moves, np.where(moves, placing - layout.first_move, -1))
    stays = ~moved
    after[stays] = task.library_slots(epoch[stays], base[stays])
    if rebalances.any():
        at = epoch[rebalances]
        # The forecast is laid on the devices as they are now, whatever was expected of them.
        target = task.plans.target[at]
        after[rebalances] = aligned(
            task.problem.cluster, target, before[rebalances], task.of_epoch[at]
        )
    return after, base, moved
