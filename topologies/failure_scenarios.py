"""Failure scenarios from short texts, as settings and flags give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from topomoe.topologies.errors import InputError, unknown
from topomoe.topologies.failed_parts import Failures

_RANDOM = ("links", "switches", "devices", "circuits")
_NAMED = {"link": "links", "switch": "switches", "device": "devices", "circuit": "circuits"}


@dataclass(frozen=True)
class FailureScenario:
    """One named set of failures; the draws of a random one share its name."""

    name: str
    draw: int
    failures: Failures


def failure_scenarios(
    texts: Sequence[str], draws: int = 5, seed: int = 0
) -> tuple[FailureScenario, ...]:
    """Return the scenarios that the texts name; random ones ``draws`` times, each its own seed.

    ``links:4``, ``switches:1``, ``devices:2`` and ``circuits:8`` fail that many at random;
    ``link:3-17``, ``switch:130``, ``device:5`` and ``circuit:3>17`` fail what they name; ``+``
    joins terms. A bare number repeats the kind before it: ``links:1, 2, 4`` is a sweep. Draw d has
    seed ``seed`` + d. Raises InputError for any other text and for a scenario named twice.

    >>> [s.name for s in failure_scenarios(["links:1", "2", "device:5+switches:1"], draws=1)]
    ['links:1', 'links:2', 'device:5+switches:1']
    """
    if draws < 1:
        raise InputError(f"failure_draws must be >= 1, got {draws}")
    found: list[FailureScenario] = []
    kind = ""
    for text in texts:
        name = text.replace(" ", "")
        if name.isdecimal():
            if kind not in _RANDOM:
                raise InputError(f"failures: {text!r} needs a kind before it such as links:{text}")
            name = f"{kind}:{name}"
        failures = _parsed(name)
        kind = name.split(":")[0]
        if any(scenario.name == name for scenario in found):
            raise InputError(f"failures must not name a scenario twice, got {name}")
        random = any(getattr(failures, f"random_{field}") for field in _RANDOM)
        found += [
            FailureScenario(name, draw, replace(failures, failure_seed=seed + draw))
            for draw in range(draws if random else 1)
        ]
    return tuple(found)


def _parsed(name: str) -> Failures:
    chosen: dict[str, Any] = {}
    for term in name.split("+"):
        kind, _, value = term.partition(":")
        if kind not in _RANDOM and kind not in _NAMED:
            raise unknown("failure", kind, [*_RANDOM, *_NAMED])
        if not value:
            raise InputError(f"failures: {term!r} must be kind:value such as links:4 or link:3-17")
        by_ends = kind in ("link", "circuit")
        if not by_ends and not value.isdecimal():
            raise InputError(f"failures: {kind} must be followed by a whole number, got {term!r}")
        if kind in _NAMED:
            field = _NAMED[kind]
            chosen[field] = (*chosen.get(field, ()), value if by_ends else int(value))
        elif f"random_{kind}" in chosen:
            raise InputError(f"failures: {name!r} names {kind} twice")
        else:
            chosen[f"random_{kind}"] = int(value)
    return Failures(**chosen)
