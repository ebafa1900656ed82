"""What the parts of a network cost and draw, from a TOML file."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from topomoe.topologies.errors import InputError, unknown

SHIPPED = Path(__file__).with_name("prices.toml")
UNITS = ("Gbps", "port")
ITEMS = (
    "nic_port",
    "switch_port",
    "transceiver",
    "fibre",
    "copper_cable",
    "board_trace",
    "ocs_port",
    "scale_up_port",
)


@dataclass(frozen=True)
class Price:
    """What one unit of an item costs and draws; a unit is a Gbit/s of rate or a port."""

    dollars: float
    watts: float
    per: str
    source: str


def load_prices(path: str | Path = "") -> Mapping[str, Price]:
    """Return the price of every item in the TOML file; "" is the file that is shipped.

    Prices per Gbit/s are linear in a part's rate. Raises InputError, naming the file and the field,
    for a file that cannot be read, an item that is missing or unknown, and a value out of range.
    """
    file = Path(path) if path else SHIPPED
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot read the prices ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not valid TOML ({error})") from None
    for name in table:
        if name not in ITEMS:
            raise _named(file, unknown("item", name, ITEMS))
    return {name: _price(table.get(name), name, file) for name in ITEMS}


def _price(entry: Any, name: str, file: Path) -> Price:
    known = [field.name for field in fields(Price)]
    if not isinstance(entry, dict):
        what = "is missing" if entry is None else f"must be a table, got {entry!r}"
        raise InputError(f"{file}: [{name}] {what}")
    for key in entry:
        if key not in known:
            raise _named(file, unknown(f"key of [{name}]", key, known))
    for key in known:
        if key not in entry:
            raise InputError(f"{file}: [{name}] {key} is missing")
    for key in ("dollars", "watts"):
        value = entry[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise InputError(f"{file}: [{name}] {key} must be finite and >= 0, got {value!r}")
    if entry["per"] not in UNITS:
        raise _named(file, unknown(f"per of [{name}]", entry["per"], UNITS))
    if not isinstance(entry["source"], str) or not entry["source"].strip():
        raise InputError(f"{file}: [{name}] source must say where the figures are from")
    return Price(float(entry["dollars"]), float(entry["watts"]), entry["per"], entry["source"])


def _named(file: Path, error: InputError) -> InputError:
    return InputError(f"{file}: {error}")
