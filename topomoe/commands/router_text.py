"""The text of a run, made tokens once and then read by every process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from topomoe.checkpoint_file import Arrays, Checkpoint
from topomoe.moe.text import Corpora, Corpus, tokenizer_from_json
from topomoe.topologies.errors import InputError

_KIND = "topomoe corpora 1"
_PARTS = ("training", "validation", "test")
_ARRAYS = ("token_ids", "document_start", "document_domain", "document_year")


def write_corpora(path: Path, corpora: Corpora) -> None:
    """Write the three corpora, their tokenizer and facts to one file."""
    arrays: Arrays = {}
    values = {"tokenizer": corpora.tokenizer.to_json(), "facts": dict(corpora.facts)}
    for part in _PARTS:
        corpus: Corpus = getattr(corpora, part)
        arrays |= {f"{part}.{name}": getattr(corpus, name) for name in _ARRAYS}
        values[part] = {
            "document_names": corpus.document_names,
            "domain_names": corpus.domain_names,
            "vocabulary": corpus.vocabulary,
        }
    Checkpoint(arrays, values).write(path, _KIND)


def read_corpora(path: Path) -> Corpora:
    """Return what ``write_corpora`` wrote; read once in a process as long as the file stays."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: Path, written: int) -> Corpora:
    stored = Checkpoint.read(path, _KIND)
    if stored is None:
        raise InputError(f"{path}: no such file")

    def corpus(part: str) -> Corpus:
        return Corpus(
            **{name: stored.arrays[f"{part}.{name}"] for name in _ARRAYS},
            document_names=tuple(stored.values[part]["document_names"]),
            domain_names=tuple(stored.values[part]["domain_names"]),
            vocabulary=stored.values[part]["vocabulary"],
        )

    return Corpora(
        training=corpus("training"),
        validation=corpus("validation"),
        test=corpus("test"),
        tokenizer=tokenizer_from_json(stored.values["tokenizer"], str(path)),
        facts=stored.values["facts"],
    )
