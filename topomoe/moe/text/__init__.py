"""Real text that installs from packages, in domains that are labels: prose, code, manual.

``load_corpora(TextSettings())`` reads it, holds whole documents out and makes it tokens; a
``Corpus`` gives training batches and held-out requests. The names below come when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topomoe.moe.text.corpora import Corpora, divided_documents, load_corpora, make_corpus
    from topomoe.moe.text.corpus import Corpus, Requests, parts_of_documents
    from topomoe.moe.text.document import Document
    from topomoe.moe.text.documents import available, read_documents
    from topomoe.moe.text.settings import TextSettings
    from topomoe.moe.text.tokenizer import (
        Tokenizer,
        load_tokenizer,
        make_tokenizer,
        save_tokenizer,
        tokenizer_from_json,
    )

__all__ = [
    "Corpora",
    "Corpus",
    "Document",
    "Requests",
    "TextSettings",
    "Tokenizer",
    "available",
    "divided_documents",
    "load_corpora",
    "load_tokenizer",
    "make_corpus",
    "make_tokenizer",
    "parts_of_documents",
    "read_documents",
    "save_tokenizer",
    "tokenizer_from_json",
]

_HOME = {
    "Corpora": "corpora",
    "Corpus": "corpus",
    "Document": "document",
    "Requests": "corpus",
    "TextSettings": "settings",
    "Tokenizer": "tokenizer",
    "available": "documents",
    "divided_documents": "corpora",
    "load_corpora": "corpora",
    "load_tokenizer": "tokenizer",
    "make_corpus": "corpora",
    "make_tokenizer": "tokenizer",
    "parts_of_documents": "corpus",
    "read_documents": "documents",
    "save_tokenizer": "tokenizer",
    "tokenizer_from_json": "tokenizer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
