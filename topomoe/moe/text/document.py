"""A document of one domain, and where a domain's documents come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A text that is never divided between training and held-out text."""

    name: str
    """Unique within its domain."""
    domain: str
    text: str
    year: int = 0
    """When it was spoken or written; 0: not known."""


@dataclass(frozen=True)
class Source:
    """A domain whose text comes with an installed package."""

    domain: str
    package: str
    """What it comes with, in words."""
    install: str
    """The command that installs it."""
    installed: Callable[[], bool]
    """Whether the text is there, told without reading it."""
    read: Callable[[], Iterator[Document]]
    """Every document that is not empty, in the order of their names."""
    versions: Callable[[], Mapping[str, str]]
    """Versions of the packages, by name: the same versions hold the same text."""
