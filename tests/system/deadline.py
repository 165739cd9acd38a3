"""Waiting as in the lab, for whole systems on a machine that is busy with other things."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tests.lab import deadline

if TYPE_CHECKING:
    from collections.abc import Callable

Truth = TypeVar("Truth")

SOON_S = 60.0
"""Only for what never comes. otgd's resync in these tests is far off, so it is not what helps."""


def until(
    condition: Callable[[], Truth | None],
    deadline_s: float = SOON_S,
    *,
    what: Callable[[], object] | None = None,
) -> Truth:
    """Return the first truthy value of *condition*, as ``tests.lab.deadline.until`` does."""
    return deadline.until(condition, deadline_s, what=what)
