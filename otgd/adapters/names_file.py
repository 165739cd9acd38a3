"""The gadgets' names for udev: a list that a helper of root's turns into .link files.

One of the adapters. otgd itself may not write udev's configuration; it leaves lines of
``MAC NAME DRIVER,...`` as ``names.new`` in its state directory. otgd-names.service, which the
file's existence starts, takes it as ``names`` and makes .link files of it: now, and at the next
boot before otgd is there. So udev and otgd want the same name, whoever comes first.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from otgd.errors import PermanentError

if TYPE_CHECKING:
    from pathlib import Path

    from otgd.model import DesiredState

NAMES = "names"
NEW_NAMES = "names.new"
FILE_MODE = 0o644


class NamesFile:
    """The list in *directory*; implements ``NamesPort``."""

    def __init__(self, directory: Path) -> None:
        self._taken = directory / NAMES
        self._new = directory / NEW_NAMES

    def write(self, desired: DesiredState) -> None:
        """Put the gadgets' names there in one step; a list that is right already is not touched.

        Raises:
            PermanentError: it cannot be written.
        """
        drivers = ",".join(sorted(desired.drivers))
        text = "".join(f"{spec.mac} {spec.name} {drivers}\n" for spec in desired.gadgets)
        if self._last() == text:
            return
        temporary = self._new.with_name(f".{NEW_NAMES}")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.chmod(FILE_MODE)
            temporary.replace(self._new)
        except OSError as err:
            with suppress(OSError):
                temporary.unlink()
            raise PermanentError(f"write {self._new}: {err.strerror}") from err

    def _last(self) -> str | None:
        """Return the list written last, taken already or not."""
        for path in (self._new, self._taken):
            with suppress(OSError):
                return path.read_text(encoding="utf-8")
        return None
