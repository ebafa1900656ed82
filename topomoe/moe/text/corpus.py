"""Token ids of many documents, whole documents held out, and windows drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.moe.text.settings import HELD_OUT as HELD_OUT_NAMES
from topomoe.moe.text.settings import check_fractions
from topomoe.moe.text.streams import HELD_OUT, WINDOWS, stream
from topomoe.topologies.checked import whole
from topomoe.topologies.errors import InputError, unknown

PARTS = ("training", "validation", "test")


@dataclass(frozen=True, eq=False)
class Requests:
    """Q windows of one length, each inside one document, none overlapping another."""

    tokens: NDArray[np.int64]  # [Q, length]
    domain: NDArray[np.int64]  # [Q] index into domain_names
    names: tuple[str, ...]  # [Q] the window's document
    start: NDArray[np.int64]  # [Q] first token, counted in the corpus
    domain_names: tuple[str, ...]

    @property
    def window_names(self) -> tuple[str, ...]:
        """A name of its own for each window: its document and first token, [Q]."""
        pairs = zip(self.names, self.start, strict=True)
        return tuple(f"{name}@{start}" for name, start in pairs)

    @property
    def window_domains(self) -> tuple[str, ...]:
        """The name of each window's domain, [Q]."""
        return tuple(self.domain_names[number] for number in self.domain)


@dataclass(frozen=True, eq=False)
class Corpus:
    """D documents of P token ids in all, one after another, domain after domain."""

    token_ids: NDArray[np.int32]  # [P]
    document_start: NDArray[np.int64]  # [D+1] offsets into P
    document_domain: NDArray[np.int64]  # [D] index into domain_names, ascending
    document_year: NDArray[np.int64]  # [D]; 0: not known
    document_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    vocabulary: int

    def __post_init__(self) -> None:
        """Raise InputError where domains are not one after another."""
        if np.any(np.diff(self.document_domain) < 0):
            raise InputError("document_domain must ascend: documents stand domain after domain")

    @property
    def tokens(self) -> int:
        """Tokens of all documents, P."""
        return len(self.token_ids)

    def select(self, chosen: NDArray[np.bool_]) -> Corpus:
        """Return the corpus of the documents that ``chosen`` [D] marks."""
        length = np.diff(self.document_start)
        return Corpus(
            self.token_ids[np.repeat(chosen, length)],
            np.concatenate([[0], np.cumsum(length[chosen])]),
            self.document_domain[chosen],
            self.document_year[chosen],
            tuple(np.array(self.document_names, dtype=object)[chosen]),
            self.domain_names,
            self.vocabulary,
        )

    def split(
        self,
        validation_fraction: float,
        test_fraction: float,
        seed: int,
        held_out: str = "random",
    ) -> tuple[Corpus, Corpus, Corpus]:
        """Return the training, validation and test documents; see ``parts_of_documents``."""
        domain = [self.domain_names[d] for d in self.document_domain]
        part = parts_of_documents(
            domain, self.document_year, validation_fraction, test_fraction, seed, held_out
        )
        training, validation, test = (self.select(part == p) for p in range(len(PARTS)))
        return training, validation, test

    def batch(self, rng: np.random.Generator, sequences: int, length: int) -> NDArray[np.int64]:
        """Return windows [sequences, length], each inside one document.

        A window's domain is drawn evenly from the domains, its place evenly from all places in
        that domain's documents of at least ``length`` tokens; shorter documents are never drawn.

        Raises InputError where a domain has no such document.
        """
        places = np.maximum(np.diff(self.document_start) - length + 1, 0)  # [D]
        before = np.concatenate([[0], np.cumsum(places)])  # [D+1]
        edges = np.searchsorted(self.document_domain, np.arange(len(self.domain_names) + 1))
        first, last = before[edges[:-1]], before[edges[1:]]  # [domains]
        for name in np.array(self.domain_names)[first == last][:1]:
            raise InputError(f"domain {name}: no document has {length} tokens; lower the length")
        domain = rng.integers(len(self.domain_names), size=sequences)
        place = rng.integers(first[domain], last[domain])
        document = np.searchsorted(before, place, side="right") - 1
        start = self.document_start[document] + place - before[document]
        return self.windows(start, length)

    def windows(self, start: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Return the ``length`` tokens from each ``start`` [Q] on, int64 [Q, length]."""
        tokens: NDArray[np.int64] = self.token_ids[start[:, None] + np.arange(length)].astype(
            np.int64
        )
        return tokens

    def requests(self, count: int, length: int, seed: int) -> Requests:
        """Return ``count`` windows spread evenly over domains and, in each, over documents.

        Request q is of domain q mod domains, so any first few are mixed alike. A document gives its
        next window only when every other that has one left has given as many.

        Raises InputError where a domain has too few windows.
        """
        whole(count, "requests", least=1)
        whole(length, "request length", least=1)
        domains = len(self.domain_names)
        start, document = np.empty(count, np.int64), np.empty(count, np.int64)
        for index in range(domains):
            wanted = len(range(index, count, domains))
            start[index::domains], document[index::domains] = self._spread(
                index, wanted, length, seed
            )
        return Requests(
            tokens=self.windows(start, length),
            domain=self.document_domain[document],
            names=tuple(self.document_names[d] for d in document),
            start=start,
            domain_names=self.domain_names,
        )

    def _spread(
        self, domain: int, count: int, length: int, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return start and document of ``count`` windows of a domain."""
        name = self.domain_names[domain]
        rng = stream(seed, name, WINDOWS)
        documents = rng.permutation(np.flatnonzero(self.document_domain == domain))
        size = np.diff(self.document_start)[documents]
        fit = size // length
        if fit.sum() < count:
            raise InputError(
                f"domain {name}: {count} windows of {length} tokens wanted, {fit.sum()} are there; "
                "lower the requests or their length, or take more text"
            )
        document = np.repeat(documents, fit)
        rank = np.arange(fit.sum()) - np.repeat(np.cumsum(fit) - fit, fit)
        shift = rng.integers(size - fit * length + 1)  # where a document's first window may start
        start = self.document_start[document] + np.repeat(shift, fit)
        turn = np.concatenate([rng.permutation(n) for n in fit] or [rank])  # order in a document
        first = np.lexsort((np.repeat(np.arange(len(fit)), fit), rank))[:count]
        return (start + turn * length)[first], document[first]


def parts_of_documents(
    domain: Sequence[str],
    year: NDArray[np.int64],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    held_out: str = "random",
) -> NDArray[np.int64]:
    """Return the part of each document [D]: 0 training, 1 validation, 2 test.

    Of each domain's documents, a share rounded to whole documents (at least one) is held out:
    random ones, or with ``held_out="latest"`` the latest for the test and those before them for
    validation, where the domain's years are known. The draw of a domain does not depend on others.

    Raises InputError where a domain has fewer than three documents.
    """
    check_fractions(validation_fraction, test_fraction)
    if held_out not in HELD_OUT_NAMES:
        raise unknown("held_out", held_out, HELD_OUT_NAMES)
    part = np.zeros(len(domain), dtype=np.int64)
    names = np.array(domain, dtype=object)
    for name in dict.fromkeys(domain):
        here = np.flatnonzero(names == name)
        tests, validations = (
            max(1, round(share * len(here))) for share in (test_fraction, validation_fraction)
        )
        if tests + validations >= len(here):
            raise InputError(
                f"domain {name}: {len(here)} documents cannot be divided into training, "
                f"{validations} for validation and {tests} for the test; take more text"
            )
        order = stream(seed, name, HELD_OUT).permutation(here)
        if held_out == "latest" and np.all(year[here] > 0):
            order = here[np.argsort(-year[here], kind="stable")]
        part[order[:tests]] = PARTS.index("test")
        part[order[tests : tests + validations]] = PARTS.index("validation")
    return part
