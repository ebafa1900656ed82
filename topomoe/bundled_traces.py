"""The routing traces that ship with topomoe, found by name."""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from topomoe.topologies.errors import InputError

FOLDER = Path(str(files("topomoe").joinpath("traces")))


def bundled() -> tuple[str, ...]:
    """Return the names that ``load_trace`` and ``--trace`` take instead of a path."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.npz")))


def find_trace(path: str | Path) -> tuple[Path, tuple[str, ...]]:
    """Return the path to read and a note where it is a bundled trace's: ``path`` where it exists.

    Raises InputError for a word that is neither a path nor such a name, suggesting the nearest.
    """
    given, names = Path(path), bundled()
    try:
        is_path = given.exists()
    except OSError:  # a name too long, a folder that may not be entered: the reader says which
        return given, ()
    if is_path or not names or os.sep in str(given):
        return given, ()
    name = str(given)
    if name not in names:
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"{name}: no such file or folder, nor a bundled trace of that name{hint} "
            f"(one of: {', '.join(names)})"
        )
    return FOLDER / f"{name}.npz", (_origin(name),)


def _origin(name: str) -> str:
    """Return where a bundled trace comes from, as the file beside it says."""
    about = FOLDER / f"{name}.toml"
    if not about.is_file():
        return f"{name}: comes with topomoe"
    facts = tomllib.loads(about.read_text(encoding="utf-8"))
    return (
        f"{name}: comes with topomoe, made by {facts['command']} "
        f"(seed {facts['seed']}, commit {str(facts['commit'])[:12]})"
    )
