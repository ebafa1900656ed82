"""When to rewire, in arrays: the cost of each configuration in each epoch, and of each switch.

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
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

FORMAT = "topomoe switching problem 1"
FEATURE_LIMIT = 1e6
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, eq=False)
class SwitchingProblem:
    """A timeline of T epochs on which one of K configurations is chosen before every epoch.

    Arrays are copied, made read-only, and checked; anything array-like is accepted.

    Attributes:
        names: the K configurations.
        cost: float64 [T, K], seconds: the step times of epoch t, summed, under configuration k.
        switch_cost: float64 [K, K], seconds exposed when the choice moves from row to column;
            the diagonal is zero; it need not be symmetric.
        components: parts of ``cost``, each [T, K] in seconds, which sum to it; without them the
            whole cost is the one component ``other``.
        features: float32 [T, F], what is known of epoch t *before* it runs (the queue): domain mix
            of the admitted requests, tokens, ...; each at most 1e6 in size.
        feature_names: the F features.
        episode_length: epochs an episode has; 0 means all T.
        start: the configuration every episode starts in.
        hypothetical: the configurations are fabrics that no switch turns into each other;
            everything printed or stored about such a problem says "hypothetical".
        scale: seconds that count as 1 in rewards and observations; 0 means the mean cost of
            never leaving ``start``.
        prior: float64 [K], seconds an epoch is expected to take under each configuration before
            anything is seen; by default the mean over this timeline. ``calibrated`` takes
            ``start``, ``scale`` and ``prior`` from a training timeline instead.

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
        given = np.asarray(self.features)
        features = _array(
            given if given.size or feature_names else np.zeros((epochs, 0)),
            "features",
            np.float32,
            (epochs, len(feature_names)),
        )
        if (np.abs(features) > FEATURE_LIMIT).any():
            raise InputError(f"features must be at most {FEATURE_LIMIT:g} in size")
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
        checked = {
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
            episode_length=min(self.episode_length, last - first),
        )

    def calibrated(self, training: SwitchingProblem) -> SwitchingProblem:
        """Return this timeline with ``start``, ``scale`` and ``prior`` taken from ``training``.

        ``start`` becomes the configuration that is best on average in training, which is what
        never-switch keeps. A held-out timeline calibrated so tells an agent nothing of itself.
        """
        if self.names != training.names:
            raise InputError(
                f"names must be those of the training problem {list(training.names)}, "
                f"got {list(self.names)}"
            )
        prior = training.cost.mean(axis=0)
        start = int(prior.argmin())
        return replace(self, start=start, scale=float(prior[start]), prior=prior)

    def save(self, path: str | Path) -> None:
        """Write one ``.npz``: the arrays, and the rest as JSON text in the array ``meta``."""
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
        }
        arrays: dict[str, NDArray[np.generic]] = {
            "meta": np.array(json.dumps(meta)),
            "cost": self.cost,
            "switch_cost": self.switch_cost,
            "features": self.features,
            "prior": self.prior,
        }
        for index, part in enumerate(self.components.values()):
            arrays[f"component_{index}"] = part
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        write_atomic(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> SwitchingProblem:
        """Read a problem that ``save`` wrote.

        Raises:
            InputError: the file is missing, damaged, or not a switching problem.
        """
        try:
            with np.load(Path(path), allow_pickle=False) as stored:
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
