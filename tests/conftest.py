"""What the tests share: where a user's own traces and reference runs lie, if anywhere."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The first example of a test may compile kernels or import scipy: no example is timed.
settings.register_profile("topomoe", deadline=None)
settings.load_profile("topomoe")

# Solved problems of a user's own are neither read nor added to.
os.environ["TOPOMOE_CACHE"] = tempfile.mkdtemp(prefix="topomoe-cache-")
atexit.register(shutil.rmtree, os.environ["TOPOMOE_CACHE"], ignore_errors=True)

SHARED = Path(os.environ.get("TOPOMOE_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def trace_folder() -> Callable[[str], Path]:
    """A function from a trace's name to its folder; skips the test where there is none."""

    def find(name: str) -> Path:
        folder = SHARED / "traces" / name
        if not folder.is_dir():
            pytest.skip(f"no trace folder {name}: set TOPOMOE_SHARED to run this test")
        return folder

    return find


@pytest.fixture(scope="session")
def reference_runs() -> Path:
    """The folder of the outside simulators' stored cases; skips the test where there is none."""
    folder = SHARED / "validation"
    if not folder.is_dir():
        pytest.skip("no validation folder: set TOPOMOE_SHARED to run this test")
    return folder


@pytest.fixture(scope="session")
def topomoe() -> Callable[..., tuple[int | str | None, str, str]]:
    """A function from a command line's words to its exit status, output and error output."""
    from topomoe import cli

    def call(*words: object) -> tuple[int | str | None, str, str]:
        out, err = io.StringIO(), io.StringIO()
        before = sys.argv
        sys.argv = ["topomoe", *map(str, words)]
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                pytest.raises(SystemExit) as exit_,
            ):
                cli.main()
        finally:
            sys.argv = before
        return exit_.value.code, out.getvalue(), err.getvalue()

    return call
