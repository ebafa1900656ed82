"""Quantities with units become SI numbers; anything else is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topomoe.topologies import InputError, units


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("400Gbps", 50e9),
        ("400 Gbps", 50e9),
        ("400Gbit/s", 50e9),
        ("400Gb/s", 50e9),
        ("50GB/s", 50e9),
        ("1.6Tbps", 200e9),
        ("1e3Mbps", 125e6),
        (".5GB/s", 0.5e9),
        ("8bps", 1.0),
        ("2KiB/s", 2048.0),
        (12.5e9, 12.5e9),
        (3, 3.0),
    ],
)
def test_bandwidth_is_bytes_per_second(text: str | float, value: float) -> None:
    assert units.bandwidth(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("25ms", 0.025),
        ("1us", 1e-6),
        ("1µs", 1e-6),
        ("10ns", 1e-8),
        ("2 s", 2.0),
        ("3min", 180.0),
        ("1h", 3600.0),
        ("0", 0.0),
        (0, 0.0),
        (1e-6, 1e-6),
    ],
)
def test_time_is_seconds(text: str | float, value: float) -> None:
    assert units.seconds(text) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "value"),
    [("64KiB", 65536.0), ("4kB", 4000.0), ("1500B", 1500.0), ("2GiB", 2.0**31), (4096, 4096.0)],
)
def test_size_is_bytes(text: str | float, value: float) -> None:
    assert units.size(text) == value


@pytest.mark.parametrize("parse", [units.bandwidth, units.seconds, units.size])
@pytest.mark.parametrize(
    "value",
    ["", "fast", "-1s", "1", "1lightyear", "nan", "infs", "1e999s", "1e999Gbps", "1e999B", "1 2s",
     -1, float("nan"), float("inf"), None, [1]],
)  # fmt: skip
def test_what_is_no_quantity_is_refused_in_one_line_that_names_the_field(
    parse: Callable[[object, str], float], value: object
) -> None:
    with pytest.raises(InputError, match=r"^uplink must ") as caught:
        parse(value, "uplink")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["400G", "400GHz", "400gbps", "400mbps", 0, "0Gbps"])
def test_bandwidth_needs_a_known_unit_and_must_not_be_zero(value: object) -> None:
    with pytest.raises(InputError, match=r"^bandwidth must "):
        units.bandwidth(value)


@given(st.floats(1e-3, 1e6))
def test_bits_and_bytes_agree(number: float) -> None:
    assert units.bandwidth(f"{number!r}Gbps") == pytest.approx(
        units.bandwidth(f"{number!r}GB/s") / 8, rel=1e-12
    )
