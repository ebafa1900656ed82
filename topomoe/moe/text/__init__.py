"""Real text that installs from packages, in domains that are labels: prose, code, manual.

``load_corpora(TextSettings())`` reads it, holds whole documents out and makes it tokens; a
``Corpus`` gives training batches and held-out requests. Nothing heavy is loaded before text is.
"""

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
