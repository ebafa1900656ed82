"""Code: the source of the Python standard library that comes with the running interpreter.

A file is a document. Left out are installed packages, tests and their data, the generated tables
of ``encodings``, ``pydoc_data`` and ``_sysconfigdata``, and the applications idlelib, turtledemo
and lib2to3, so that what remains is library code written by hand.
"""

from __future__ import annotations

import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from topomoe.moe.text.document import Document, Source

_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "__pycache__",
    "__phello__",
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "encodings",
    "pydoc_data",
}


def _folder() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _installed() -> bool:
    return (_folder() / "os.py").is_file()


def _files(folder: Path) -> Iterator[str]:
    """Return the names of library files relative to ``folder``, not entering what is left out."""
    for here, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if f not in _LEFT_OUT and not f.startswith("config-")]
        for name in files:
            if name.endswith(".py") and not name.startswith("_sysconfigdata"):
                yield (Path(here) / name).relative_to(folder).as_posix()


def _read() -> Iterator[Document]:
    folder = _folder()
    for name in sorted(_files(folder)):
        try:
            with tokenize.open(folder / name) as file:  # honours the file's coding line
                text = file.read()
        except (OSError, SyntaxError, UnicodeDecodeError):
            continue  # not readable as Python source: no code
        if text.strip():
            yield Document(name, "code", text)


def _versions() -> dict[str, str]:
    return {platform.python_implementation(): platform.python_version()}


CODE = Source(
    domain="code",
    package="the source of Python's standard library",
    install="install a Python that comes with its .py files",
    installed=_installed,
    read=_read,
    versions=_versions,
)
