"""Manual pages as plain text: the requests and escapes that such pages use, no typesetting.

A paragraph becomes one line, examples keep their lines, a table's row is a line with tabs between
cells; headings and paragraphs are set off by an empty line; fonts, comments and layout go. What
the macros mean: groff_man(7), tbl(1) and groff_char(7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_CHARACTERS = {
    "aq": "'", "dq": '"', "oq": "'", "cq": "'", "lq": '"', "rq": '"', "ga": "`", "ha": "^",
    "ti": "~", "bu": "*", "em": "--", "en": "-", "mi": "-", "hy": "-", "rs": "\\", "at": "@",
    "sh": "#", "Do": "$", "co": "(C)", "rg": "(R)", "tm": "(TM)", "+-": "+/-", "mu": "x",
    "<=": "<=", ">=": ">=", "!=": "!=", "->": "->", "<-": "<-", "ra": ">", "la": "<", "fm": "'",
    "de": "°", "sc": "§", "mc": "µ", "dg": "+", "sd": '"', "lB": "[", "rB": "]", "lC": "{",
    "rC": "}", "ba": "|", "or": "|", "bs": "\\", "12": "1/2", "14": "1/4", "34": "3/4",
}  # fmt: skip
_SIGNS = {"-": "-", "e": "\\", "\\": "\\", "'": "'", "`": "`", ".": ".", "t": "\t"}
_SIGNS |= dict.fromkeys(" ~0", " ")
_ACCENTED = {":": "äëïöüÄËÏÖÜ", "'": "áéíóúÁÉÍÓÚ", "`": "àèìòùÀÈÌÒÙ", "^": "âêîôûÂÊÎÔÛ"}
_CHARACTERS |= {
    mark + vowel: letter
    for mark, letters in _ACCENTED.items()
    for vowel, letter in zip("aeiouAEIOU", letters, strict=True)
}

_ESCAPE = re.compile(
    r"""\\(?:
        \[(?P<long>[^\]]*)\] | \((?P<short>..)
      | [f*nFgkmM](?:\[[^\]]*\]|\(..|.) | s(?:[+-]?\d\d?|\[[^\]]*\])
      | [wvhNXZbDlLo]'[^']*' | (?P<sign>.)
    )""",
    re.VERBOSE,
)
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\.|\S)+)')
_COMMENT = re.compile(r"(?<!\\)\\[\"#].*")
_ELSEWHERE = re.compile(r"^[.'][ \t]*(?:so|de1?|am|ds|ig)\b", re.MULTILINE)
_PARAGRAPHS = {"PP", "LP", "P", "HP", "TP", "sp"}
_LINE_ENDS = {"br", "in", "ti", "RS", "RE", "TQ", "YS"}
_ALTERNATING = {"BR", "RB", "BI", "IB", "IR", "RI"}  # two fonts in turn, no space between
_SPACED = {"B", "I", "SM", "SB", "R", "UR", "MT", "OP"}


def plain_text(roff: str) -> str:
    """Return a manual page's text.

    Empty where the page has none of its own (``.so``: it is another page), or defines macros or
    strings, which would have to be run to know what the page says.
    """
    if _ELSEWHERE.search(roff):
        return ""
    lines: list[str] = []
    fill, tag, joins = True, False, False  # joins: the next words go on in the line before
    source = re.sub(r"(?<!\\)\\\n", "", roff).split("\n")
    for line in _rows(iter([_COMMENT.sub("", s) for s in source])):
        request, arguments = _request(line)
        if request in ("nf", "EX", "fi", "EE"):
            fill, joins = request in ("fi", "EE"), False
        elif request in _LINE_ENDS:
            tag, joins = request == "TQ", False
        elif request in _PARAGRAPHS:
            lines.append("")
            tag, joins = request == "TP", False
        elif request in ("SH", "SS", "IP", "SY"):
            title = arguments[:1] if request == "IP" else arguments
            lines += ["", _characters(" ".join(title))]
            fill, joins = fill or request in ("SH", "SS"), False
        elif (words := _words(line)) is not None:
            text = _characters(words).rstrip()
            if joins and text and not text.startswith(" "):
                lines[-1] += f" {text}"
            else:
                lines.append(text)
            joins, tag = fill and bool(text) and not tag, False
    text = "\n".join(line.rstrip() for line in lines).strip("\n")
    return re.sub(r"\n{3,}", "\n\n", text) + "\n" if text else ""


def _request(line: str) -> tuple[str, list[str]]:
    """Return the request or macro of a line and its arguments; empty for a line of text."""
    if line[:1] not in (".", "'"):
        return "", []
    request, _, rest = line[1:].strip().replace("\t", " ").partition(" ")
    return request, [quoted.replace('""', '"') or bare for quoted, bare in _ARGUMENT.findall(rest)]


def _words(line: str) -> str | None:
    """Return what a line puts into the text, escapes as they are; None: nothing."""
    request, arguments = _request(line)
    if request in _ALTERNATING and arguments:
        return "".join(arguments)
    if request in _SPACED and arguments:
        return " ".join(arguments)
    return line if line[:1] not in (".", "'") else None


def _rows(lines: Iterator[str]) -> Iterator[str]:
    r"""Return lines with each row of a table (tbl) as one line, its cells between tabs."""
    for line in lines:
        if not line.startswith(".TS"):
            yield line
            continue
        yield from (".PP", ".nf")
        separator, row = _layout(lines), ""
        block: list[str] | None = None  # inside T{ ... T}, a cell of several lines
        for part in map(str.rstrip, lines):
            if part.startswith(".TE"):
                break
            if block is not None and not part.startswith("T}"):
                block.append(_words(part) or "")
                continue
            if block is not None:
                row, block, rest = row + " ".join(filter(None, block)), None, part[2:]
            elif part.startswith(".T&"):
                _layout(lines)
                continue
            else:
                rest = "" if part in ("_", "=") else _words(part) or ""
            row += rest.removesuffix("T{").replace(separator, "\t")
            if rest.endswith("T{"):
                block = []
            elif row:
                yield rf"\&{row}"
                row = ""
        yield from (".fi", ".PP")


def _layout(lines: Iterator[str]) -> str:
    """Skip a table's options and layout; return what stands between its cells."""
    separator = "\t"
    for line in lines:
        if match := re.search(r"\btab *\((.)\).*;", line):
            separator = match[1]
        if line.rstrip().endswith("."):
            break
    return separator


def _characters(text: str) -> str:
    """Return text with its escapes replaced by the characters they stand for."""
    return _ESCAPE.sub(_character, text)


def _character(match: re.Match[str]) -> str:
    if name := match["long"] or match["short"]:
        if re.fullmatch(r"u[0-9A-F]{4,6}", name) and int(name[1:], 16) <= 0x10FFFF:
            return chr(int(name[1:], 16))
        return _CHARACTERS.get(name, "")
    return _SIGNS.get(match["sign"] or "", "")
