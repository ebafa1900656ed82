"""The one exception that bad input raises, and the message for an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input. Its message is one line that names the file, the field and the broken relation.

    The command line prints the message and exits with status 2; in Python it is a ``ValueError``.
    """


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Return the error for a name that is not one of ``choices``, suggesting the nearest.

    >>> print(unknown("topology", "tours", ["mesh", "torus"]))
    unknown topology 'tours'; did you mean 'torus'? (one of: mesh, torus)
    """
    known = list(choices)
    near = get_close_matches(str(name), known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return InputError(f"unknown {kind} {name!r}{hint} (one of: {', '.join(known) or 'none'})")
