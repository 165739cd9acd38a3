"""The gadgets' names for udev: a list that a helper of root's turns into .link files.

One of the adapters. otgd itself may not write udev's configuration; it leaves lines of
``SIGN NAME DRIVER,...`` in its state directory as ``names.new``; a sign is a MAC, ``serial=...``
or ``port=...``. otgd-names.service moves that to
``names``, which is there at the next boot before otgd is, and makes .link files of it. So udev and
otgd want the same name, whoever comes first.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from otgd.errors import PermanentError
from otgd.identity import Sign, udev_signs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otgd.model import DesiredState, GadgetSpec

NAMES = "names"
NEW = "names.new"
FILE_MODE = 0o644


class NamesFile:
    """The list in *directory*; implements ``NamesPort``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, desired: DesiredState) -> None:
        """Leave the gadgets' names there in one step, unless that is what udev knows already.

        Raises:
            PermanentError: it cannot be written.
        """
        drivers = ",".join(sorted(desired.drivers))
        text = "".join(
            f"{sign} {spec.name} {drivers}\n" for spec in desired.gadgets for sign in _signs(spec)
        )
        if text == self._known():
            return
        new, temporary = self._directory / NEW, self._directory / f".{NEW}"
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.chmod(FILE_MODE)
            temporary.replace(new)
        except OSError as err:
            with suppress(OSError):
                temporary.unlink()
            raise PermanentError(f"write {new}: {err.strerror}") from err

    def _known(self) -> str:
        """Return the list that was left last; nothing where there is none."""
        for name in (NEW, NAMES):
            with suppress(OSError):
                return (self._directory / name).read_text(encoding="utf-8")
        return ""


def _signs(spec: GadgetSpec) -> Iterator[str]:
    """Yield what udev can know the gadget by; of another serial otgd sets the name, a bit later."""
    for sign, value in udev_signs(spec).items():
        yield value if sign is Sign.MAC else f"{sign}={value}"
