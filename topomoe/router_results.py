"""What figures and tables of routers share: a run's rows, checked, and their means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from topomoe.run_folder import RunFolder
from topomoe.topologies.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

RESULTS, TIMING = "results.parquet", "timing.csv"
NOT_CAUSAL = ("expert-choice",)  # an expert's choice among a sequence's tokens sees later ones
TRAINED, ORIGINAL = "trained", "original"
UNIFORM = "uniform_gini"
POINT = ["router", "capacity_factor"]
PERPLEXITY = "comparable_perplexity"


@dataclass(frozen=True)
class RouterResults:
    """The results and the timing of one run; ``timing`` is None where the file is missing."""

    path: Path
    frame: pd.DataFrame
    timing: pd.DataFrame | None = None

    def rows(self, record: str, columns: Sequence[str], *parts: str) -> pd.DataFrame:
        """Return the rows of a record, of these parts or of none; columns without a value dropped.

        Raises InputError where there are rows and one of ``columns`` is missing or empty.
        """
        return self._rows(self.frame, self.frame["record"] == record, columns, parts, RESULTS)

    def timings(self, columns: Sequence[str], *parts: str) -> pd.DataFrame:
        """Return the rows of the timing, as ``rows`` does; no row where there is no timing."""
        if self.timing is None:
            return self.frame[:0]
        return self._rows(self.timing, self.timing["part"].notna(), columns, parts, TIMING)

    def _rows(
        self,
        frame: pd.DataFrame,
        wanted: pd.Series[bool],
        columns: Sequence[str],
        parts: Sequence[str],
        file: str,
    ) -> pd.DataFrame:
        if parts and "part" in frame:
            wanted &= frame["part"].isin(parts) | frame["part"].isna()
        rows = frame[wanted].dropna(axis=1, how="all").reset_index(drop=True)
        for column in columns:
            if len(rows) and column not in rows:
                raise InputError(f"{self.path}: {file} lacks column {column}")
        return rows


def read_routers(folder: RunFolder) -> RouterResults:
    """Return a run's results and timing; InputError where they are damaged or of something else."""
    frame = folder.results()
    timing = _read_timing(folder.path / TIMING)
    for table, column, file in ((frame, "record", RESULTS), (timing, "part", TIMING)):
        if table is not None and column not in table:
            raise InputError(f"{folder.path}: {file} lacks column {column}")
    return RouterResults(folder.path, frame, timing)


def _read_timing(path: Path) -> pd.DataFrame | None:
    import pandas as pd

    if not path.is_file():
        return None
    try:
        return pd.read_csv(path)
    except ValueError as error:
        raise InputError(f"{path}: cannot read the table ({error})") from None


def comparable(quality: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with a perplexity that compares: of no router that sees later tokens.

    The causal perplexity where it is known; NaN for a router of ``NOT_CAUSAL`` without one.
    """
    own = quality["perplexity"].mask(quality["router"].isin(NOT_CAUSAL))
    if "causal_perplexity" in quality:
        own = quality["causal_perplexity"].fillna(own)
    return quality.assign(**{PERPLEXITY: own})


def capacity_text(factor: float) -> str:
    """Return a capacity factor as written; 0 is none, so that nothing is dropped."""
    return "none" if not factor else f"{factor:g}"


def capacities(rows: pd.DataFrame) -> list[float]:
    """Return the capacity factors, ascending, and that there is none last."""
    return sorted(rows["capacity_factor"].unique(), key=lambda factor: (factor == 0, factor))


def reference_capacity(rows: pd.DataFrame) -> float:
    """Return the capacity factor that most routers have; of those the largest, drops being rare."""
    routers = rows.groupby("capacity_factor")["router"].nunique()
    return [factor for factor in capacities(rows) if routers[factor] == routers.max()][-1]


def at_reference(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows at the reference capacity factor; all where the rows have no factor."""
    if rows.empty or "capacity_factor" not in rows:
        return rows
    return rows[rows["capacity_factor"] == reference_capacity(rows)]


def networks(steps: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the rows of each topology, or of each topology and placement where there are more."""
    if steps.empty:
        return {}
    keys = ["topology"]
    if "placement" in steps and steps["placement"].nunique() > 1:
        keys.append("placement")
    found = steps.groupby(keys, sort=False)
    return {", ".join(map(str, np.atleast_1d(np.asarray(key)))): own for key, own in found}


def half_width(values: ArrayLike) -> float:
    """Return half the 95 % interval of the mean, Student's t over seeds; NaN of fewer than 2.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    from scipy.special import stdtrit

    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if len(known) < 2:
        return float("nan")
    quantile = float(stdtrit(len(known) - 1, 0.975))
    return float(quantile * known.std(ddof=1) / np.sqrt(len(known)))


def seed_ranks(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return the rows with ``rank``, of the router's mean in each ``by``, and ``seed_rank``.

    1 is the lowest comparable perplexity; equal ones share the better rank. ``seed_rank`` is among
    the routers of the same seed.
    """
    means = rows.groupby([by, "router"])[PERPLEXITY].mean()
    rank = means.groupby(level=0).rank(method="min").astype(int).rename("rank").reset_index()
    own = rows.groupby([by, "seed"])[PERPLEXITY].rank(method="min").astype(int)
    return rows.assign(seed_rank=own).merge(rank, on=[by, "router"])


def layer_rows(results: RouterResults) -> pd.DataFrame:
    """Return the rows of layers over all domains, of the Pareto sweep and of real models."""
    columns = ("source", "layer", "gini", UNIFORM, "domain")
    rows = results.rows("layer", columns, "pareto", "profile", "real")
    if rows.empty:
        return rows
    trained = rows["source"] == TRAINED
    if "part" in rows and (trained & (rows["part"] == "pareto")).any():
        rows = rows[~(trained & (rows["part"] == "profile"))]  # one of the same models again
    for column in ("router", "seed", "capacity_factor"):
        if (rows["source"] == TRAINED).any() and column not in rows:
            raise InputError(f"{results.path}: {RESULTS} lacks column {column}")
    rows = rows[rows["domain"] == "all"]
    return rows.astype({"layer": int})


def assignment_points(results: RouterResults) -> pd.DataFrame:
    """Return a row a router, assignment, seed and network, with what the original assignment has.

    Columns: perplexity, moe_p99_s, original_perplexity, original_p99_s. Raises InputError where
    there is no original assignment of a router and seed to compare with.
    """
    import pandas as pd

    key = ["router", "seed"]
    quality = results.rows("assignment", (*key, "assignment", "perplexity"))
    steps = results.rows("assignment_step", (*key, "assignment", "topology", "moe_p99_s"))
    if quality.empty or steps.empty:
        return quality[:0]
    tables = []
    for network, own in networks(steps).items():
        times = own.groupby([*key, "assignment"], sort=False)["moe_p99_s"].mean().reset_index()
        rows = quality.merge(times, on=[*key, "assignment"])
        first = rows.loc[rows["assignment"] == ORIGINAL, [*key, "perplexity", "moe_p99_s"]]
        first.columns = pd.Index([*key, "original_perplexity", "original_p99_s"])
        tables.append(rows.merge(first, on=key, how="left").assign(network=network))
    points = pd.concat(tables, ignore_index=True)
    if points["original_p99_s"].isna().any():
        lost = points[points["original_p99_s"].isna()].iloc[0]
        raise InputError(
            f"{results.path}: {RESULTS} lacks the {ORIGINAL} assignment of "
            f"{lost['router']}, seed {lost['seed']:g}"
        )
    return points
