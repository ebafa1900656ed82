"""When to switch, in arrays: the cost of each configuration in each epoch, and of each switch.

A configuration is a topology, or a pair of a topology and a placement of the experts.

Example: two wirings over three epochs. Wiring 0 is fast first, wiring 1 later; switching: 0.5 s.

>>> problem = SwitchingProblem(
...     names=("mesh", "torus"),
...     cost=[[1.0, 2.0], [1.0, 2.0], [3.0, 1.0]],
...     switch_cost=[[0.0, 0.5], [0.5, 0.0]],
... )
>>> problem.num_epochs, problem.num_configurations, problem.episodes().tolist()
(3, 2, [0])
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.envs.migration import Migration
from topomoe.envs.seal import seal, unseal
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

FORMAT = "topomoe switching problem 3"
NETWORK = ("dispatch", "combine")  # the components that moving experts slows
FEATURE_LIMIT = 1e6
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class SwitchingProblem:
    """A timeline of T epochs on which one of K configurations is chosen before every epoch.

    Arrays are copied, made read-only, and checked; anything array-like is accepted.

    Attributes:
        names: the K configurations.
        cost: float64 [T, K], seconds: the step times of epoch t, summed, under configuration k.
        switch_cost: float64 [K, K], seconds exposed when the choice moves from row to column
            (the reconfiguration); the diagonal is zero; it need not be symmetric.
        components: parts of ``cost``, each [T, K] in seconds, which sum to it; without them the
            whole cost is the one component ``other``.
        features: float32 [T, F], what is known of epoch t *before* it runs (the queue): domain mix
            of the admitted requests, tokens, ...; each at most 1e6 in size.
        feature_names: the F features.
        demand: float32 [T, H], what is known of epoch t's demand once it is *over*, such as how
            concentrated it was on few receivers.
        demand_names: the H statistics.
        episode_length: epochs an episode has; 0 means all T.
        start: the configuration every episode starts in.
        hypothetical: the configurations are fabrics that no switch turns into each other;
            everything printed or stored about such a problem says "hypothetical".
        placements: P placements; configuration k is topology k // P with placement k % P, and its
            name is "topology/placement". Empty: configurations are topologies.
        migration: what changing the placement costs beside ``switch_cost``; None: nothing.
        steps: float32 [T, J, K], seconds of J steps of each epoch, for percentiles; may be empty.
        bound: float64 [T], seconds below which no placement whatever can bring the epoch on any
            of the topologies; may be empty.
        metric: float64 [K, K], what a switch is expected to cost beyond the epochs themselves:
            ``switch_cost``, mean stall, and mean slowdown while the old placement serves. It is
            what rules reckon with; what is charged is exact. By default from this timeline.
        scale: seconds that count as 1 in rewards and observations; 0 means the mean cost of
            never leaving ``start``.
        prior: float64 [K], seconds an epoch is expected to take under each configuration before
            anything is seen; by default the mean over this timeline. ``calibrated`` takes
            ``start``, ``scale``, ``prior`` and ``metric`` from a training timeline instead.

    Raises:
        InputError: a shape, a name or a number is wrong; the message names the field.
    """

    names: tuple[str, ...]
    cost: NDArray[np.float64]
    switch_cost: NDArray[np.float64]
    components: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    features: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    feature_names: tuple[str, ...] = ()
    episode_length: int = 0
    start: int = 0
    hypothetical: bool = False
    scale: float = 0.0
    prior: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    placements: tuple[str, ...] = ()
    migration: Migration | None = None
    steps: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    bound: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    metric: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    demand: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    demand_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = tuple(str(name) for name in self.names)
        if not names or len(set(names)) != len(names):
            raise InputError(f"names must be one or more different names, got {list(names)}")
        cost = _array(self.cost, "cost", np.float64, None)
        if cost.ndim != 2 or cost.shape[0] < 1 or cost.shape[1] != len(names):
            raise InputError(
                f"cost must have shape [epochs >= 1, {len(names)}], got {list(cost.shape)}"
            )
        epochs, count = cost.shape
        switch_cost = _array(self.switch_cost, "switch_cost", np.float64, (count, count))
        if np.diag(switch_cost).any():
            raise InputError("switch_cost must have a zero diagonal: staying is free")
        for name, array in (("cost", cost), ("switch_cost", switch_cost)):
            if (array < 0).any():
                raise InputError(f"{name} must be >= 0, got {array.min()}")
        components = {
            str(name): _array(part, f"components[{name}]", np.float64, (epochs, count))
            for name, part in self.components.items()
        } or {"other": cost}
        if not np.allclose(sum(components.values()), cost, rtol=1e-6, atol=1e-12):
            raise InputError(f"components {list(components)} must sum to cost")
        feature_names = tuple(str(name) for name in self.feature_names)
        demand_names = tuple(str(name) for name in self.demand_names)
        features = _columns(self.features, "features", epochs, len(feature_names))
        demand = _columns(self.demand, "demand", epochs, len(demand_names))
        length = int(self.episode_length) or epochs
        if not 1 <= length <= epochs:
            raise InputError(
                f"episode_length must be 1..epochs, got episode_length={length}, epochs={epochs}"
            )
        if not 0 <= self.start < count:
            raise InputError(f"start must be 0..{count - 1}, got {self.start}")
        scale = float(self.scale) or float(cost[:, self.start].mean())
        if not (np.isfinite(scale) and scale > 0):
            raise InputError(f"scale must be finite and > 0 seconds, got {scale}")
        prior = _array(
            self.prior if np.size(self.prior) else cost.mean(axis=0), "prior", np.float64, (count,)
        )
        placements = tuple(str(name) for name in self.placements)
        topologies = _topologies(names, placements)
        if placements and names != tuple(f"{t}/{p}" for t in topologies for p in placements):
            raise InputError("names must be topology/placement, each topology with all placements")
        if self.migration is not None:
            stall = self.migration.stall
            if len(stall) not in (1, epochs) or stall.shape[1] != max(len(placements), 1):
                raise InputError(
                    f"migration must have shape [1 or {epochs}, {len(placements)}, "
                    f"{len(placements)}], got {list(stall.shape)}"
                )
        steps = np.asarray(self.steps)
        if steps.size:
            steps = _array(steps, "steps", np.float32, None)
            if steps.ndim != 3 or (steps.shape[0], steps.shape[2]) != (epochs, count):
                raise InputError(
                    f"steps must have shape [{epochs}, J, {count}], got {list(steps.shape)}"
                )
        bound = np.asarray(self.bound, dtype=np.float64)
        if bound.size:
            bound = _array(bound, "bound", np.float64, (epochs,))
        network = sum((components[name] for name in NETWORK if name in components), np.zeros(()))
        network = np.broadcast_to(network, cost.shape)
        metric = (
            _array(self.metric, "metric", np.float64, (count, count))
            if np.size(self.metric)
            else _metric(switch_cost, self.migration, network.mean(axis=0), max(len(placements), 1))
        )
        checked = {
            "demand": demand,
            "demand_names": demand_names,
            "placements": placements,
            "steps": steps,
            "bound": bound,
            "metric": metric,
            "names": names,
            "cost": cost,
            "switch_cost": switch_cost,
            "components": components,
            "features": features,
            "feature_names": feature_names,
            "episode_length": length,
            "start": int(self.start),
            "hypothetical": bool(self.hypothetical),
            "scale": scale,
            "prior": prior,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def num_epochs(self) -> int:
        """T."""
        return int(self.cost.shape[0])

    @property
    def num_configurations(self) -> int:
        """K."""
        return int(self.cost.shape[1])

    @property
    def num_placements(self) -> int:
        """P; 1 where configurations are topologies."""
        return max(len(self.placements), 1)

    @property
    def topologies(self) -> tuple[str, ...]:
        """The K / P topologies."""
        return _topologies(self.names, self.placements)

    @cached_property
    def network(self) -> NDArray[np.float64]:
        """Seconds of dispatch and combine, [T, K], which moving experts slows."""
        parts = [part for name, part in self.components.items() if name in NETWORK]
        return np.sum(parts, axis=0) if parts else np.zeros_like(self.cost)

    def topology_of(self, configuration: ArrayLike) -> NDArray[np.int64]:
        """Return the topology of each configuration."""
        return np.asarray(configuration, dtype=np.int64) // self.num_placements

    def placement_of(self, configuration: ArrayLike) -> NDArray[np.int64]:
        """Return the placement of each configuration."""
        return np.asarray(configuration, dtype=np.int64) % self.num_placements

    @property
    def switching(self) -> str:
        """``reachable``, or ``hypothetical`` where no switch can do what the choice asks."""
        return "hypothetical" if self.hypothetical else "reachable"

    def episodes(self) -> NDArray[np.int64]:
        """First epoch of each whole episode when the timeline is cut end to end."""
        whole = self.num_epochs // self.episode_length
        return np.arange(whole, dtype=np.int64) * self.episode_length

    def part(self, first: int, last: int) -> SwitchingProblem:
        """Return the timeline of epochs ``first`` to ``last`` (exclusive), all else unchanged."""
        if not 0 <= first < last <= self.num_epochs:
            raise InputError(f"part must be within 0..{self.num_epochs}, got {first}..{last}")
        return replace(
            self,
            cost=self.cost[first:last],
            components={name: part[first:last] for name, part in self.components.items()},
            features=self.features[first:last],
            demand=self.demand[first:last],
            migration=None if self.migration is None else self.migration.part(first, last),
            steps=self.steps[first:last],
            bound=self.bound[first:last],
            episode_length=min(self.episode_length, last - first),
        )

    def calibrated(self, training: SwitchingProblem) -> SwitchingProblem:
        """Return this timeline with what is expected of it taken from ``training``.

        That is ``start``, ``scale``, ``prior`` and ``metric``.

        ``start`` becomes the configuration that is best on average in training, which is what
        never-switch keeps. A held-out timeline calibrated so tells an agent nothing of itself.
        """
        if self.names != training.names:
            raise InputError(
                f"names must be those of the training problem {list(training.names)}, "
                f"got {list(self.names)}"
            )
        prior = training.cost.mean(axis=0)
        metric = _metric(
            training.switch_cost,
            training.migration,
            training.network.mean(axis=0),
            training.num_placements,
        )
        staying = prior + np.diag(metric)  # a placement that is made anew costs its keeper
        start = int(staying.argmin())
        scale = float(staying[start])
        return replace(self, start=start, scale=scale, prior=prior, metric=metric)

    def save(self, path: str | Path) -> None:
        """Write one ``.npz``: the arrays, and the rest as JSON text in the array ``meta``.

        The archive's comment holds the SHA-256 of what precedes it, which ``load`` checks.
        """
        meta = {
            "format": FORMAT,
            "names": self.names,
            "components": list(self.components),
            "feature_names": self.feature_names,
            "episode_length": self.episode_length,
            "start": self.start,
            "hypothetical": self.hypothetical,
            "switching": self.switching,
            "scale": self.scale,
            "demand_names": self.demand_names,
            "placements": self.placements,
            "slowdown": None if self.migration is None else self.migration.slowdown,
        }
        arrays: dict[str, NDArray[np.generic]] = {
            "meta": np.array(json.dumps(meta)),
            "cost": self.cost,
            "switch_cost": self.switch_cost,
            "features": self.features,
            "demand": self.demand,
            "prior": self.prior,
            "steps": self.steps,
            "bound": self.bound,
            "metric": self.metric,
        }
        if self.migration is not None:
            arrays |= {"stall": self.migration.stall, "lag": self.migration.lag}
        for index, part in enumerate(self.components.values()):
            arrays[f"component_{index}"] = part
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomic(Path(path), seal(buffer.getvalue()))

    @classmethod
    def load(cls, path: str | Path) -> SwitchingProblem:
        """Read a problem that ``save`` wrote.

        Raises:
            InputError: the file is missing, damaged, or not a switching problem.
        """
        try:
            archive = io.BytesIO(unseal(Path(path).read_bytes()))
            with np.load(archive, allow_pickle=False) as stored:
                meta = json.loads(str(stored["meta"]))
                if meta.get("format") != FORMAT:
                    raise InputError(f"format must be {FORMAT!r}, got {meta.get('format')!r}")
                return cls(
                    names=tuple(meta["names"]),
                    cost=stored["cost"],
                    switch_cost=stored["switch_cost"],
                    components={
                        name: stored[f"component_{index}"]
                        for index, name in enumerate(meta["components"])
                    },
                    features=stored["features"],
                    feature_names=tuple(meta["feature_names"]),
                    episode_length=int(meta["episode_length"]),
                    start=int(meta["start"]),
                    hypothetical=bool(meta["hypothetical"]),
                    scale=float(meta["scale"]),
                    prior=stored["prior"],
                    demand=stored["demand"],
                    demand_names=tuple(meta["demand_names"]),
                    placements=tuple(meta["placements"]),
                    migration=None
                    if meta["slowdown"] is None
                    else Migration(stored["stall"], stored["lag"], float(meta["slowdown"])),
                    steps=stored["steps"],
                    bound=stored["bound"],
                    metric=stored["metric"],
                )
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
            # numpy's own message tells how to run what the file holds.
            why = "not plain arrays" if "pickle" in str(error) else error
            raise InputError(f"{path}: not a switching problem ({why})") from None
        except (zipfile.BadZipFile, zlib.error) as error:
            raise InputError(f"{path}: damaged file ({error})") from None


def _topologies(names: tuple[str, ...], placements: tuple[str, ...]) -> tuple[str, ...]:
    if not placements:
        return names
    return tuple(name.removesuffix(f"/{placements[0]}") for name in names[:: len(placements)])


def _metric(
    switch_cost: NDArray[np.float64],
    migration: Migration | None,
    network: NDArray[np.float64],
    placements: int,
) -> NDArray[np.float64]:
    """Return the expected cost of each switch, [K, K]; ``network`` [K] are mean seconds."""
    if migration is None:
        return switch_cost
    count = len(switch_cost)
    topology, placement = np.divmod(np.arange(count), placements)
    stall, lag = migration.stall.mean(axis=0), migration.lag.mean(axis=0)
    pair = placement[:, None], placement[None]
    serving = topology[None] * placements + placement[:, None]
    return np.asarray(switch_cost + stall[pair] + lag[pair] * migration.slowdown * network[serving])


def _columns(value: ArrayLike, name: str, epochs: int, count: int) -> NDArray[np.float32]:
    given = np.asarray(value)
    array = _array(
        given if given.size or count else np.zeros((epochs, 0)), name, np.float32, (epochs, count)
    )
    if (np.abs(array) > FEATURE_LIMIT).any():
        raise InputError(f"{name} must be at most {FEATURE_LIMIT:g} in size")
    return array


def _array(
    value: ArrayLike, name: str, dtype: type[Number], shape: tuple[int, ...] | None
) -> NDArray[Number]:
    try:
        array = np.array(value, dtype=dtype)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be an array of numbers") from None
    if shape is not None and array.shape != shape:
        raise InputError(f"{name} must have shape {list(shape)}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise InputError(f"{name} must be finite, got NaN or infinity")
    array.flags.writeable = False
    return array
