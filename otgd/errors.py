"""What can go wrong, sorted by what helps.

The bottom layer: knows nothing of the rest. An adapter translates errno or a library's exception
into one of these exactly once; everybody above asks only *does waiting help?* A message reads
``operation object: cause``, for example ``rename usb0 to ethusb1: name is taken by ifindex 7``.
"""

from __future__ import annotations

from dataclasses import dataclass


class OtgdError(Exception):
    """Base of every error that otgd raises on purpose."""


class TransientError(OtgdError):
    """It may work in a moment (a lock is held, the kernel was busy): back off and retry."""


class PermanentError(OtgdError):
    """Waiting does not help; report it and look again when something changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a config file.

    Attributes:
        file: name of the file as the user gave it.
        line: 1-based line, or None where the file has no such line (it cannot be read, a key is
            missing altogether).
        key: dotted key, for example ``gadget.ethusb3.mac``; empty for the file as a whole.
        cause: what is wrong.
        remedy: what to write or do instead.
    """

    file: str
    line: int | None
    key: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        subject = f"{self.key}: " if self.key else ""
        return f"{where}: {subject}{self.cause}; {self.remedy}"


class ConfigError(OtgdError):
    """The config is refused; carries every problem found, not only the first."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))
