"""Manual pages of Linux (Debian packages ``manpages`` and, where it is there, ``manpages-dev``).

A page is a document, its roff made plain text; pages that only point to another are left out.
Slim container images list the package as installed but leave its files out: that counts as
missing.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from topomoe.moe.text.document import Document, Source
from topomoe.moe.text.roff import plain_text

_DPKG = Path("/var/lib/dpkg")
_PACKAGES = ("manpages", "manpages-dev")
_PAGE = re.compile(r".*/man/(man[^/]+/[^/]+)\.gz$")


def _pages() -> dict[str, Path]:
    """Return the file of each page by its name, ``man2/open.2``, in the order of the names."""
    pages = {}
    for package in _PACKAGES:
        listing = _DPKG / "info" / f"{package}.list"
        for line in listing.read_text("utf-8").splitlines() if listing.is_file() else ():
            path, match = Path(line), _PAGE.match(line)
            if match and path.is_file() and not path.is_symlink():
                pages[match[1]] = path
    return dict(sorted(pages.items()))


def _read() -> Iterator[Document]:
    for name, path in _pages().items():
        roff = gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")
        text = plain_text(roff)
        if text.strip():
            yield Document(name, "manual", text)


def _versions() -> dict[str, str]:
    status = _DPKG / "status"
    blocks = status.read_text("utf-8", "replace").split("\n\n") if status.is_file() else []
    versions = {}
    for block in blocks:
        fields = dict(re.findall(r"^(Package|Version): (\S+)$", block, re.MULTILINE))
        if fields.get("Package") in _PACKAGES and "Version" in fields:
            versions[fields["Package"]] = fields["Version"]
    return dict(sorted(versions.items()))


MANUAL = Source(
    domain="manual",
    package="the Debian package manpages",
    install="apt-get install manpages",
    installed=lambda: bool(_pages()),
    read=_read,
    versions=_versions,
)
