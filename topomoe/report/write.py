"""report.html, for every kind of run that has one: a page's parts, and how they are written."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from topomoe.run_folder import RunFolder
from topomoe.table_text import Table
from topomoe.topologies.errors import InputError
from topomoe.topologies.files import write_atomic

REPORT = "report.html"
KINDS = ("study", "routers")
Group = tuple[str, tuple[str, ...]]  # a heading, or none, and sentences under it


@dataclass(frozen=True)
class Picture:
    """A figure as the page shows it: ``image`` is its PNG in base64."""

    name: str
    title: str
    caption: str
    image: str


@dataclass(frozen=True)
class Section:
    """Sentences under a heading, in lists that may have headings of their own."""

    name: str
    link: str  # its text in the line of links
    title: str
    lists: tuple[Group, ...]
    tinted: bool = False


@dataclass(frozen=True)
class Page:
    """What one report says."""

    title: str
    subtitle: str
    findings: tuple[Group, ...]
    asked: tuple[tuple[str, str], ...]
    pictures: tuple[Picture, ...]
    tables: tuple[Table, ...]
    sections: tuple[Section, ...]
    same: str  # what gives the same numbers again


def write_report(folder: RunFolder) -> Path:
    """Write report.html, one file that needs no network, and return its path.

    Figures that are not in the folder yet are drawn first. Raises InputError where the results are
    missing or damaged, or where runs of this kind have no report.
    """
    import jinja2

    page = _page_of(folder.kind)(check_kind(folder))
    config = folder.config()
    template = files("topomoe.report").joinpath("template.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(template).render(
        page=page, notes=config.get("run", {}).get("notes", []), settings=flatten(config)
    )
    path = folder.path / REPORT
    write_atomic(path, text)
    return path


def check_kind(folder: RunFolder) -> RunFolder:
    """Return the folder; InputError where runs of its kind have no report."""
    if folder.kind not in KINDS:
        raise InputError(
            f"{folder.path}: a run of kind {folder.kind!r} has no report; "
            f"{' and '.join(KINDS)} write one"
        )
    return folder


def _page_of(kind: str) -> Callable[[RunFolder], Page]:
    if kind == "routers":
        from topomoe.report.routers import routers_page

        return routers_page
    from topomoe.report.study import study_page

    return study_page


def pictures(
    folder: RunFolder,
    figures: Sequence[ModuleType],
    captions: Sequence[str],
    draw: Callable[[RunFolder], Any],
) -> tuple[Picture, ...]:
    """Return the figures of a run from their files, which ``draw`` makes where one is missing."""
    paths = [folder.path / "figures" / f"{figure.NAME}.png" for figure in figures]
    if not all(path.is_file() for path in paths):
        draw(folder)
    return tuple(
        Picture(
            figure.NAME,
            figure.TITLE,
            caption,
            base64.b64encode(path.read_bytes()).decode("ascii"),
        )
        for figure, caption, path in zip(figures, captions, paths, strict=True)
    )


def flatten(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return every setting as (dotted name, value), notes left out."""
    settings = []
    for name, value in config.items():
        if isinstance(value, dict):
            settings += flatten(value, f"{prefix}{name}.")
        elif f"{prefix}{name}" != "run.notes":
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            settings.append((f"{prefix}{name}", text or "(none)"))
    return settings
