"""The documents of domains, read from the packages that are installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from topomoe.moe.text.code import CODE
from topomoe.moe.text.document import Document, Source
from topomoe.moe.text.manual import MANUAL
from topomoe.moe.text.prose import PROSE
from topomoe.moe.text.streams import TAKEN, stream
from topomoe.topologies.errors import InputError, unknown

SOURCES: dict[str, Source] = {source.domain: source for source in (PROSE, CODE, MANUAL)}


def available() -> tuple[str, ...]:
    """Return the domains whose text is installed."""
    return tuple(domain for domain, source in SOURCES.items() if source.installed())


def read_documents(
    domains: Iterable[str], domain_bytes: int = 0, seed: int = 0
) -> tuple[Document, ...]:
    """Return the documents of domains, domain after domain, each sorted by name, no text twice.

    ``domain_bytes`` > 0 takes whole documents of a domain in an order drawn by ``seed``, each that
    still fits that many UTF-8 bytes, so that a little text is from everywhere in the domain.

    Raises InputError for an unknown domain, where the package of one is not installed, and where
    not one of its documents fits.
    """
    documents: list[Document] = []
    for domain in domains:
        read = _read(domain)
        taken = _some(read, stream(seed, domain, TAKEN), domain_bytes) if domain_bytes else read
        if not taken:
            raise InputError(f"domain {domain}: no document of it fits {domain_bytes} bytes")
        documents += taken
    return tuple(documents)


def versions(domain: str) -> dict[str, str]:
    """Return the versions of the packages that a domain's text comes with, by name."""
    return dict(SOURCES[domain].versions())


def _read(domain: str) -> list[Document]:
    if domain not in SOURCES:
        raise unknown("domain", domain, SOURCES)
    source = SOURCES[domain]
    if not source.installed():
        others = ",".join(available()) or "none"
        raise InputError(
            f"domain {domain}: {source.package} is not there ({source.install}); "
            f"domains that can be read without it: {others}"
        )
    first: dict[str, Document] = {}
    for document in source.read():
        first.setdefault(document.text, document)
    return sorted(first.values(), key=lambda document: document.name)


def _some(documents: Sequence[Document], rng: np.random.Generator, most: int) -> list[Document]:
    """Return documents of ``most`` UTF-8 bytes at most, in their own order."""
    left, taken = most, []
    for position in rng.permutation(len(documents)):
        size = len(documents[position].text.encode())
        if size <= left:
            left -= size
            taken.append(int(position))
    return [documents[position] for position in sorted(taken)]
