"""Several expert-parallel groups on one network, which feel each other on the links they share.

A group is an ordered set of devices with its own trace, placement and batches. Groups do not step
in time, so what a group takes from a link is its mean rate, and its step times are a fixed point:
each group runs on the capacity that the others' mean rates leave. With ``synchronous`` all groups
send in the same instant and their bytes add: as bad as it gets, but for the last percent of links
that stay full (there a fixed point of mean rates may come out slightly above).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topomoe.demand import DispatchSettings
from topomoe.model import MoEModel
from topomoe.placement import Placement
from topomoe.pricing import (
    BatchResult,
    Job,
    Traffic,
    at_once,
    batch_seeds,
    dispatch_tokens,
    make_job,
    price,
    sent_bytes,
)
from topomoe.routed_network import Network
from topomoe.routing_trace import RoutingTrace
from topomoe.simulation import collect, run_batches
from topomoe.stats import max_over_mean
from topomoe.step import FloatArray, SimulationResult, StepSettings
from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.routing.routing import Routing
from topomoe.topologies.topology import Topology
from topomoe.workload import Batch, WorkloadSettings, coverage, make_batches

LAYOUTS = ("contiguous", "scattered")
ROUNDS = 100  # of the fixed point, at most
TOLERANCE = 1e-4  # relative change of every group's mean step at which it has settled


@dataclass(frozen=True, eq=False)
class Group:
    """An expert-parallel group: its devices in order, and what it runs."""

    devices: NDArray[np.int64]  # [n] device ids of the topology
    trace: RoutingTrace
    placement: Placement  # over n devices
    workload: WorkloadSettings
    model: str | MoEModel | None = None


def partition(
    num_devices: int, groups: int, layout: str, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return each group's devices: consecutive ids, or ``scattered`` as a fragmented cluster gives.

    Raises InputError unless the groups divide the devices.
    """
    if layout not in LAYOUTS:
        raise unknown("group layout", layout, LAYOUTS)
    if groups < 1 or num_devices % groups:
        raise InputError(f"groups must divide devices, got groups={groups}, devices={num_devices}")
    order = np.arange(num_devices)
    if layout == "scattered":
        order = rng.permutation(num_devices)
    return [np.sort(part) for part in np.split(order, groups)]


def simulate_groups(
    groups: Sequence[Group],
    topology: Topology,
    routing: Routing | None = None,
    dispatch: DispatchSettings | None = None,
    step: StepSettings | None = None,
    synchronous: bool = False,
    seed: int = 0,
) -> list[SimulationResult]:
    """Return a result a group.

    Raises InputError where groups share a device or name an unknown one, and with ``synchronous``
    where they differ in model, phase, layers or batches, or overlap halves of a batch.
    """
    _check(groups, topology)
    if synchronous:
        if len({group.workload.batches for group in groups}) > 1:
            raise InputError("groups that send at once must have the same number of batches")
        if step is not None and step.overlap != "none":
            raise InputError(f"groups that send at once need overlap=none, got {step.overlap}")
    jobs, batches = [], []
    for number, group in enumerate(groups):
        job = _group_job(
            group, topology, routing, dispatch or DispatchSettings(), step or StepSettings(), seed
        )
        rng = np.random.default_rng([seed, number])
        jobs.append(replace(job, seed=seed + number))
        grid = own_grid(group.devices, topology.grid)
        batches.append(make_batches(group.trace, len(group.devices), grid, group.workload, rng))
    settled = _synchronous(jobs, batches) if synchronous else _fixed_point(jobs, batches)
    return [
        collect(results, 0, *coverage(group.trace, b), None)
        for results, group, b in zip(settled, groups, batches, strict=True)
    ]


def own_grid(devices: NDArray[np.int64], grid: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the rows and columns of a group that holds whole neighbouring rows, else None."""
    if grid is None or len(devices) % grid[1] or devices[0] % grid[1]:
        return None
    if not np.array_equal(devices, devices[0] + np.arange(len(devices))):
        return None
    return len(devices) // grid[1], grid[1]


def _check(groups: Sequence[Group], topology: Topology) -> None:
    if not groups:
        raise InputError("groups must name at least one group")
    taken = np.concatenate([group.devices for group in groups])
    if taken.min() < 0 or taken.max() >= topology.num_devices:
        raise InputError(f"groups must use devices 0..{topology.num_devices - 1}")
    if len(np.unique(taken)) != len(taken):
        raise InputError("groups must not share a device")
    for number, group in enumerate(groups):
        if group.placement.num_devices != len(group.devices):
            raise InputError(
                f"group {number} has {len(group.devices)} devices, "
                f"its placement {group.placement.num_devices}"
            )


def _group_job(
    group: Group,
    topology: Topology,
    routing: Routing | None,
    dispatch: DispatchSettings,
    step: StepSettings,
    seed: int,
) -> Job:
    """Return the group's job: its own devices, on the whole topology's network."""
    job = make_job(
        group.trace, [], group.placement, group.model, group.workload, dispatch, step, seed
    )
    network = Network.of(topology, routing, group.placement.num_experts, step.mtu, group.devices)
    grid = topology.grid or (1, topology.num_devices)
    return replace(job, networks=(network,), grid=grid, devices=group.devices)


def _mean_load(job: Job, results: Sequence[BatchResult]) -> FloatArray:
    """Return the bytes that a step puts on each link, a mean over batches, [L]."""
    demand = np.mean([result.demand for result in results], axis=0)
    return np.asarray(job.networks[0].routing.link_load(demand[None])[0])


def _mean_step(results: Sequence[BatchResult]) -> float:
    return collect(results, 0, 0, 0, None).step_time.mean


def _fixed_point(jobs: Sequence[Job], batches: Sequence[list[Batch]]) -> list[list[BatchResult]]:
    """Return results under the others' mean rates, from every group alone onwards.

    A group always keeps at least its share of a link by bytes: what it would get if all sent at
    once. Damped by half, so that two groups that fill one link do not take turns.
    """
    results = [run_batches(job, enumerate(b), None) for job, b in zip(jobs, batches, strict=True)]
    load = [_mean_load(job, r) for job, r in zip(jobs, results, strict=True)]
    total = np.sum(load, axis=0)
    times = np.array([_mean_step(r) for r in results])
    for _ in range(ROUNDS):
        rates = np.array([part / time for part, time in zip(load, times, strict=True)])
        results = []
        for g, (job, own) in enumerate(zip(jobs, batches, strict=True)):
            network = job.networks[0]
            capacity = network.topology.capacity
            with np.errstate(invalid="ignore", divide="ignore"):
                fair = np.where(total > 0, capacity * (load[g] / total), capacity)
            left = np.maximum(capacity - (rates.sum(axis=0) - rates[g]), fair)
            left = np.maximum(left, capacity * 1e-9)  # links that only others use
            shared = replace(job, networks=(replace(network, capacity=left),))
            results.append(run_batches(shared, enumerate(own), None))
        after = np.array([_mean_step(r) for r in results])
        settled = bool(np.all(np.abs(after - times) <= TOLERANCE * times))
        times = (times + after) / 2.0
        if settled:
            break
    return results


def _synchronous(jobs: Sequence[Job], batches: Sequence[list[Batch]]) -> list[list[BatchResult]]:
    """Return results where the groups' all-to-alls start together and their bytes add."""
    results: list[list[BatchResult]] = [[] for _ in jobs]
    for index, together in enumerate(zip(*batches, strict=True)):
        joint, own = price_together(jobs, index, together)
        for g, traffic in enumerate(own):
            load = traffic.device_load
            results[g].append(
                replace(
                    joint,
                    compute=traffic.compute,
                    other=traffic.other,
                    max_over_mean=max_over_mean(load),
                    device_load=load,
                    tokens=traffic.tokens,
                    dropped_share=traffic.dropped_share,
                    rerouted_share=traffic.rerouted_share,
                    pre_drop_cv=traffic.pre_drop_cv,
                    **sent_bytes(jobs[g], traffic),
                )
            )
    return results


def price_together(
    jobs: Sequence[Job], index: int, batches: Sequence[Batch]
) -> tuple[BatchResult, list[Traffic]]:
    """Return one step in which all groups send at once, and each group's own traffic.

    The groups must run as many layers of the same model in the same phase; the step waits for the
    slowest of them in each layer.
    """
    if len({(job.model, job.workload.phase) for job in jobs}) > 1:
        raise InputError("groups that send at once must run the same model in the same phase")
    own = [
        dispatch_tokens(job, batch.positions, batch.origin, batch_seeds(job, index))
        for job, batch in zip(jobs, batches, strict=True)
    ]
    if len({len(traffic.compute) for traffic in own}) > 1:
        raise InputError("groups that send at once must have the same number of layers")
    return price(jobs[0], at_once(own)), own
