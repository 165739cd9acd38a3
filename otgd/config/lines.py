"""Where each key of a TOML document stands; tomllib does not tell.

Scans a document that tomllib has accepted, so it need not recognise what is wrong, only where
things begin and end (TOML 1.0, and the line breaks in inline tables of 1.1). Knows nothing of
what the keys mean.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

Path = tuple[str | int, ...]
"""Keys, and indices of list elements, from the root to a value."""

Lines = Mapping[Path, int]
"""1-based line on which each path is first named."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\[\s\S])*?"""(?:"{0,2})'  # up to two quotes may precede the closing three
    r"|'''[\s\S]*?'''(?:'{0,2})"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\r\n]+")


def locate_keys(text: str) -> Lines:
    """Return the line of every path of *text*, a document that tomllib accepts.

    A table that several lines name has the first of them.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._line = 1
        self._lines: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # of arrays of tables

    def scan(self) -> Lines:
        table: Path = ()
        self._take(_BLANK)
        while self._position < len(self._text):
            if self._looking_at("["):
                table = self._header()
            else:
                self._statement(table)
            self._take(_BLANK)
        return self._lines

    def _header(self) -> Path:
        is_array = self._looking_at("[[")
        self._skip(2 if is_array else 1)
        *parents, last = self._key()
        path: Path = ()
        for part in parents:
            path = self._newest((*path, part))
        path = (*path, last)
        self._name(path)
        if is_array:
            self._lengths[path] = self._lengths.get(path, 0) + 1
            self._name(self._newest(path))
        self._skip(2 if is_array else 1)
        return self._newest(path)

    def _newest(self, path: Path) -> Path:
        """Name *path*; where it is an array of tables, return its newest element's path."""
        self._name(path)
        return (*path, self._lengths[path] - 1) if path in self._lengths else path

    def _statement(self, table: Path) -> None:
        path = table
        for part in self._key():
            path = (*path, part)
            self._name(path)
        self._skip(1)  # the equals sign
        self._value(path)

    def _key(self) -> list[str]:
        """Take a dotted key and the blanks around it."""
        parts: list[str] = []
        while True:
            self._take(_BLANK)
            if self._text[self._position] in "\"'":
                parts.append(tomllib.loads(f"key = {self._take(_STRING)}")["key"])
            else:
                parts.append(self._take(_BARE_KEY))
            self._take(_BLANK)
            if not self._looking_at("."):
                return parts
            self._skip(1)

    def _value(self, path: Path) -> None:
        self._take(_BLANK)
        match self._text[self._position]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._take(_STRING)
            case _:
                self._take(_SCALAR)

    def _array(self, path: Path) -> None:
        index = 0
        while not self._at_end("]"):
            self._name((*path, index))
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: Path) -> None:
        while not self._at_end("}"):
            self._statement(path)

    def _at_end(self, bracket: str) -> bool:
        """Take the opening bracket or a comma, blanks, and the closing bracket if it is next."""
        self._take(_BLANK)
        if not self._looking_at(bracket):
            self._skip(1)
            self._take(_BLANK)
        if not self._looking_at(bracket):
            return False
        self._skip(1)
        return True

    def _name(self, path: Path) -> None:
        self._lines.setdefault(path, self._line)

    def _looking_at(self, text: str) -> bool:
        return self._text.startswith(text, self._position)

    def _take(self, pattern: re.Pattern[str]) -> str:
        taken = pattern.match(self._text, self._position)
        if taken is None:
            raise AssertionError(f"line {self._line}: tomllib accepted what the scanner cannot")
        self._line += taken.group().count("\n")
        self._position = taken.end()
        return taken.group()

    def _skip(self, length: int) -> None:
        self._position += length
