"""Text read, divided by document and made tokens: what a language model is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topomoe.moe.text.corpus import PARTS, Corpus, parts_of_documents
from topomoe.moe.text.document import Document
from topomoe.moe.text.documents import read_documents, versions
from topomoe.moe.text.settings import TextSettings
from topomoe.moe.text.tokenizer import Encoder, Tokenizer, make_tokenizer


@dataclass(frozen=True, eq=False)
class Corpora:
    """Three corpora that share no document, and how they came to be."""

    training: Corpus
    validation: Corpus
    test: Corpus
    tokenizer: Tokenizer
    facts: Mapping[str, Any]
    """What a report states: by domain its bytes, documents, tokens, SHA-256 and package versions,
    by part its documents, tokens and bytes; JSON throughout."""


def load_corpora(settings: TextSettings) -> Corpora:
    """Return the training, validation and test text of ``settings`` as tokens.

    The tokenizer sees training documents only. The same settings and package versions give the
    same bytes. Raises InputError where a domain's package is missing or its text too little.
    """
    documents, part = divided_documents(settings)
    training = [document for document, p in zip(documents, part, strict=True) if p == 0]
    tokenizer = make_tokenizer(settings.tokenizer, settings.vocabulary, training)
    corpus = make_corpus(documents, settings.domains, tokenizer)
    return Corpora(
        training=corpus.select(part == PARTS.index("training")),
        validation=corpus.select(part == PARTS.index("validation")),
        test=corpus.select(part == PARTS.index("test")),
        tokenizer=tokenizer,
        facts=_facts(documents, part, corpus, settings),
    )


def divided_documents(settings: TextSettings) -> tuple[tuple[Document, ...], NDArray[np.int64]]:
    """Return the documents of ``settings`` and the part of each: an index into ``PARTS``, [D]."""
    documents = read_documents(settings.domains, settings.domain_bytes, settings.seed)
    part = parts_of_documents(
        [document.domain for document in documents],
        np.array([document.year for document in documents], dtype=np.int64),
        settings.validation_fraction,
        settings.test_fraction,
        settings.seed,
        settings.held_out,
    )
    return documents, part


def make_corpus(
    documents: Sequence[Document], domain_names: Sequence[str], tokenizer: Encoder
) -> Corpus:
    """Return documents, which stand domain after domain as in ``domain_names``, as tokens."""
    token_ids = tokenizer.encode([document.text for document in documents])
    return Corpus(
        token_ids=np.concatenate([np.empty(0, np.int32), *token_ids]),
        document_start=np.cumsum([0, *map(len, token_ids)], dtype=np.int64),
        document_domain=np.array(
            [list(domain_names).index(document.domain) for document in documents], dtype=np.int64
        ),
        document_year=np.array([document.year for document in documents], dtype=np.int64),
        document_names=tuple(document.name for document in documents),
        domain_names=tuple(domain_names),
        vocabulary=tokenizer.vocabulary,
    )


def _facts(
    documents: Sequence[Document],
    part: NDArray[np.int64],
    corpus: Corpus,
    settings: TextSettings,
) -> dict[str, Any]:
    tokens = np.diff(corpus.document_start)
    size = np.array([len(document.text.encode()) for document in documents])

    def amounts(chosen: NDArray[np.bool_]) -> dict[str, int]:
        return {
            "documents": int(chosen.sum()),
            "bytes": int(size[chosen].sum()),
            "tokens": int(tokens[chosen].sum()),
        }

    domains = {}
    for index, name in enumerate(corpus.domain_names):
        digest = sha256()
        for document in documents:
            if document.domain == name:
                digest.update(f"{document.name}\0{document.text}\0".encode())
        domains[name] = amounts(corpus.document_domain == index) | {
            "sha256": digest.hexdigest(),
            "packages": versions(name),
        }
    library = {"tokenizers": metadata.version("tokenizers")} if settings.tokenizer == "bpe" else {}
    return {
        "domains": domains,
        "parts": {name: amounts(part == p) for p, name in enumerate(PARTS)},
        "tokenizer": {"kind": settings.tokenizer, "vocabulary": corpus.vocabulary, **library},
    }
