"""On which line of a TOML text a key stands: the standard library's reader doesn't tell.

Meant for texts that `tomllib` has accepted. Lines count from 1.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import cast

KeyPath = tuple[str, ...]

_STRINGS_AND_COMMENTS = re.compile(
    r"""
    \"{3} (?: \\. | [^\\] )*? \"{3}     # strings over several lines
    | '{3} .*? '{3}
    | " (?: \\. | [^"\\\n] )* "         # strings on one line
    | ' [^'\n]* '
    | \# [^\n]*                         # comments
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r""" " (?: \\. | [^"\\] )* " | ' [^']* ' """, re.VERBOSE)
_KEY = r"""(?: [A-Za-z0-9_-]+ | " (?: \\. | [^"\\] )* " | ' [^']* ' )"""
_DOTTED = rf"{_KEY} (?: \s* \. \s* {_KEY} )*"
_ASSIGNMENT = re.compile(rf"\s* ( {_DOTTED} ) \s* = (.*)", re.VERBOSE)
_HEADER = re.compile(rf"\s* \[ \[? \s* ( {_DOTTED} ) \s* \]", re.VERBOSE)


def line_of_key(text: str, path: KeyPath) -> int | None:
    """Return the line of the key or section *path* (in an inline table: where that starts), or None if it is absent."""
    enclosing, depth = None, 0
    for line, found in _keys(text):
        if found == path:
            return line
        if depth < len(found) < len(path) and found == path[: len(found)]:
            enclosing, depth = line, len(found)
    return enclosing


def _keys(text: str) -> Iterator[tuple[int, KeyPath]]:
    """Yield each section and each key with its line, in order."""
    section: KeyPath = ()
    depth = 0
    for number, line in enumerate(_without_long_strings(text).split("\n"), start=1):
        value = line
        if depth == 0:
            if header := _HEADER.match(line):
                section = _path(header[1])
                yield number, section
                continue
            if assignment := _ASSIGNMENT.match(line):
                yield number, section + _path(assignment[1])
                value = assignment[2]
        brackets = _QUOTED.sub("", value)
        depth += sum(brackets.count(bracket) for bracket in "[{") - sum(brackets.count(bracket) for bracket in "]}")


def _without_long_strings(text: str) -> str:
    """Return *text* without comments and without what strings over several lines hold; lines keep their numbers."""

    def short(match: re.Match[str]) -> str:
        found = match[0]
        if found.startswith("#"):
            return ""
        return '""' + "\n" * found.count("\n") if found.startswith(('"""', "'''")) else found

    return _STRINGS_AND_COMMENTS.sub(short, text)


def _path(dotted: str) -> KeyPath:
    """Return the parts of a dotted key, quotes and escapes resolved."""
    parts: list[str] = []
    node: object = tomllib.loads(f"{dotted} = 0")
    while isinstance(node, dict):
        key, node = next(iter(cast("dict[str, object]", node).items()))
        parts.append(key)
    return tuple(parts)
