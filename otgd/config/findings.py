"""What is wrong with a config so far, each with its place; reported together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otgd.config.values import quote
from otgd.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otgd.config.lines import Path

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dotted(path: Path) -> str:
    """Write *path* as TOML writes a dotted key."""
    parts = [str(part) for part in path]
    return ".".join(part if _BARE_KEY.fullmatch(part) else quote(part) for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """Where a key stands: the file's place among the files, the line in it, the file's name."""

    rank: int
    line: int
    file: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Findings:
    """Collects problems of *files*, beside those that were *found* already."""

    def __init__(
        self, *, files: Sequence[str], places: Mapping[Path, Place], found: Iterable[Problem] = ()
    ) -> None:
        self._files = files
        self._places = places
        self._problems = list(found)

    def add(self, path: Path, *, cause: str, remedy: str) -> None:
        """Note that the value at *path* is wrong; a missing key counts for its table's line."""
        place = self.place_of(path)
        self._problems.append(
            Problem(
                file=place.file if place else self._files[0],
                line=place.line if place else None,
                key=dotted(path),
                cause=cause,
                remedy=remedy,
            )
        )

    def place_of(self, path: Path) -> Place | None:
        """Return the place of *path*, or of the nearest table around it."""
        while path and path not in self._places:
            path = path[:-1]
        return self._places.get(path)

    def order_of(self, path: Path) -> tuple[int, int]:
        """Return what sorts paths by their places."""
        place = self.place_of(path)
        return (place.rank, place.line) if place else (0, 0)

    def where(self, path: Path) -> str:
        """Say where *path* stands, for a sentence about another place."""
        place = self.place_of(path)
        return str(place) if len(self._files) > 1 else f"line {place.line if place else None}"

    def raise_any(self) -> None:
        """Raise everything found, by file and line.

        Raises:
            ConfigError: something was found.
        """
        if self._problems:
            rank = {file: number for number, file in enumerate(self._files)}
            self._problems.sort(key=lambda problem: (rank[problem.file], problem.line or 0))
            raise ConfigError(tuple(self._problems))
