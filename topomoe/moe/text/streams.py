"""Streams of random numbers of a seed that are each a domain's own."""

from __future__ import annotations

from zlib import crc32

import numpy as np

TAKEN, HELD_OUT, WINDOWS = range(3)  # what a stream decides


def stream(seed: int, domain: str, purpose: int) -> np.random.Generator:
    """Return the generator of one purpose in one domain: the same whatever other domains there are.

    So a document that is held out of one run stays held out of a run on fewer or more domains.
    """
    return np.random.default_rng([seed, crc32(domain.encode()), purpose])
