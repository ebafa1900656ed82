"""Text files read with a clear refusal, files written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from topomoe.topologies.errors import InputError

_UNUSABLE = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


def read_lines(path: Path, what: str) -> list[str]:
    """Return the lines of a UTF-8 file; InputError names it and ``what`` it should hold."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot read the {what} ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot read the {what} ({error})") from None


def check_target(path: Path, field: str) -> None:
    """Raise InputError where nothing can be written at ``path``: below a file, or not permitted."""
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"{field}: {above} is a file, not a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"{field}: {above} is no folder that can be written to")


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write ``content`` under a temporary name beside ``path``, then rename it into place.

    Raises InputError where ``path`` cannot be a file: a folder, below a file, or not permitted.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.is_dir():
        raise InputError(f"{path}: cannot be written (is a folder)")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except _UNUSABLE as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
