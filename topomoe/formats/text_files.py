"""JSON and YAML from outside: plain values or one clear line, whatever the text holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from topomoe.topologies.errors import InputError

MOST_TEXT_BYTES = 1 << 30
MOST_DEPTH = 16  # of nested lists and mappings; no format here has more than six


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a file; InputError where it cannot be read or is beyond 1 GiB."""
    try:
        size = path.stat().st_size
        if size > MOST_TEXT_BYTES:
            raise InputError(f"{path}: must be at most {MOST_TEXT_BYTES} bytes, got {size}")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no UTF-8 text") from None


def parse_json(text: str, where: str) -> Any:
    """Return the value of a JSON text; numbers are finite and no key comes twice.

    Raises InputError, opening with ``where``, for anything else.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise InputError(f"{where}: is nested too deeply") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except ValueError as error:
        what = str(error).splitlines()[0]
        raise InputError(f"{where}: is no JSON ({what})") from None


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(file and line, value)`` of every line that is not blank; InputError as above."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            where = f"{path}: line {number}"
            yield where, parse_json(line, where)


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of one YAML document of plain values.

    Raises InputError, opening with ``where``, for anchors and aliases (which can multiply), tags,
    repeated keys, more than 16 levels, and text that is no YAML.
    """
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class PlainLoader(base):  # type: ignore[misc]
        """Builds mappings whose keys come once."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            if any(isinstance(key, list | dict | set) for key in keys):
                raise InputError("a key must be a number or text")
            if len(set(keys)) < len(keys):
                twice = next(key for i, key in enumerate(keys) if key in keys[:i])
                raise InputError(f"key {repr(twice)[:40]} comes twice")
            made: dict[Any, Any] = super().construct_mapping(node, deep)
            return made

    try:
        depth = 0
        for event in yaml.parse(text, Loader=base):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise InputError("anchors and aliases are not read")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MOST_DEPTH:
                    raise InputError("is nested too deeply")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
        return yaml.load(text, Loader=PlainLoader)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        what = str(getattr(error, "problem", None) or error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{where}: is no YAML of plain values ({what}{line})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InputError(f"key {repr(key)[:40]} comes twice")
            seen.add(key)
    return made


def _refuse_constant(name: str) -> float:
    raise InputError(f"numbers must be finite, got {name}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InputError(f"numbers must be finite, got {text}")
    return number
