"""A finished study read back from its folder: what figures, tables and the report are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from topomoe.run_folder import CONFIG, RunFolder
from topomoe.simulation import LEAST_REQUESTS
from topomoe.topologies.errors import InputError
from topomoe.topologies.registry import parse_grid

if TYPE_CHECKING:
    import pandas as pd

RESULTS = "results.parquet"
EQUAL = 1e-6  # relative difference of times below which two are equal: loads are float32
Group = tuple[str, str]  # placement, replica routing

_NAMES = ("topology", "routing", "placement", "replica_routing")
_PARTS = ("dispatch_s", "compute_s", "combine_s", "backward_s")
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "summary": (
        *_NAMES,
        *_PARTS,
        "other_s",
        "moe_s",
        "moe_p50_s",
        "moe_p95_s",
        "moe_p99_s",
        "step_s",
        "step_p99_s",
        "network_bound_s",
        "max_over_mean",
        "remote_bytes",
        "requests",
        "positions",
    ),
    "step": (*_NAMES, "batch", "tokens", "moe_s", "step_s"),
    "layer": (*_NAMES, "layer", *_PARTS),
    "link": (*_NAMES, "source", "target", "capacity_bytes_per_s", "load_bytes"),
    "placement": (
        "placement",
        "replica_routing",
        "layer",
        "max_over_mean",
        "train_max_over_mean",
        "bound_max_over_mean",
    ),
    "expert": ("layer", "index", "share"),
    "pattern": ("topology", "routing", "pattern", "level", "batch", "time_s"),
    "cost": ("topology", "dollars", "watts"),
}
_OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "optimum": (
        "topology",
        "routing",
        "time_s",
        "optimum_s",
        "cut_s",
        "volume_bound_s",
        "virtual_channels",
    ),
    "failure": ("topology", "routing", "scenario", "draw", "devices", "parts"),
}
_MAY_BE_EMPTY = ("step_low_s", "step_high_s")  # without bootstrap resamples


@dataclass(frozen=True, eq=False)
class StudyResults:
    """The rows of a finished study; names are in the order in which the study ran them."""

    config: dict[str, Any]
    frame: pd.DataFrame
    grid: tuple[int, int]
    topologies: tuple[str, ...]
    groups: tuple[Group, ...]
    default_routing: dict[str, str]  # of each topology

    def rows(self, record: str, group: Group | None = None, **equal: object) -> pd.DataFrame:
        """Return the rows of a record, of one placement and replica routing if given."""
        if group is not None:
            equal |= {"placement": group[0], "replica_routing": group[1]}
        frame = self.frame[self.frame["record"] == record]
        for column, value in equal.items():
            frame = frame[frame[column] == value]
        return frame

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Every combination that was run: the summary rows."""
        return self.rows("summary").reset_index(drop=True)

    @cached_property
    def defaults(self) -> pd.DataFrame:
        """The summary rows under each topology's default routing."""
        usual = self.summary["topology"].map(self.default_routing)
        return self.summary[self.summary["routing"] == usual].reset_index(drop=True)

    def of_group(self, group: Group) -> pd.DataFrame:
        """Return the default-routing summary rows of one group, a row a topology, in order."""
        chosen = self.defaults[
            (self.defaults["placement"] == group[0])
            & (self.defaults["replica_routing"] == group[1])
        ]
        return chosen.set_index("topology", drop=False).loc[list(self.topologies)]

    @property
    def last_group(self) -> Group:
        """The group with which the other routings were run: last placement, first replicas."""
        last = self.groups[-1][0]
        return next(group for group in self.groups if group[0] == last)

    def group_label(self, group: Group) -> str:
        """Return ``placement``, and the replica routing where the study has several."""
        several = len({replicas for _, replicas in self.groups}) > 1
        return f"{group[0]}, {group[1]}" if several else group[0]

    def topology_label(self, name: str) -> str:
        """Return a topology's name, of an edge-list file only the file's where that is enough."""
        short = Path(name).name
        return short if [Path(n).name for n in self.topologies].count(short) == 1 else name

    @property
    def has_intervals(self) -> bool:
        """Whether the run resampled its requests, and enough of them for an interval."""
        enough = int(self.summary["requests"].min()) >= LEAST_REQUESTS
        return enough and bool(self.summary["step_low_s"].notna().all())

    @property
    def training(self) -> bool:
        """Whether the steps are training steps, with a backward pass."""
        return bool(self.config.get("workload", {}).get("phase") == "training")

    @property
    def num_batches(self) -> int:
        """Batches behind every mean and percentile."""
        return int(self.rows("step")["batch"].max()) + 1

    @property
    def num_experts(self) -> int:
        """Routed experts a layer."""
        return int(self.rows("expert")["index"].max()) + 1

    @property
    def num_layers(self) -> int:
        """MoE layers."""
        return int(self.rows("layer")["layer"].max()) + 1


def read_study(folder: RunFolder) -> StudyResults:
    """Return a finished study's results.

    Raises InputError, naming the file, where the config or the table is missing or damaged, lacks
    a record or a column, or holds a number that is not finite.
    """
    config = folder.config()
    path = folder.path / RESULTS
    frame = folder.results()
    if "grid" not in config:
        raise InputError(f"{folder.path / CONFIG}: grid is missing: not a study's config")
    grid = parse_grid(config["grid"], f"{folder.path / CONFIG}: grid")
    _check(frame, path)
    summary = frame[frame["record"] == "summary"]
    topologies = tuple(str(name) for name in summary["topology"].unique())
    pairs = summary[["placement", "replica_routing"]].drop_duplicates()
    first = summary.drop_duplicates("topology").set_index("topology")["routing"]
    results = StudyResults(
        config=config,
        frame=frame,
        grid=grid,
        topologies=topologies,
        groups=tuple((str(p), str(r)) for p, r in pairs.itertuples(index=False)),
        default_routing={str(name): str(routing) for name, routing in first.items()},
    )
    expected = len(topologies) * len(results.groups)
    if len(results.defaults) != expected:
        raise InputError(
            f"{path}: must hold {expected} summary rows under default routings "
            f"(topologies x placements x replica routings), has {len(results.defaults)}"
        )
    devices = grid[0] * grid[1]
    if results.rows("device")["index"].max() != devices - 1:
        raise InputError(
            f"{path}: rows of other devices than the {devices} of the grid in {CONFIG}"
        )
    return results


def counted(number: int, noun: str) -> str:
    """Return the number with its noun, in the plural where it is one.

    >>> counted(1, "request"), counted(2000, "MoE layer"), counted(3, "batch")
    ('1 request', '2,000 MoE layers', '3 batches')
    """
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{ending}"


def _check(frame: pd.DataFrame, path: Path) -> None:
    needed = {"record", "index", *_MAY_BE_EMPTY}.union(*_NEEDED.values(), *_OPTIONAL.values())
    missing = sorted(needed - set(frame.columns))
    if missing:
        raise InputError(f"{path}: columns are missing: {', '.join(missing)}")
    for record, columns in {**_NEEDED, **_OPTIONAL}.items():
        rows = frame[frame["record"] == record]
        if rows.empty and record in _NEEDED:
            raise InputError(f"{path}: no rows of record {record}: not a finished study")
        for column in columns:
            values = rows[column]
            given = bool(values.notna().all())
            if given and values.dtype.kind in "fi":
                given = bool(np.isfinite(values.to_numpy(dtype=np.float64)).all())
            if not given:
                raise InputError(f"{path}: {column} must be given and finite in {record} rows")


def gains(results: StudyResults) -> pd.DataFrame:
    """Return what each choice alone does to the mean time of the MoE layers, all else the same.

    A row a change of one choice (``kind``): ``reference``, ``choice``, ``reference_s``, ``moe_s``
    and their ``ratio`` (below 1 is faster). The reference is the topology's default routing, the
    study's first placement and replica routing, and the *fastest* topology with that placement, so
    that no topology's gain is counted against a bad one.
    """
    import pandas as pd

    usual = results.defaults
    first_placement, first_replicas = results.groups[0]
    rows: list[dict[str, object]] = []

    def add(kind: str, choice: str, reference: pd.DataFrame, changed: pd.DataFrame) -> None:
        for name, base in reference.iterrows():
            for _, row in changed.loc[changed.index == name].iterrows():
                if row[choice] != base[choice]:
                    rows.append(
                        {
                            "kind": kind,
                            **{key: row[key] for key in _NAMES},
                            "reference": base[choice],
                            "choice": row[choice],
                            "reference_s": base["moe_s"],
                            "moe_s": row["moe_s"],
                            "ratio": row["moe_s"] / base["moe_s"],
                        }
                    )

    def by(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
        keys = pd.Index([tuple(row) for row in frame[list(columns)].itertuples(index=False)])
        return frame.set_index(keys)

    place = ("topology", "placement", "replica_routing")
    add("routing", "routing", by(usual, *place), by(results.summary, *place))
    keys = ("topology", "replica_routing")
    first = usual[usual["placement"] == first_placement]
    add("placement", "placement", by(first, *keys), by(usual, *keys))
    keys = ("topology", "placement")
    first = usual[usual["replica_routing"] == first_replicas]
    add("replica routing", "replica_routing", by(first, *keys), by(usual, *keys))
    keys = ("placement", "replica_routing")
    fastest = usual.sort_values("moe_s", kind="stable").drop_duplicates(list(keys)).sort_index()
    add("topology", "topology", by(fastest, *keys), by(usual, *keys))
    columns = ["kind", *_NAMES, "reference", "choice", "reference_s", "moe_s", "ratio"]
    return pd.DataFrame(rows, columns=columns)
