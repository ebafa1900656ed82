"""The placement methods by name, and the one function that runs them."""

from __future__ import annotations

from importlib import import_module
from operator import index
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.placement.options import PlacementOptions
from topomoe.placement.placement import Placement
from topomoe.placement.problem import PlacementProblem, Slots
from topomoe.routing_trace import RoutingTrace
from topomoe.topologies.errors import InputError, unknown

# Each module has `assign(problem) -> (slot_expert, slot_share)`; it is imported when first used.
_MODULES = {
    "contiguous": "topomoe.placement.contiguous",
    "random": "topomoe.placement.shuffled",
    "round-robin": "topomoe.placement.round_robin",
    "eplb": "topomoe.placement.eplb",
    "exact": "topomoe.placement.exact",
    "exact-time": "topomoe.placement.timing.exact_time",
    "local-search": "topomoe.placement.search.local_search",
    "anneal": "topomoe.placement.search.anneal",
    "milp": "topomoe.placement.search.mixed_integer",
    "locality": "topomoe.placement.rows.locality",
    "genetic": "topomoe.placement.remapping.genetic",
    "robust": "topomoe.placement.shift.robust",
    "rebalance": "topomoe.placement.shift.rebalance",
}
MOST_SLOTS = 1 << 22  # 64 on each of 65,536 devices; a placement of 60 layers then takes 3 GB


@runtime_checkable
class HasLoad(Protocol):
    """Anything that counts its token-expert pairs, such as a ``RoutingTrace``."""

    def load(self) -> NDArray[np.float64]:
        """Return the token-expert pairs of each layer and expert, [M, E]."""


class _Method(Protocol):
    def assign(self, problem: PlacementProblem) -> Slots: ...


def methods() -> tuple[str, ...]:
    """Return the names that ``place`` takes as ``method``."""
    return tuple(_MODULES)


def check_method(method: str) -> None:
    """Raise InputError for a name that ``place`` does not take as ``method``."""
    if method not in _MODULES:
        raise unknown("placement method", method, _MODULES)


def check_slots(experts: int, devices: int, slots: int) -> None:
    """Raise InputError unless the slots hold every expert and divide evenly over the devices."""
    if slots < experts:
        raise InputError(f"slots must be >= experts, got slots={slots} and experts={experts}")
    if slots > MOST_SLOTS:
        raise InputError(f"slots must be <= {MOST_SLOTS}, got {slots}")
    if slots % devices:
        raise InputError(
            f"slots must be a multiple of devices, got slots={slots} and devices={devices}"
        )


def place(
    trace_or_load: HasLoad | ArrayLike,
    devices: int,
    slots: int | None = None,
    method: str = "exact",
    grid: tuple[int, int] | None = None,
    seed: int = 0,
    previous: Placement | None = None,
    options: PlacementOptions | None = None,
) -> Placement:
    """Place the experts of every layer, and replicas of some, on ``devices`` devices.

    ``trace_or_load`` is a trace, ``load[M, E]`` token-expert pairs, ``load[E]`` of one layer, or
    several loads [D, M, E], each layer of which is scaled to mean 1 before they are added. To the
    method ``robust`` the domains of a trace are several loads.
    ``slots`` is S, by default the smallest multiple of ``devices`` that holds every expert once.
    With S/N >= E every device holds every expert and computes 1/N of it, whatever the method.
    The same arguments give the same bytes; only some methods use ``grid`` (rows, columns of
    devices), ``seed``, ``options`` and ``previous``, the placement served so far.

    Raises InputError for loads that are not finite and >= 0 or are all zero in a layer, for slots
    fewer than experts or not a multiple of devices, a grid of another size, or an unknown method.

    >>> place([4.0, 2.0, 1.0, 1.0], devices=2, slots=6, method="exact").device_load([4, 2, 1, 1])
    array([[4., 4.]])
    """
    check_method(method)
    load, domain_load = _loads(trace_or_load)
    experts, num_devices = load.shape[1], _whole(devices, "devices")
    if num_devices < 1:
        raise InputError(f"devices must be >= 1, got devices={num_devices}")
    num_slots = (
        -(-experts // num_devices) * num_devices if slots is None else _whole(slots, "slots")
    )
    check_slots(experts, num_devices, num_slots)
    if grid is not None and (min(grid) < 1 or grid[0] * grid[1] != num_devices):
        raise InputError(
            f"grid must have as many places as devices, got grid={grid[0]}x{grid[1]} "
            f"and devices={num_devices}"
        )
    problem = PlacementProblem(
        load,
        domain_load,
        num_devices,
        num_slots,
        grid,
        seed,
        options or PlacementOptions(),
        trace_or_load if isinstance(trace_or_load, RoutingTrace) else None,
        previous,
    )
    if problem.slots_per_device >= experts:
        slot_expert, slot_share = _everywhere(problem)
    else:
        slot_expert, slot_share = cast(_Method, import_module(_MODULES[method])).assign(problem)
    return Placement(slot_expert, slot_share, num_devices, experts)


def _everywhere(problem: PlacementProblem) -> Slots:
    """Return every expert on every device; doubles, forced where S/N > E, have share 0."""
    on_device = np.arange(problem.slots_per_device, dtype=np.int32)
    row = np.tile(on_device % problem.num_experts, problem.num_devices)
    first = np.tile(on_device < problem.num_experts, problem.num_devices)
    share = np.where(first, 1.0 / problem.num_devices, 0.0)
    return np.tile(row, (problem.num_layers, 1)), np.tile(share, (problem.num_layers, 1))


def _whole(value: int, field: str) -> int:
    try:
        return index(value)
    except TypeError:
        raise InputError(f"{field} must be an integer, got {value!r}") from None


def _loads(
    trace_or_load: HasLoad | ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return checked loads: together [M, E], and of each domain [D, M, E] with layer means 1."""
    source = trace_or_load.load() if isinstance(trace_or_load, HasLoad) else trace_or_load
    try:
        given = np.array(source, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError("load must be numbers [E], [M, E] or [D, M, E]") from None
    if given.ndim not in (1, 2, 3) or given.size == 0:
        raise InputError(f"load must be [E], [M, E] or [D, M, E], got shape {given.shape}")
    loads = given.reshape((1,) * (3 - given.ndim) + given.shape)
    wrong = ~((loads >= 0) & np.isfinite(loads))  # NaN fails every comparison
    if wrong.any():
        domain, layer, expert = (int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"load must be finite and >= 0, got {loads[domain, layer, expert]} for expert "
            f"{expert} of layer {layer}{_of_domain(domain, given.ndim)}"
        )
    with np.errstate(over="ignore"):
        total = loads.sum(axis=2)
    if not np.isfinite(total).all():
        raise InputError("load must have a finite sum over the experts of each layer")
    if not total.all():
        domain, layer = (int(i) for i in np.argwhere(total == 0)[0])
        raise InputError(
            f"load must not be all zero, as layer {layer}{_of_domain(domain, given.ndim)} is"
        )
    if isinstance(trace_or_load, RoutingTrace):
        domains = trace_or_load.domain_load()
        return loads[0], _scaled(domains[domains.sum(axis=2).min(axis=1) > 0])
    return (_scaled(loads).sum(axis=0) if given.ndim == 3 else loads[0]), _scaled(loads)


def _scaled(loads: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return loads [D, M, E] with the mean of each layer 1."""
    scaled = loads / loads.max(axis=2, keepdims=True)
    scaled /= scaled.mean(axis=2, keepdims=True)
    return np.asarray(scaled, dtype=np.float64)


def _of_domain(domain: int, ndim: int) -> str:
    return f" of load {domain}" if ndim == 3 else ""
