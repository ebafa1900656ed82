"""A cluster and its traffic as arrays from which a step is priced for any placement of the experts.

Letters beside the project's: V layouts (who is in which expert-parallel group), A topologies, P
placements of the library, G groups of a layout at most, X kinds of background traffic, Q tabulated
steps, J steps drawn for an epoch.

Traffic is fluid: a group's tokens start evenly on its devices, an expert's tokens divide evenly
over its replicas, and every chosen expert gets a copy of its own, as low-latency kernels send them.
What a link carries is then linear in the tokens that each device computes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from topomoe.envs.problem import SwitchingProblem

RECENT = "recent"  # the placement of a library that is made anew every so many epochs
PARTS = ("dispatch", "compute", "combine", "other")


@dataclass(frozen=True, eq=False)
class Cluster:
    """Devices, groups, networks, and a library of placements.

    Attributes:
        topologies: A names.
        placements: P names.
        layouts: V names.
        pull: float32 [V, A, 2, N + X, L], seconds on each link a token copy that device d gets from
            its group's devices evenly (0, dispatch) or sends back to them (1, combine); the last X
            rows: a byte of each kind of background traffic. Links beyond a topology's own: 0.
        offset: float32 [V, A, 2, G, L], seconds that the longest path of group g over the link adds
            to it; -inf where the group does not use the link.
        group_of: int16 [V, N], the group of each device; -1: idle.
        weight: float64 [V, G], share of a group's devices in all that are not idle; sums to 1.
        slot_device: int16 [V, S]; -1: no slot.
        slot_expert: int16 [P, V, M, S], the library; -1: no slot.
        overhead: seconds a collective, whatever it moves.
        token_seconds: seconds of a token's FLOPs in one expert.
        weight_seconds: seconds of reading one expert's weights.
        layer_scale: layers of the model that one tabulated layer stands for.
        reconfiguration: float64 [A, A], seconds exposed when topologies change.
        expert_bytes: weights of one expert of one layer.
        nic: bytes/s into a device.
        migration_share: share of ``nic`` that weights take while steps go on, in (0, 1).
        grid: rows and columns of the devices.
        hypothetical: see ``SwitchingProblem``.
        links: int32 [A, L, 2], the nodes each link joins, devices being 0..N-1; -1 beyond a
            topology's own. Only pictures need them: may be empty.
        optical: bool [A, L], whether a link is a circuit; may be empty.
    """

    topologies: tuple[str, ...]
    placements: tuple[str, ...]
    layouts: tuple[str, ...]
    pull: NDArray[np.float32]
    offset: NDArray[np.float32]
    group_of: NDArray[np.int16]
    weight: NDArray[np.float64]
    slot_device: NDArray[np.int16]
    slot_expert: NDArray[np.int16]
    overhead: float
    token_seconds: float
    weight_seconds: float
    layer_scale: float
    reconfiguration: NDArray[np.float64]
    expert_bytes: float
    nic: float
    migration_share: float
    grid: tuple[int, int]
    hypothetical: bool = False
    links: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0, 2), np.int32))
    optical: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))

    @property
    def num_devices(self) -> int:
        """N."""
        return int(self.group_of.shape[1])

    @property
    def num_layers(self) -> int:
        """M, layers tabulated."""
        return int(self.slot_expert.shape[2])


@dataclass(frozen=True, eq=False)
class StepPool:
    """Q steps of one side (training, validation or held-out), drawn from its own requests.

    Attributes:
        counts: float32 [Q, G, M, E], tokens of each group that chose each expert.
        background: float32 [Q, X], bytes of each kind of background traffic beside a collective.
        shared: float64 [Q, G], seconds of the shared expert in a layer.
        other: float64 [Q, G], seconds of attention, dense layers and head in a step.
        layout: int16 [Q].
        context: int16 [Q], of which kind of epoch a step is.
    """

    counts: NDArray[np.float32]
    background: NDArray[np.float32]
    shared: NDArray[np.float64]
    other: NDArray[np.float64]
    layout: NDArray[np.int16]
    context: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class CoDesignProblem:
    """A timeline whose placements may move freely, beside its library's tables.

    Attributes:
        cluster: devices, networks, library.
        pool: steps by number.
        steps: int32 [T, J], the steps of ``pool`` that stand for each epoch; all of one layout.
        repeat: steps of an epoch that each of the J stands for.
        forecast: float32 [T, M, E], expected tokens an expert (up to a factor a layer) from what
            ran before the epoch: a moving average over the timeline's earlier epochs.
        epoch_seconds: what an epoch is expected to take, from training; migration runs beside it.
        switching: the same timeline with the library alone, K = A * P configurations.
        fitted: int16 [V], the topology whose circuits were chosen for the demand of each layout;
            -1 where the library has none.
        recent: int16 [T, M, S], the slots in each epoch of the library's placement ``recent``,
            which is made anew as the timeline goes on; empty where the library has none.
    """

    cluster: Cluster
    pool: StepPool
    steps: NDArray[np.int32]
    repeat: float
    forecast: NDArray[np.float32]
    epoch_seconds: float
    switching: SwitchingProblem
    fitted: NDArray[np.int16]
    recent: NDArray[np.int16] = field(default_factory=lambda: np.zeros((0, 0, 0), np.int16))


def moving_cost(
    seconds: NDArray[np.float64], epoch_seconds: float, share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (stall, lag) of migrations that take ``seconds`` [...] at ``share`` of the NIC.

    ``lag`` is the share of the epoch during which the old placement serves. What an epoch has no
    room for is sent at its end at the full rate, while steps wait: ``stall`` seconds.
    """
    stall = np.maximum(seconds - epoch_seconds, 0.0) * share
    return stall, np.minimum(seconds / epoch_seconds, 1.0)
