"""The gadgets' names for udev: a list that a helper of root's turns into .link files.

One of the adapters. otgd itself may not write udev's configuration; it keeps lines of
``MAC NAME DRIVER,...`` in its state directory, which are there at the next boot before otgd is,
and otgd-names.service makes .link files of them. So udev and otgd want the same name, whoever
comes first.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from otgd.errors import PermanentError

if TYPE_CHECKING:
    from pathlib import Path

    from otgd.model import DesiredState

NAMES = "names"
FILE_MODE = 0o644


class NamesFile:
    """The list in *directory*; implements ``NamesPort``."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAMES

    def write(self, desired: DesiredState) -> None:
        """Put the gadgets' names there in one step; a list that is right already is not touched.

        Raises:
            PermanentError: it cannot be written.
        """
        drivers = ",".join(sorted(desired.drivers))
        text = "".join(f"{spec.mac} {spec.name} {drivers}\n" for spec in desired.gadgets)
        with suppress(OSError):
            if self._path.read_text(encoding="utf-8") == text:
                return
        temporary = self._path.with_name(f".{NAMES}.new")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.chmod(FILE_MODE)
            temporary.replace(self._path)
        except OSError as err:
            with suppress(OSError):
                temporary.unlink()
            raise PermanentError(f"write {self._path}: {err.strerror}") from err
