"""Metrics in a file, for the textfile collector of Prometheus' node_exporter.

One of the adapters; knows files and the text format.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otgd.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE_MODE = 0o644


class Textfile:
    """The file at *path*, always whole; none while *path* is empty. Implements ``MetricsPort``."""

    def __init__(self) -> None:
        self._path = ""

    @property
    def path(self) -> str:
        """Where it is."""
        return self._path

    @path.setter
    def path(self, path: str) -> None:
        if self._path and path != self._path:
            with suppress(OSError):
                Path(self._path).unlink()
        self._path = path

    def write(self, state: dict[str, Any]) -> None:
        """Tell *state*, in state.json's layout.

        Raises:
            PermanentError: it cannot be written; what was told before stays.
        """
        self._write(state)

    def finish(self) -> None:
        """Tell that otgd does not run; a file that cannot be written stays as it is."""
        with suppress(PermanentError):
            self._write(None)

    def _write(self, state: dict[str, Any] | None) -> None:
        if not self._path:
            return
        # Only who wants it pays for it.
        from otgd.metrics import collect

        _replace(Path(self._path), (f"{metric}\n" for metric in collect(state, {})))


def _replace(path: Path, lines: Iterable[str]) -> None:
    temporary = path.with_name(f".{path.name}.new")  # the collector reads *.prom
    try:
        temporary.write_text("".join(lines), encoding="utf-8")
        temporary.chmod(FILE_MODE)
        temporary.replace(path)
    except OSError as err:
        with suppress(OSError):
            temporary.unlink()
        raise PermanentError(f"write {path}: {err.strerror}") from err
