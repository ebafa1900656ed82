"""Settings: documented frozen dataclasses from which TOML files and command-line flags follow.

A field's documentation is the string under it. Fields may be dataclasses themselves: a table of the
TOML file, and flat flags on the command line.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from topomoe.topologies.errors import InputError, unknown

T = TypeVar("T")
# By parser: the example and the default's text that a flag's help shows.
_QUANTITIES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "bandwidth": ("400Gbps", lambda value: f"{value * 8e-9:g}Gbps"),
    "seconds": ("10us", lambda value: f"{value * 1e6:g}us"),
    "size": ("4KiB", lambda value: f"{value:g}B"),
}


def field_docs(cls: type) -> dict[str, str]:
    """Return the string under each field of a dataclass, inherited ones too, on one line."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if "__dataclass_fields__" in vars(owner):
            docs |= _own_docs(owner)
    return docs


@cache
def _own_docs(cls: type) -> Mapping[str, str]:
    found = _classes(cls.__module__).get(cls.__qualname__)
    if found is None:  # a class inside a function
        found = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    docs = {}
    for here, after in pairwise(found.body):  # type: ignore[attr-defined]
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name):
            value = after.value if isinstance(after, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs[here.target.id] = " ".join(value.value.split())
    return docs


@cache
def _classes(module: str) -> Mapping[str, ast.stmt]:
    """Return the classes of a module as written, by name; its source is read once for all."""
    if module not in sys.modules:
        return {}
    source = inspect.getsource(sys.modules[module])
    return {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def parse_value(kind: Any, value: Any, where: str) -> Any:
    """Return ``value`` (TOML value or flag text) as the annotated type; InputError names where."""
    origin = get_origin(kind)
    if origin is Annotated:
        parse = get_args(kind)[1]
        return parse(value, where)
    if origin in (Union, UnionType):
        inner = [k for k in get_args(kind) if k is not type(None)]
        return None if value is None else parse_value(inner[0], value, where)
    if origin is tuple:
        items = value
        if isinstance(value, str):  # no text: an empty list, as a flag must be able to say
            items = [item.strip() for item in value.split(",")] if value.strip() else []
        if not isinstance(items, list | tuple):
            raise InputError(f"{where} must be a list, got {value!r}")
        if "" in items:
            raise InputError(f"{where} must not hold an empty name, got {value!r}")
        return tuple(parse_value(get_args(kind)[0], item, where) for item in items)
    return _parse_plain(kind, value, where)


def _parse_plain(kind: Any, value: Any, where: str) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        raise InputError(f"{where} must be true or false, got {value!r}")
    if kind is int:
        try:
            if not isinstance(value, bool) and float(value) == int(value):
                return int(value)
        except (TypeError, ValueError, OverflowError):
            pass
        raise InputError(f"{where} must be a whole number, got {value!r}")
    if kind is float:
        try:
            if not isinstance(value, bool):
                return float(value)
        except (TypeError, ValueError):
            pass
        raise InputError(f"{where} must be a number, got {value!r}")
    if not isinstance(value, str):
        raise InputError(f"{where} must be text, got {value!r}")
    return value


def leaves(cls: type) -> dict[str, tuple[tuple[str, ...], Any, Any, str]]:
    """Return each leaf field's flag name -> (path, type, default, documentation)."""
    return _leaves(cls())


def _leaves(defaults: Any) -> dict[str, tuple[tuple[str, ...], Any, Any, str]]:
    found: dict[str, tuple[tuple[str, ...], Any, Any, str]] = {}
    hints = get_type_hints(type(defaults), include_extras=True)
    docs = field_docs(type(defaults))
    for field in fields(defaults):
        default = getattr(defaults, field.name)
        if is_dataclass(default):
            for name, (path, kind, value, doc) in _leaves(default).items():
                found[name] = ((field.name, *path), kind, value, doc)
        else:
            found[field.name] = (
                (field.name,),
                hints[field.name],
                default,
                docs.get(field.name, ""),
            )
    return found


def build(cls: type[T], values: Mapping[str, Any], source: str) -> T:
    """Return the dataclass from nested TOML values; InputError for unknown keys and wrong types."""
    return apply(cls(), parse_table(cls, values, source), source)


def parse_table(cls: type, values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return nested TOML values as the annotated types, tables still mappings.

    Only keys and types are checked, not what a dataclass demands of its fields together.
    """
    hints = get_type_hints(cls, include_extras=True)
    known = [field.name for field in fields(cls)]
    parsed: dict[str, Any] = {}
    for key, value in values.items():
        where = f"{source}: {key}"
        if key not in known:
            raise InputError(f"{source}: {unknown('key', key, known)}")
        if is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise InputError(f"{where} must be a table")
            parsed[key] = parse_table(hints[key], value, where)
        else:
            parsed[key] = parse_value(hints[key], value, where)
    return parsed


def apply(defaults: T, values: Mapping[str, Any], source: str) -> T:
    """Return the defaults with these parsed values; a table changes only the keys that it has."""
    changes = {
        key: apply(getattr(defaults, key), value, f"{source}: {key}")
        if isinstance(value, Mapping)
        else value
        for key, value in values.items()
    }
    try:
        return replace(defaults, **changes)  # type: ignore[type-var]
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML file's tables; InputError names the file and the line that does not parse."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InputError(f"{path}: cannot read the config ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({error})") from None


def merge(
    cls: type[T], config: str | None, flags: Mapping[str, Any], defaults: T | None = None
) -> T:
    """Return the settings: defaults, then the TOML file, then the flags that are not None."""
    return apply(cls() if defaults is None else defaults, *given(cls, config, flags))


def given(cls: type, config: str | None, flags: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return what a TOML file and, above it, flags say, parsed and nested, and where it is said.

    Tables ``versions`` and ``run`` of a written config are for the reader and are skipped.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values = read_toml(Path(config))
        for table in ("versions", "run"):
            values.pop(table, None)
        values = parse_table(cls, values, config)
    sources = [] if config is None else [config]
    for name, (path, kind, _, _) in leaves(cls).items():
        if flags.get(name) is None:
            continue
        into = values
        for key in path[:-1]:
            into = into.setdefault(key, {})
        into[path[-1]] = parse_value(kind, flags[name], f"--{name.replace('_', '-')}")
    if any(value is not None for value in flags.values()):
        sources.append("flags")
    return values, " and ".join(sources) or "settings"


def to_dict(settings: Any) -> dict[str, Any]:
    """Return the settings as nested plain values for TOML; None is left out."""
    out: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            out[field.name] = to_dict(value)
        elif isinstance(value, tuple):
            out[field.name] = list(value)
        elif value is not None:
            out[field.name] = value
    return out


def flag_parameters(
    cls: type | Sequence[type], option: Callable[..., Any]
) -> list[inspect.Parameter]:
    """Return keyword parameters, one a leaf, for a command; ``option`` is typer.Option.

    Each defaults to None, so that a flag not given leaves the config file's value. Of several
    dataclasses a leaf that more than one have is one flag, documented as in the first that has it.
    """
    classes = [cls] if isinstance(cls, type) else list(cls)
    found: dict[str, tuple[Any, Any, str]] = {}
    for one in classes:
        for name, (_, kind, default, doc) in leaves(one).items():
            found.setdefault(name, (kind, default, doc))
    parameters = []
    for name, (kind, default, doc) in found.items():
        flag = f"--{name.replace('_', '-')}"
        shown = _shown(kind, default)
        text = f"{doc} [default: {shown}]" if shown not in (None, "") else doc
        if kind is bool:
            annotation: Any = bool | None
            flag = f"{flag}/--no-{name.replace('_', '-')}"
        else:
            annotation = str | None
        metavar = None if kind is bool else _metavar(kind)
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    annotation, option(flag, help=text, show_default=False, metavar=metavar)
                ],
            )
        )
    return parameters


def _shown(kind: Any, default: Any) -> Any:
    """Return a default as help shows it: lists as flags take them, quantities with their unit."""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if get_origin(kind) is Annotated:
        return _QUANTITIES[get_args(kind)[1].__name__][1](default)
    return default


def _metavar(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "A,B"
    if get_origin(kind) is Annotated:
        return _QUANTITIES[get_args(kind)[1].__name__][0]
    if get_origin(kind) in (Union, UnionType):
        return _metavar(next(k for k in get_args(kind) if k is not type(None)))
    return {int: "N", float: "X"}.get(kind, "TEXT")
