"""Scenarios by name: TOML files that ship with topomoe, or a file of one's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from topomoe.envs.scenario_settings import ScenarioSettings
from topomoe.settings import build
from topomoe.topologies.errors import InputError, unknown

SCENARIOS = ("default", "pools", "hard", "stationary", "slow-migration")


def load_scenario(name: str, overrides: Mapping[str, Any] | None = None) -> ScenarioSettings:
    """Return a scenario that ships with topomoe, or that of a TOML file, with some fields changed.

    Keys of the file, and ``overrides``, are fields of ``ScenarioSettings``.

    Raises:
        InputError: there is no such scenario or file, or a key or value is wrong.
    """
    if name in SCENARIOS:
        text, source = _shipped(name), f"scenario {name}"
    elif name.endswith(".toml"):
        text, source = _read(Path(name)), name
    else:
        raise unknown("scenario (or a file ending in .toml)", name, SCENARIOS)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: not valid TOML ({error})") from None
    return build(ScenarioSettings, {**values, **(overrides or {})}, source)


def _shipped(name: str) -> str:
    return files("topomoe.envs").joinpath("scenarios", f"{name}.toml").read_text(encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
