"""What is wrong with one file so far, each with its place; reported together."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otgd.config.values import quote
from otgd.errors import ConfigError, Problem

if TYPE_CHECKING:
    from otgd.config.lines import Lines, Path

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dotted(path: Path) -> str:
    """Write *path* as TOML writes a dotted key."""
    parts = [str(part) for part in path]
    return ".".join(part if _BARE_KEY.fullmatch(part) else quote(part) for part in parts)


class Findings:
    """Collects problems of *file*."""

    def __init__(self, *, file: str, lines: Lines) -> None:
        self._file = file
        self._lines = lines
        self._problems: list[Problem] = []

    def add(self, path: Path, *, cause: str, remedy: str) -> None:
        """Note that the value at *path* is wrong; a missing key counts for its table's line."""
        self._problems.append(
            Problem(
                file=self._file,
                line=self.line_of(path),
                key=dotted(path),
                cause=cause,
                remedy=remedy,
            )
        )

    def line_of(self, path: Path) -> int | None:
        """Return the line of *path*, or of the nearest table around it."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def raise_any(self) -> None:
        """Raise everything found, by line.

        Raises:
            ConfigError: something was found.
        """
        if self._problems:
            raise ConfigError(tuple(sorted(self._problems, key=lambda problem: problem.line or 0)))
