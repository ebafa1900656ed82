"""A SHA-256 of a whole zip archive, kept in the archive's own comment.

Zip checks the data of every member but not all of what it says about them, so a flipped bit can
pass unseen. A sealed archive is still an ordinary one: ``numpy.load`` reads it.
"""

from __future__ import annotations

import hashlib

from topomoe.topologies.errors import InputError

_DIGITS = 64
_NO_COMMENT = b"\0\0"  # the last two bytes of an archive: the length of its comment
_LENGTH = _DIGITS.to_bytes(2, "little")


def seal(archive: bytes) -> bytes:
    """Return a zip archive without a comment with its digest as comment."""
    digest = hashlib.sha256(archive).hexdigest().encode()
    return archive.removesuffix(_NO_COMMENT) + _LENGTH + digest


def unseal(content: bytes) -> bytes:
    """Return the archive that ``seal`` was given.

    Raises:
        InputError: the content is not what was sealed, in any bit.
    """
    archive = content[: -_DIGITS - 2] + _NO_COMMENT
    if seal(archive) != content:
        raise InputError("damaged file, or none that topomoe wrote: its checksum does not match")
    return archive
