"""Random generators of many copies: seeded as Gymnasium seeds one, kept as arrays of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from gymnasium.utils import seeding
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError

_WORDS = 6  # of PCG64: state and increment in two words each, whether half a word is left, and it
_WORD = 2**64


def seed_copies(
    generators: Sequence[np.random.Generator | None], seed: int | Sequence[int | None] | None
) -> list[np.random.Generator]:
    """Return the generators after a reset: copy i gets ``seed + i``, or the i-th seed of several.

    None keeps a copy's generator, or makes one from the system's entropy where there is none.

    Raises:
        InputError: there is another number of seeds than copies.
    """
    seeds: list[int | None]
    if seed is None:
        seeds = [None] * len(generators)
    elif isinstance(seed, (int, np.integer)):
        seeds = [int(seed) + copy for copy in range(len(generators))]
    else:
        seeds = list(seed)
    if len(seeds) != len(generators):
        raise InputError(f"seed must be one number or {len(generators)}, got {len(seeds)}")
    return [
        seeding.np_random(one)[0] if one is not None or old is None else old
        for one, old in zip(seeds, generators, strict=True)
    ]


def pack(generators: Sequence[np.random.Generator]) -> NDArray[np.uint64]:
    """Return the states of PCG64 generators, uint64 [n, 6], for ``unpack``."""
    rows = []
    for generator in generators:
        state = generator.bit_generator.state
        numbers = (state["state"]["state"], state["state"]["inc"])
        words = [word for number in numbers for word in divmod(number, _WORD)]
        rows.append([*words, state["has_uint32"], state["uinteger"]])
    return np.array(rows, dtype=np.uint64).reshape(-1, _WORDS)


def unpack(packed: NDArray[np.uint64], copies: int) -> list[np.random.Generator]:
    """Return the generators whose states ``pack`` gave.

    Raises:
        InputError: these are not the states of ``copies`` generators.
    """
    states = np.asarray(packed)
    if states.dtype != np.uint64 or states.shape != (copies, _WORDS):
        raise InputError(
            f"generators must be uint64 [{copies}, {_WORDS}], "
            f"got {states.dtype} {list(states.shape)}"
        )
    if (states[:, 3] % 2 == 0).any() or (states[:, 4] > 1).any() or (states[:, 5] >= 2**32).any():
        raise InputError("generators hold a state that PCG64 cannot have")
    generators = []
    for high, low, step_high, step_low, has, half in states.tolist():
        generator = np.random.Generator(np.random.PCG64(0))
        generator.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": {"state": high * _WORD + low, "inc": step_high * _WORD + step_low},
            "has_uint32": has,
            "uinteger": half,
        }
        generators.append(generator)
    return generators
