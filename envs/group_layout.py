"""Who is in which expert-parallel group: layouts of a grid, read from text."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topomoe.topologies.errors import InputError, unknown

KINDS = ("prefill", "decode")
_POOL = re.compile(r"(\w+) (?:(?:(\d{1,5})x)?(\d{1,5})|all)")


@dataclass(frozen=True, eq=False)
class Layout:
    """Groups of devices, by number.

    Attributes:
        name: the text it was read from.
        kinds: prefill or decode, of each group.
        group_of: int16 [N], the group of each device; -1: idle.
    """

    name: str
    kinds: tuple[str, ...]
    group_of: NDArray[np.int16]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Devices of each group."""
        return np.bincount(self.group_of[self.group_of >= 0], minlength=len(self.kinds))

    def members(self, group: int) -> NDArray[np.int64]:
        """Return the devices of one group, in order."""
        return np.flatnonzero(self.group_of == group)


def parse_layout(text: str, num_devices: int, rng: np.random.Generator) -> Layout:
    """Return the layout of a text such as ``prefill 4x8 + decode 32 scattered``.

    Pools follow each other on consecutive devices, ``4x8`` is four groups of eight, ``all`` one
    group of those that are left; ``scattered`` draws the devices of all groups at random, as
    allocation leaves them. Devices left over idle.

    Raises:
        InputError: the text is not a layout, or asks for more devices than there are.
    """
    body, scattered = text.strip(), False
    if body.endswith(" scattered"):
        body, scattered = body.removesuffix(" scattered"), True
    kinds: list[str] = []
    sizes: list[int] = []
    for pool in body.split("+"):
        match = _POOL.fullmatch(pool.strip())
        if match is None:
            raise InputError(
                f"a layout is pools like 'prefill 4x8 + decode 32', with or without "
                f"'scattered', got {text!r}"
            )
        if match[1] not in KINDS:
            raise unknown("kind of pool", match[1], KINDS)
        count, size = int(match[2] or 1), int(match[3] or num_devices - sum(sizes))
        if count < 1 or size < 2:
            raise InputError(f"a group must have at least 2 devices, got {text!r}")
        kinds += [match[1]] * count
        sizes += [size] * count
    if sum(sizes) > num_devices:
        raise InputError(f"layout {text!r} needs {sum(sizes)} devices, the grid has {num_devices}")
    order = rng.permutation(num_devices) if scattered else np.arange(num_devices)
    group_of = np.full(num_devices, -1, dtype=np.int16)
    for group, devices in enumerate(np.split(order, np.cumsum(sizes))[:-1]):
        group_of[devices] = group
    return Layout(text.strip(), tuple(kinds), group_of)
