"""What a check says: a mark, and one sentence each for what, why and what to type."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Mark(StrEnum):
    """How bad it is. ``SKIP``: it could not be checked, or there is nothing to check."""

    OK = "ok"
    SKIP = "skip"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check found.

    Attributes:
        what: what is so.
        why: what that does, or where it comes from; empty when all is well.
        remedy: what to type; empty when all is well.
        check: the check's name.
        gadget: the gadget that it is about; empty for the host.
    """

    mark: Mark
    what: str
    why: str = ""
    remedy: str = ""
    check: str = ""
    gadget: str = ""

    @property
    def is_trouble(self) -> bool:
        """Whether somebody should do something."""
        return self.mark in (Mark.WARN, Mark.FAIL)


def fine(what: str) -> Finding:
    """Say that something is as it should be."""
    return Finding(mark=Mark.OK, what=what)


def skip(what: str, *, remedy: str = "") -> Finding:
    """Say that something was not checked."""
    return Finding(mark=Mark.SKIP, what=what, remedy=remedy)


def warn(what: str, *, why: str, remedy: str) -> Finding:
    """Say that something may do harm."""
    return Finding(mark=Mark.WARN, what=what, why=why, remedy=remedy)


def fail(what: str, *, why: str, remedy: str) -> Finding:
    """Say that something is broken."""
    return Finding(mark=Mark.FAIL, what=what, why=why, remedy=remedy)
